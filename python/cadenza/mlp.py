"""Two-layer ReLU networks: a module for deployment, a batched kernel with its own backward for training.

`MlpBatch` evaluates several equally shaped networks at once on one input. As for `cadenza.nn.BlockBatch`, the
parameters are views of one flat tensor and the derivative is written out: nothing touches autograd.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cadenza.nn import FlatShape


class MlpShape(FlatShape):
    """Linear → ReLU → Linear → ReLU → Linear."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """See `FlatShape`."""
        h = self.hidden
        return {
            "linear0.weight": (h, self.f_in),
            "linear1.weight": (h, h),
            "linear2.weight": (self.f_out, h),
            "linear0.bias": (h,),
            "linear1.bias": (h,),
            "linear2.bias": (self.f_out,),
        }


def mlp(arrays: dict[str, Tensor]) -> nn.Sequential:
    """One network as a torch module from its named arrays (the names of `MlpShape.named`)."""

    def linear(name: str) -> nn.Linear:
        weight = arrays[f"{name}.weight"]
        layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
        layer.load_state_dict({"weight": weight, "bias": arrays[f"{name}.bias"]})
        return layer

    return nn.Sequential(linear("linear0"), nn.ReLU(), linear("linear1"), nn.ReLU(), linear("linear2"))


class MlpBatch:
    """`count` networks of one shape on the same `rows` rows: forward, and a backward derived by hand.

    The caller writes `input`, calls `forward`, writes `output_gradient` and calls `backward`. Results stay
    valid until the next call. Views are made once.

    Args:
        shape: sizes of each network.
        flat: parameters of all networks, `shape.stride` apart, starting at element 0.
        count: number of networks G.
        rows: batch rows B.
        gradient: where `backward` writes the parameters' gradients (same layout as `flat`).
        input_columns: `backward` also differentiates by these columns of the input, summed over networks.

    Attributes:
        input: [B, f_in].
        output: [G, B, f_out].
        output_gradient: [G, B, f_out], the gradient of the loss with respect to `output`.
        input_gradient: [B, columns], with `input_columns` only.
    """

    def __init__(
        self,
        shape: MlpShape,
        flat: Tensor,
        count: int,
        rows: int,
        *,
        gradient: Tensor | None = None,
        input_columns: slice | None = None,
    ) -> None:
        def new(*size: int) -> Tensor:
            return torch.zeros(size, dtype=flat.dtype, device=flat.device)

        h = shape.hidden
        self.input = new(rows, shape.f_in)
        self.output = new(count, rows, shape.f_out)
        self._x = self.input.expand(count, rows, shape.f_in)
        self._h0, self._h1 = new(count, rows, h), new(count, rows, h)
        w = shape.stacked(flat, count)
        self._layers = [
            (w[f"linear{i}.bias"], x, w[f"linear{i}.weight"].mT, out)
            for i, (x, out) in enumerate(((self._x, self._h0), (self._h0, self._h1), (self._h1, self.output)))
        ]
        self._w = w
        self._g: dict[str, Tensor] | None = None
        self._input_weight: Tensor | None = None
        if gradient is None and input_columns is None:
            return
        self.output_gradient = new(count, rows, shape.f_out)
        self._d0, self._d1 = new(count, rows, h), new(count, rows, h)
        if gradient is not None:
            self._g = shape.stacked(gradient, count)
            self._rows = {name: view[:, 0] for name, view in self._g.items() if name.endswith("bias")}
        if input_columns is not None:
            self._input_weight = w["linear0.weight"][:, :, input_columns]
            self._d_inputs = new(count, rows, self._input_weight.shape[2])
            self.input_gradient = new(rows, self._input_weight.shape[2])

    def forward(self) -> Tensor:
        """Evaluate all networks on `input`; returns `output`."""
        first, second, last = self._layers
        torch.baddbmm(first[0], first[1], first[2], out=first[3]).relu_()
        torch.baddbmm(second[0], second[1], second[2], out=second[3]).relu_()
        return torch.baddbmm(last[0], last[1], last[2], out=last[3])

    def backward(self) -> None:
        """Write the gradients that were asked for, overwriting what was there."""
        dy, d1, d0, w = self.output_gradient, self._d1, self._d0, self._w
        torch.bmm(dy, w["linear2.weight"], out=d1)
        _relu_backward(d1, self._h1, 0.0, grad_input=d1)
        torch.bmm(d1, w["linear1.weight"], out=d0)
        _relu_backward(d0, self._h0, 0.0, grad_input=d0)
        if self._g is not None:
            for i, (d, x) in enumerate(((d0, self._x), (d1, self._h0), (dy, self._h1))):
                torch.bmm(d.mT, x, out=self._g[f"linear{i}.weight"])
                torch.sum(d, 1, out=self._rows[f"linear{i}.bias"])
        if self._input_weight is not None:
            torch.bmm(d0, self._input_weight, out=self._d_inputs)
            torch.sum(self._d_inputs, 0, out=self.input_gradient)


_relu_backward = torch.ops.aten.threshold_backward.grad_input
