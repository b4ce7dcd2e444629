"""Blocks with ReSine: a module for deployment, a batched kernel for training (spec/symphony.md §3.1).

A block is Linear(f_in -> h), LayerNorm(h), Linear(h -> h), ReSine(h), Linear(h -> f_out).
`block` builds it as an ordinary torch module. `BlockBatch` evaluates several equally shaped blocks at once
and differentiates them by hand: at these sizes the bookkeeping of autograd costs more than the arithmetic.
Its parameters are views of one flat tensor, so that an optimiser step is a handful of calls.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-5
ALIGN = 16  # elements: keeps every block, and most of its weights, on a cache line
_CHUNK = 32_768  # elements of an elementwise chain that stay in the second-level cache


class ReSine(nn.Module):
    """ReSine(x) = σ·q·sigmoid(1.5·q) with q = sin(x/σ) and σ = sigmoid(s), one trainable s per feature.

    With `frozen`, σ and 1/σ are constants, so that an exported graph holds only Mul, Sin and Sigmoid.

    Args:
        s: initial parameter, shape [features].
        frozen: hold σ fixed (deployment).
    """

    sigma: Tensor
    inverse_sigma: Tensor

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
class FlatShape:
    """Sizes of networks with two hidden layers, and the place of their named arrays in a flat vector, one
    network after the other.

    Attributes:
        f_in: input features.
        hidden: width h of both hidden layers.
        f_out: output features.
    """

    f_in: int
    hidden: int
    f_out: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name, in storage order."""
        raise NotImplementedError

    def fields(self) -> Iterator[tuple[str, tuple[int, ...], int]]:
        """Yield (name, shape, offset) in storage order."""
        at = 0
        for name, shape in self.shapes().items():
            yield name, shape, at
            at += math.prod(shape)

    @property
    def parameters(self) -> int:
        """Number of trainable scalars."""
        return sum(math.prod(shape) for _, shape, _ in self.fields())

    @property
    def stride(self) -> int:
        """Room that one network takes in a flat vector: `parameters`, rounded up."""
        return -(-self.parameters // ALIGN) * ALIGN

    def named(self, flat: Tensor, index: int = 0) -> dict[str, Tensor]:
        """Views of network `index` of `flat` by name; weights are [out, in]."""
        base = index * self.stride
        return {
            name: flat[base + at : base + at + math.prod(shape)].view(shape)
            for name, shape, at in self.fields()
        }

    def stacked(self, flat: Tensor, count: int) -> dict[str, Tensor]:
        """Views of `count` consecutive networks: weights [count, out, in], vectors [count, 1, features]."""
        views = {}
        for name, shape, at in self.fields():
            rows, columns = shape if len(shape) == 2 else (1, shape[0])
            views[name] = flat[at:].as_strided((count, rows, columns), (self.stride, columns, 1))
        return views

    def initialise(self, flat: Tensor, index: int, generator: torch.Generator) -> None:
        """Weights and biases of network `index` uniform in ±1/sqrt(fan_in)."""
        views = self.named(flat, index)
        for name, view in views.items():
            if name.endswith(".weight") and view.ndim == 2:
                for part in (view, views[name.removesuffix("weight") + "bias"]):
                    _uniform_(part, 1.0 / math.sqrt(view.shape[1]), generator)


class BlockShape(FlatShape):
    """A block: Linear → LayerNorm → Linear → ReSine → Linear."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """See `FlatShape`."""
        h = self.hidden
        return {
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

    def initialise(self, flat: Tensor, index: int, generator: torch.Generator) -> None:
        """As every network, s uniform in ±1/sqrt(h), LayerNorm to 1 and 0."""
        super().initialise(flat, index, generator)
        views = self.named(flat, index)
        _uniform_(views["resine.s"], 1.0 / math.sqrt(self.hidden), generator)
        views["norm.weight"].fill_(1.0)
        views["norm.bias"].fill_(0.0)


def _uniform_(target: Tensor, bound: float, generator: torch.Generator) -> None:
    # drawn on the CPU in float64, so that one seed gives the same network on every device and in every
    # precision
    target.copy_(torch.empty(target.shape, dtype=torch.float64).uniform_(-bound, bound, generator=generator))


class BlockBatch:
    """`count` blocks of one shape on `rows` rows: forward, and a backward derived by hand.

    The blocks fall into as many equal groups as there are `inputs`; each group reads its own input matrix.
    The caller writes `inputs`, calls `forward`, writes `output_gradient` and calls `backward`. Results stay
    valid until the next call. Nothing here touches autograd. All views are made once: at small sizes taking
    a slice costs as much as the arithmetic on it.

    Args:
        shape: sizes of each block.
        flat: parameters of all blocks, `shape.stride` apart, starting at element 0.
        count: number of blocks G.
        rows: batch rows B.
        gradient: where parameter gradients of the first blocks go (same layout as `flat`), or None for a
            forward pass only. Its length fixes how many blocks are trained; whole groups.
        groups: number of input matrices.
        input_columns: also differentiate by these columns of the input, for the blocks that are not trained.

    Attributes:
        inputs: one [B, f_in] tensor per group.
        output: [G, B, f_out].
        output_gradient: [G, B, f_out], the gradient of the loss with respect to `output`.
        input_gradient: [G - trained, B, columns], with `input_columns` only.
    """

    def __init__(
        self,
        shape: BlockShape,
        flat: Tensor,
        count: int,
        rows: int,
        gradient: Tensor | None = None,
        *,
        groups: int = 1,
        input_columns: slice | None = None,
    ) -> None:
        h, per_group = shape.hidden, count // groups

        def new(*size: int) -> Tensor:
            return torch.zeros(size, dtype=flat.dtype, device=flat.device)

        on_cpu = flat.is_cpu
        self._sin, self._cos = (np.sin, np.cos) if on_cpu else (torch.sin, torch.cos)
        native = (lambda t: t.numpy()) if on_cpu else (lambda t: t)
        self.inputs = [new(rows, shape.f_in) for _ in range(groups)]
        self.output = new(count, rows, shape.f_out)
        self._normalized = (h,)
        self._gain = torch.full((), 1.5, dtype=flat.dtype, device=flat.device)
        w = self._w = shape.stacked(flat, count)
        self._w2t = w["linear1.weight"].mT
        self._pre, self._x1, self._x2, self._q, self._f = (new(count, rows, h) for _ in range(5))
        self._sigma, self._inverse, self._factor, self._scale = (new(count, 1, h) for _ in range(4))
        self._w3 = new(count, shape.f_out, h)
        self._w3t = self._w3.mT
        self._first = [
            (w["linear0.bias"][at], x.expand(per_group, *x.shape), w["linear0.weight"][at].mT, self._pre[at])
            for x, at in zip(self.inputs, _groups(count, per_group), strict=True)
        ]
        parts = list(_chunks(count, rows, h))
        self._forward_parts = [
            (
                self._x2[at],
                self._inverse[at[0]],
                self._q[at],
                self._f[at],
                native(self._x2[at]),
                native(self._q[at]),
            )
            for at in parts
        ]
        if gradient is None:
            return

        n = gradient.numel() // shape.stride
        g = shape.stacked(gradient, n)
        self.output_gradient = new(count, rows, shape.f_out)
        self._slope, self._dx, self._dh = (new(count, rows, h) for _ in range(3))
        self._backward_parts = [
            (
                self._slope[at],
                self._q[at],
                self._dx[at],
                self._scale[at[0]],
                native(self._x2[at]),
                native(self._slope[at]),
            )
            for at in parts
        ]
        # the trained blocks come first; views of their part of every array
        dy, dx = self.output_gradient[:n], self._dx[:n]
        self._d3 = (dy, dy.mT, self._f[:n], w["linear2.weight"][:n], new(n, shape.f_out, h))
        self._d2 = (dx, dx.mT, self._x1[:n], self._x2[:n])
        self._d1 = (self._dh[:n], new(n, rows, h))
        self._d0 = [
            (at, x.expand(per_group, *x.shape), g["linear0.weight"][at])
            for x, at in zip(self.inputs, _groups(n, per_group), strict=False)
        ]
        self._small = (self._sigma[:n], self._factor[:n], new(n, h), new(n, 1, h))
        self._g = g
        self._g_rows = {name: view[:, 0] for name, view in g.items() if view.shape[1] == 1}
        self._trained = n
        self._input_weight = None
        if input_columns is not None:
            self._input_weight = w["linear0.weight"][n:, :, input_columns]
            self.input_gradient = new(count - n, rows, self._input_weight.shape[2])

    def forward(self) -> Tensor:
        """Evaluate all blocks on `inputs`; returns `output`."""
        w, sigma, inverse = self._w, self._sigma, self._inverse
        for bias, x, weight, out in self._first:
            torch.baddbmm(bias, x, weight, out=out)
        self._hat, self._mean, self._rstd = torch.native_layer_norm(
            self._pre, self._normalized, None, None, LAYER_NORM_EPS
        )
        torch.addcmul(w["norm.bias"], self._hat, w["norm.weight"], out=self._x1)
        torch.baddbmm(w["linear1.bias"], self._x1, self._w2t, out=self._x2)
        torch.sigmoid(w["resine.s"], out=sigma)
        torch.reciprocal(sigma, out=inverse)
        # ReSine(x) = σ·silu(1.5·sin(x/σ))/1.5; the factor σ/1.5 goes into the last weights, which are smaller
        for x2, scale, q, f, x2_native, q_native in self._forward_parts:
            x2.mul_(scale)
            self._sin(x2_native, out=q_native)
            q.mul_(self._gain)
            _silu_out(q, out=f)
        torch.div(sigma, self._gain, out=self._factor)
        torch.mul(w["linear2.weight"], self._factor, out=self._w3)
        return torch.baddbmm(w["linear2.bias"], self._f, self._w3t, out=self.output)

    def backward(self) -> None:
        """Write the parameter gradients of the trained blocks, overwriting what was there."""
        w, g, rows = self._w, self._g, self._g_rows
        sigma, factor, column, d_sigma = self._small
        # last Linear; d_w3 is the gradient of the scaled weight
        dy, dy_t, f, weight, d_w3 = self._d3
        torch.bmm(dy_t, f, out=d_w3)
        torch.sum(dy, 1, out=rows["linear2.bias"])
        torch.mul(d_w3, factor, out=g["linear2.weight"])
        torch.sum(d_w3.mul_(weight), 1, out=column)
        torch.bmm(self.output_gradient, self._w3, out=self._dx)
        # ReSine, where x2 holds x/σ: σ is reached through the factor (f·dy) and through the argument (-x2·dx)
        torch.div(column, self._gain, out=column)
        torch.mul(self._inverse, self._gain, out=self._scale)
        for slope, q, dx, scale, x2_native, slope_native in self._backward_parts:
            self._cos(x2_native, out=slope_native)
            _silu_backward_out(slope, q, grad_input=slope)
            dx.mul_(slope).mul_(scale)
        dx, dx_t, x1, x2 = self._d2
        dh, product = self._d1
        torch.mul(dx, x2, out=product)
        torch.sum(product, 1, keepdim=True, out=d_sigma)
        torch.sub(column[:, None], d_sigma, out=d_sigma)
        d_sigma.mul_(sigma)
        torch.addcmul(d_sigma, d_sigma, sigma, value=-1.0, out=g["resine.s"])
        # middle Linear
        torch.bmm(dx_t, x1, out=g["linear1.weight"])
        torch.sum(dx, 1, out=rows["linear1.bias"])
        torch.bmm(self._dx, w["linear1.weight"], out=self._dh)
        # LayerNorm
        torch.sum(dh, 1, out=rows["norm.bias"])
        torch.mul(dh, self._hat[: self._trained], out=product)
        torch.sum(product, 1, out=rows["norm.weight"])
        self._dh.mul_(w["norm.weight"])
        d_pre = _layer_norm_backward(
            self._dh, self._pre, self._normalized, self._mean, self._rstd, None, None, (True, False, False)
        )[0]
        # first Linear
        trained = d_pre[: self._trained]
        trained_t = trained.mT
        for at, x, out in self._d0:
            torch.bmm(trained_t[at], x, out=out)
        torch.sum(trained, 1, out=rows["linear0.bias"])
        if self._input_weight is not None:
            torch.bmm(d_pre[self._trained :], self._input_weight, out=self.input_gradient)


def _groups(count: int, size: int) -> Iterator[slice]:
    return (slice(at, at + size) for at in range(0, count, size))


def _chunks(count: int, rows: int, hidden: int) -> Iterator[tuple[slice, slice]]:
    """Split [count, rows, hidden] into (blocks, rows) parts of at most _CHUNK elements each."""
    blocks = max(1, min(count, _CHUNK // (rows * hidden)))
    step = rows if blocks > 1 else max(1, min(rows, _CHUNK // hidden))
    for block_slice in _groups(count, blocks):
        for row_slice in _groups(rows, step):
            yield block_slice, row_slice


_layer_norm_backward = torch.ops.aten.native_layer_norm_backward.default
_silu_out = torch.ops.aten.silu.out
_silu_backward_out = torch.ops.aten.silu_backward.grad_input
