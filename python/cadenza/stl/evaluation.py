"""Robustness of recorded traces: arrays in, arrays out; tensors in, tensors out, with gradients.

Every function takes the same samples and options:

- `x`: `[T]` (one signal), `[T, D]`, `[N, T, D]`, or a mapping from signal to `[T]` or `[N, T]`; arrays of
  real numbers or CPU tensors. float32 is computed in float32, other arrays in float64. Columns stand in the
  order of `formula.signals`, which must have been declared where there are several. Inputs are never changed.
- `params`: values of the parameters `$name`, a number or `[N]`.
- `end`: `"truncate"` cuts windows at the last sample; with `"strict"` only instants whose horizon lies inside
  the trace have a value.
- `semantics`: `"true"` minimum and maximum; `"lse"` (log-sum-exp) and `"softmax"` are smooth and need a
  positive `beta`.
- `nan`: `"propagate"` makes results that read a NaN NaN; `"raise"` raises with the first one.
- `lengths`: steps of each trace `[N]`, where they differ.
- `threads`: threads of one call; the results do not depend on it.
- `normalise`: scale of a signal by name; predicates that read it are divided by it.

They raise `TypeError` and `ValueError` for samples that do not fit, naming shape and expectation,
`DeviceError` for tensors elsewhere than on the CPU, `HorizonError` and `UnboundedFutureError` under
`"strict"`, and `StlError` for instants outside a trace, parameters that are missing, unknown or not finite,
and everything else that is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cadenza import _native
from cadenza._native import Formula
from cadenza.stl.explanation import Explanation, explanation
from cadenza.stl.samples import Call, instant, is_tensor, prepare


def robustness(
    formula: Formula,
    x: Any,
    *,
    params: Mapping[str, Any] | None = None,
    at: int = 0,
    end: str = "truncate",
    semantics: str = "true",
    beta: float | None = None,
    nan: str = "propagate",
    lengths: Any = None,
    threads: int = 1,
    normalise: Mapping[str, float] | None = None,
) -> Any:
    """Robustness at instant `at`: `[N]`, or a scalar for one trace. Costs the horizon, not the length.

    Arguments and errors are those of the module.
    """
    call = prepare(
        formula, x, params, end=end, semantics=semantics, beta=beta, nan=nan, lengths=lengths,
        threads=threads, normalise=normalise,
    )  # fmt: skip
    return _valued(call, instant(at))


def robustness_trace(
    formula: Formula,
    x: Any,
    *,
    params: Mapping[str, Any] | None = None,
    end: str = "truncate",
    semantics: str = "true",
    beta: float | None = None,
    nan: str = "propagate",
    lengths: Any = None,
    threads: int = 1,
    normalise: Mapping[str, float] | None = None,
) -> Any:
    """Robustness at every instant: `[N, T]`, or `[T]` for one trace; under `end="strict"`
    `max(0, T − horizon)` of them. Instants beyond the end of a shorter trace are NaN.

    Arguments and errors are those of the module.
    """
    call = prepare(
        formula, x, params, end=end, semantics=semantics, beta=beta, nan=nan, lengths=lengths,
        threads=threads, normalise=normalise,
    )  # fmt: skip
    return _valued(call, None)


def breakdown(
    formula: Formula,
    x: Any,
    *,
    params: Mapping[str, Any] | None = None,
    at: int = 0,
    end: str = "truncate",
    semantics: str = "true",
    beta: float | None = None,
    nan: str = "propagate",
    lengths: Any = None,
    threads: int = 1,
    normalise: Mapping[str, float] | None = None,
) -> Any:
    """Robustness of each of the K `formula.conjuncts` at instant `at`: `[N, K]`, or `[K]` for one trace,
    without gradient. With true semantics the minimum over K is the robustness of the formula.

    Arguments and errors are those of the module.
    """
    call = prepare(
        formula, x, params, end=end, semantics=semantics, beta=beta, nan=nan, lengths=lengths,
        threads=threads, normalise=normalise,
    )  # fmt: skip
    values = _native.stl_breakdown(call.formula, *arrays(call), call.lengths, instant(at), call.settings)
    return _like(call, values)


def node_values(
    formula: Formula,
    x: Any,
    *,
    params: Mapping[str, Any] | None = None,
    lengths: Any = None,
    normalise: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Robustness of every node at every instant: canonical text of the node → `[N, T]`, or `[T]` for one
    trace, without gradient. `formula.nodes` has the same order. Windows end with the trace.

    Arguments and errors are those of the module.
    """
    call = prepare(formula, x, params, lengths=lengths, normalise=normalise)
    values = _like(call, _native.stl_node_values(call.formula, *arrays(call), call.lengths))
    return {node.text: values[..., node.index, :] for node in call.formula.nodes}


def explain(
    formula: Formula,
    x: Any,
    *,
    params: Mapping[str, Any] | None = None,
    at: int = 0,
    end: str = "truncate",
    nan: str = "propagate",
    lengths: Any = None,
    normalise: Mapping[str, float] | None = None,
) -> list[Explanation]:
    """Why each trace has its robustness at instant `at`, with true semantics. Among equals the earliest
    instant and the leftmost operand are named.

    Arguments and errors are those of the module.
    """
    call = prepare(formula, x, params, end=end, nan=nan, lengths=lengths, normalise=normalise)
    found = _native.stl_explain(call.formula, *arrays(call), call.lengths, instant(at), call.settings)
    nodes = call.formula.nodes
    return [explanation(nodes, parts) for parts in found]


def arrays(call: Call) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Samples and parameters as arrays; tensors are not copied."""
    return _array(call.x), {name: _array(value) for name, value in call.params.items()}


def _array(x: Any) -> np.ndarray:
    return x.detach().contiguous().numpy() if is_tensor(x) else x


def _valued(call: Call, at: int | None) -> Any:
    """Robustness at one instant, or of the whole trace."""
    if call.tensors:
        from cadenza.stl.autograd import robustness_of

        values = robustness_of(call, at)
    elif at is None:
        values = _native.stl_robustness_trace(call.formula, *arrays(call), call.lengths, call.settings)
    else:
        values = _native.stl_robustness(call.formula, *arrays(call), call.lengths, at, call.settings)
    return values[0] if call.single else values


def _like(call: Call, values: np.ndarray) -> Any:
    """Values as the caller holds the samples: for one trace or a batch, array or tensor."""
    own = values[0] if call.single else values
    if call.tensors:
        import torch

        return torch.from_numpy(own)
    return own
