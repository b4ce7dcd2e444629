"""Robustness as a differentiable function of torch tensors. Only this file imports torch."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from cadenza import _native
from cadenza.stl.samples import Call


class _Robustness(torch.autograd.Function):
    """Samples, call, instant, and one tensor a parameter, to robustness; the way back is the engine's own."""

    @staticmethod
    def forward(x: torch.Tensor, call: Call, at: int | None, *params: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        args = call.formula, x.numpy(), _arrays(call, params), call.lengths
        if at is None:
            return torch.from_numpy(_native.stl_robustness_trace(*args, call.settings))
        return torch.from_numpy(_native.stl_robustness(*args, at, call.settings))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
        x, ctx.call, ctx.at, *params = inputs
        ctx.save_for_backward(x, *params)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        x, *params = ctx.saved_tensors
        call: Call = ctx.call
        upstream = grad.contiguous().numpy()
        dx, dparams = _native.stl_gradient(
            call.formula, x.numpy(), _arrays(call, params), call.lengths, ctx.at, upstream, call.settings
        )
        wanted, _, _, *wanted_params = ctx.needs_input_grad
        columns = {name: i for i, name in enumerate(call.formula.params)}
        grads: list[torch.Tensor | None] = []
        for name, param, want in zip(call.params, params, wanted_params, strict=True):
            column = torch.from_numpy(dparams[:, columns[name]].copy()) if want else None
            grads.append(column.sum() if column is not None and param.ndim == 0 else column)
        return torch.from_numpy(dx) if wanted else None, None, None, *grads

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple[Any, Any]:
        raise RuntimeError("vmap over stl.robustness: the batch axis is native, pass samples [N, T, D]")


# torch binds the arguments of every call by this signature; to find it anew costs a tenth of a small call.
_Robustness.forward.__signature__ = inspect.signature(_Robustness.forward)  # type: ignore[attr-defined]


def _arrays(call: Call, params: Any) -> dict[str, Any]:
    return {name: param.contiguous().numpy() for name, param in zip(call.params, params, strict=True)}


def robustness_of(call: Call, at: int | None) -> torch.Tensor:
    """Robustness `[N]` at an instant, or `[N, T]` when it is None."""
    x = torch.as_tensor(call.x)
    params = [torch.as_tensor(value) for value in call.params.values()]
    return _Robustness.apply(x, call, at, *params)  # type: ignore[return-value]
