"""Network blocks with ReSine: one module for deployment, one batched kernel for training (spec/symphony.md §3.1).

A block is Linear(f_in -> h), LayerNorm(h), Linear(h -> h), ReSine(h), Linear(h -> f_out).
`block` builds it as an ordinary torch module. `BlockBatch` evaluates several equally shaped blocks at once and
differentiates them by hand: at these sizes the bookkeeping of autograd costs more than the arithmetic. Its
parameters are views of one flat tensor, so that an optimiser step is a handful of calls.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-5
_ALIGN = 16  # elements: keeps every block, and most of its weights, on a cache line
_CHUNK = 32_768  # elements of an elementwise chain that stay in the second-level cache


class ReSine(nn.Module):
    """ReSine(x) = σ·q·sigmoid(1.5·q) with q = sin(x/σ) and σ = sigmoid(s), one trainable s per feature.

    With `frozen`, σ and 1/σ are constants, so that an exported graph holds only Mul, Sin and Sigmoid.

    Args:
        s: initial parameter, shape [features].
        frozen: hold σ fixed (deployment).
    """

    def __init__(self, s: Tensor, *, frozen: bool = False) -> None:
        super().__init__()
        self.frozen = frozen
        if frozen:
            sigma = torch.sigmoid(s.detach())
            self.register_buffer("sigma", sigma)
            self.register_buffer("inverse_sigma", 1.0 / sigma)
        else:
            self.s = nn.Parameter(s.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., features] to [..., features]."""
        if self.frozen:
            q = torch.sin(x * self.inverse_sigma)
            return self.sigma * (q * torch.sigmoid(1.5 * q))
        sigma = torch.sigmoid(self.s)
        q = torch.sin(x / sigma)
        return sigma * (q * torch.sigmoid(1.5 * q))


def block(arrays: dict[str, Tensor], *, frozen: bool = False) -> nn.Sequential:
    """Build one block as a torch module from its named arrays (the names of `BlockShape.named`)."""
    dtype = arrays["linear0.weight"].dtype

    def linear(name: str) -> nn.Linear:
        weight = arrays[f"{name}.weight"]
        layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype)
        layer.load_state_dict({"weight": weight, "bias": arrays[f"{name}.bias"]})
        return layer

    norm = nn.LayerNorm(arrays["norm.weight"].shape[0], eps=LAYER_NORM_EPS, dtype=dtype)
    norm.load_state_dict({"weight": arrays["norm.weight"], "bias": arrays["norm.bias"]})
    return nn.Sequential(
        linear("linear0"),
        norm,
        linear("linear1"),
        ReSine(arrays["resine.s"], frozen=frozen),
        linear("linear2"),
    )


def tanh_(x: Tensor) -> Tensor:
    """Hyperbolic tangent in place; on the CPU by NumPy, whose vectorised kernel is several times faster."""
    if x.is_cpu:
        view = x.numpy()
        np.tanh(view, out=view)
        return x
    return x.tanh_()


@dataclass(frozen=True)
class BlockShape:
    """Sizes of a block and the place of its arrays in a flat vector.

    Attributes:
        f_in: input features.
        hidden: width h of both hidden layers.
        f_out: output features.
    """

    f_in: int
    hidden: int
    f_out: int

    def fields(self) -> Iterator[tuple[str, tuple[int, ...], int]]:
        """Yield (name, shape, offset) in storage order."""
        h, at = self.hidden, 0
        shapes: dict[str, tuple[int, ...]] = {
            "linear0.weight": (h, self.f_in),
            "linear1.weight": (h, h),
            "linear2.weight": (self.f_out, h),
            "linear0.bias": (h,),
            "norm.weight": (h,),
            "norm.bias": (h,),
            "linear1.bias": (h,),
            "resine.s": (h,),
            "linear2.bias": (self.f_out,),
        }
        for name, shape in shapes.items():
            yield name, shape, at
            at += math.prod(shape)

    @property
    def parameters(self) -> int:
        """Number of trainable scalars."""
        return sum(math.prod(shape) for _, shape, _ in self.fields())

    @property
    def stride(self) -> int:
        """Room that one block takes in a flat vector: `parameters`, rounded up."""
        return -(-self.parameters // _ALIGN) * _ALIGN

    def named(self, flat: Tensor, index: int = 0) -> dict[str, Tensor]:
        """Views of block `index` of `flat` by name; weights are [out, in]."""
        base = index * self.stride
        return {
            name: flat[base + at : base + at + math.prod(shape)].view(shape)
            for name, shape, at in self.fields()
        }

    def stacked(self, flat: Tensor, count: int) -> dict[str, Tensor]:
        """Views of `count` consecutive blocks: weights [count, out, in], vectors [count, 1, features]."""
        views = {}
        for name, shape, at in self.fields():
            rows, columns = shape if len(shape) == 2 else (1, shape[0])
            views[name] = flat[at:].as_strided((count, rows, columns), (self.stride, columns, 1))
        return views

    def initialise(self, flat: Tensor, index: int, generator: torch.Generator) -> None:
        """Weights, biases and s of block `index` uniform in ±1/sqrt(fan_in); LayerNorm to 1 and 0."""
        views = self.named(flat, index)
        for layer, fan_in in (("linear0", self.f_in), ("linear1", self.hidden), ("linear2", self.hidden)):
            for part in ("weight", "bias"):
                _uniform_(views[f"{layer}.{part}"], 1.0 / math.sqrt(fan_in), generator)
        _uniform_(views["resine.s"], 1.0 / math.sqrt(self.hidden), generator)
        views["norm.weight"].fill_(1.0)
        views["norm.bias"].fill_(0.0)


def _uniform_(target: Tensor, bound: float, generator: torch.Generator) -> None:
    # drawn on the CPU in float64, so that one seed gives the same network on every device and in every precision
    target.copy_(torch.empty(target.shape, dtype=torch.float64).uniform_(-bound, bound, generator=generator))


class BlockBatch:
    """`count` blocks of one shape on `rows` rows: forward, and a backward derived by hand.

    The blocks fall into as many equal groups as there are `inputs`; each group reads its own input matrix. The
    caller writes `inputs`, calls `forward`, writes `output_gradient` and calls `backward`. Results stay valid
    until the next call. Nothing here touches autograd.

    Args:
        shape: sizes of each block.
        flat: parameters of all blocks, `shape.stride` apart, starting at element 0.
        count: number of blocks G.
        rows: batch rows B.
        gradient: where parameter gradients of the first blocks go (same layout as `flat`), or None for a forward
            pass only. Its length fixes how many blocks are trained.
        groups: number of input matrices.

    Attributes:
        inputs: one [B, f_in] tensor per group.
        output: [G, B, f_out].
        output_gradient: [G, B, f_out], the gradient of the loss with respect to `output`.
    """

    def __init__(
        self,
        shape: BlockShape,
        flat: Tensor,
        count: int,
        rows: int,
        gradient: Tensor | None = None,
        groups: int = 1,
    ) -> None:
        h, per_group = shape.hidden, count // groups

        def new(*size: int) -> Tensor:
            return torch.zeros(size, dtype=flat.dtype, device=flat.device)

        self.inputs = [new(rows, shape.f_in) for _ in range(groups)]
        self.output = new(count, rows, shape.f_out)
        self._normalized = (h,)
        w = shape.stacked(flat, count)
        self._w = w
        self._w1t, self._w2t = w["linear0.weight"].mT, w["linear1.weight"].mT
        self._pre, self._x1, self._x2, self._q, self._f = (new(count, rows, h) for _ in range(5))
        self._sigma, self._inverse = new(count, 1, h), new(count, 1, h)
        self._w3 = new(count, shape.f_out, h)
        self._first = [
            (w["linear0.bias"][at], x.expand(per_group, *x.shape), self._w1t[at], self._pre[at])
            for x, at in zip(
                self.inputs, (slice(i * per_group, (i + 1) * per_group) for i in range(groups)), strict=True
            )
        ]
        on_cpu = flat.is_cpu
        self._sin = np.sin if on_cpu else torch.sin
        self._cos = np.cos if on_cpu else torch.cos
        self._native = (lambda t: t.numpy()) if on_cpu else (lambda t: t)
        self._forward_chunks = [
            (x2, self._inverse[nets], q, f, self._native(x2), self._native(q))
            for nets, rows_of in self._chunks(count, rows, h)
            for x2, q, f in [(self._x2[nets, rows_of], self._q[nets, rows_of], self._f[nets, rows_of])]
        ]
        self._trained = 0 if gradient is None else gradient.numel() // shape.stride
        if gradient is not None:
            self._prepare_backward(shape, gradient, count, rows, new)

    def _prepare_backward(self, shape: BlockShape, gradient: Tensor, count: int, rows: int, new) -> None:
        n, h = self._trained, shape.hidden
        self.output_gradient = new(count, rows, shape.f_out)
        self._slope, self._dx, self._dh = new(count, rows, h), new(count, rows, h), new(count, rows, h)
        self._product = new(n, rows, h)
        self._scale = new(count, 1, h)
        self._dw3, self._column = new(n, shape.f_out, h), new(n, 1, h)
        self._g = shape.stacked(gradient, n)
        self._g_flat = {name: view[:, 0] for name, view in self._g.items() if view.shape[1] == 1}
        self._backward_chunks = [
            (self._slope[at], self._native(self._slope[at]), self._native(self._x2[at]), self._q[at],
             self._dx[at], self._scale[nets])
            for nets, rows_of in self._chunks(count, rows, h)
            for at in [(nets, rows_of)]
        ]  # fmt: skip
        per_group = count // len(self.inputs)
        self._dw1 = [
            (
                slice(lo, lo + per_group),
                x.expand(per_group, *x.shape),
                self._g["linear0.weight"][lo : lo + per_group],
            )
            for x, lo in zip(self.inputs, range(0, n, per_group), strict=False)
        ]

    @staticmethod
    def _chunks(count: int, rows: int, hidden: int) -> Iterator[tuple[slice, slice]]:
        nets = max(1, min(count, _CHUNK // (rows * hidden)))
        step = rows if nets > 1 else max(1, min(rows, _CHUNK // hidden))
        for net in range(0, count, nets):
            for row in range(0, rows, step):
                yield slice(net, min(net + nets, count)), slice(row, min(row + step, rows))

    def forward(self) -> Tensor:
        """Evaluate all blocks on `inputs`; returns `output`."""
        w = self._w
        for bias, x, weight, out in self._first:
            torch.baddbmm(bias, x, weight, out=out)
        self._hat, self._mean, self._rstd = torch.native_layer_norm(
            self._pre, self._normalized, None, None, LAYER_NORM_EPS
        )
        torch.addcmul(w["norm.bias"], self._hat, w["norm.weight"], out=self._x1)
        torch.baddbmm(w["linear1.bias"], self._x1, self._w2t, out=self._x2)
        torch.sigmoid(w["resine.s"], out=self._sigma)
        torch.reciprocal(self._sigma, out=self._inverse)
        # ReSine(x) = σ·(2/3)·silu(1.5·sin(x/σ)); the constant factors go into the last weights, which are smaller
        for x2, inverse, q, f, x2_native, q_native in self._forward_chunks:
            x2.mul_(inverse)
            self._sin(x2_native, out=q_native)
            q.mul_(1.5)
            _silu_out(q, out=f)
        torch.mul(w["linear2.weight"], self._sigma, out=self._w3)
        self._w3.mul_(1.0 / 1.5)
        return torch.baddbmm(w["linear2.bias"], self._f, self._w3.mT, out=self.output)

    def backward(self, input_columns: slice | None = None) -> Tensor | None:
        """Write the parameter gradients of the trained blocks, overwriting what was there.

        Args:
            input_columns: also return the gradient with respect to these input columns, [G - trained, B, columns],
                for the blocks that are not trained.
        """
        n, w, g, flat, dy = self._trained, self._w, self._g, self._g_flat, self.output_gradient
        # last Linear; dw3 is the gradient of the scaled weight
        torch.bmm(dy[:n].mT, self._f[:n], out=self._dw3)
        torch.sum(dy[:n], 1, out=flat["linear2.bias"])
        torch.bmm(dy, self._w3, out=self._dx)
        torch.mul(self._dw3, self._sigma[:n], out=g["linear2.weight"])
        g["linear2.weight"].mul_(1.0 / 1.5)
        # ReSine
        torch.mul(self._inverse, 1.5, out=self._scale)
        for slope, slope_native, x2_native, q, dx, scale in self._backward_chunks:
            self._cos(x2_native, out=slope_native)
            _silu_backward_out(slope, q, grad_input=slope)
            dx.mul_(slope).mul_(scale)
        self._dw3.mul_(w["linear2.weight"][:n])
        torch.sum(self._dw3, 1, keepdim=True, out=self._column)
        torch.mul(self._dx[:n], self._x2[:n], out=self._product)
        d_sigma = self._column.mul_(1.0 / 1.5).sub_(self._product.sum(1, keepdim=True))
        sigma = self._sigma[:n]
        torch.mul(d_sigma, sigma, out=g["resine.s"])
        g["resine.s"].addcmul_(g["resine.s"], sigma, value=-1.0)
        # middle Linear
        torch.bmm(self._dx[:n].mT, self._x1[:n], out=g["linear1.weight"])
        torch.sum(self._dx[:n], 1, out=flat["linear1.bias"])
        torch.bmm(self._dx, w["linear1.weight"], out=self._dh)
        # LayerNorm
        torch.sum(self._dh[:n], 1, out=flat["norm.bias"])
        torch.mul(self._dh[:n], self._hat[:n], out=self._product)
        torch.sum(self._product, 1, out=flat["norm.weight"])
        self._dh.mul_(w["norm.weight"])
        d_pre = _layer_norm_backward(
            self._dh, self._pre, self._normalized, self._mean, self._rstd, None, None, (True, False, False)
        )[0]
        # first Linear
        for at, x, out in self._dw1:
            torch.bmm(d_pre[at].mT, x, out=out)
        torch.sum(d_pre[:n], 1, out=flat["linear0.bias"])
        if input_columns is None:
            return None
        return torch.bmm(d_pre[n:], w["linear0.weight"][n:, :, input_columns])


_layer_norm_backward = torch.ops.aten.native_layer_norm_backward.default
_silu_out = torch.ops.aten.silu.out
_silu_backward_out = torch.ops.aten.silu_backward.grad_input
