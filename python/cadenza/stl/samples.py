"""Samples as users hold them, brought into the one form that the engine reads: `[N, T, D]`, contiguous."""

from __future__ import annotations

import operator
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cadenza._native import Formula, StlError


class DeviceError(StlError):
    """A tensor that is not in the memory of the CPU."""


@dataclass(frozen=True)
class Call:
    """The arguments of one evaluation, checked.

    Attributes:
        formula: the formula, normalised if asked for.
        x: samples `[N, T, D]`, an array or a tensor, float32 or float64.
        single: whether `x` was one trace.
        params: values by name, arrays or tensors of the type of `x`, `[]` or `[N]`.
        lengths: steps of each trace, `[N]`.
        settings: end, semantics, beta, nan, threads, as the extension takes them.
    """

    formula: Formula
    x: Any
    single: bool
    params: dict[str, Any]
    lengths: np.ndarray | None
    settings: tuple[str, str, float | None, str, int]

    @property
    def tensors(self) -> bool:
        """Whether the samples or a parameter are tensors."""
        return any(map(is_tensor, (self.x, *self.params.values())))


def prepare(
    formula: Formula,
    x: Any,
    params: Mapping[str, Any] | None,
    *,
    end: str = "truncate",
    semantics: str = "true",
    beta: float | None = None,
    nan: str = "propagate",
    lengths: Any = None,
    threads: int = 1,
    normalise: Mapping[str, float] | None = None,
) -> Call:
    """Checks the arguments of an evaluation.

    Raises:
        TypeError: samples, parameters or lengths that are not numbers of a known type.
        ValueError: a shape that does not fit; the text names both.
        DeviceError: a tensor that is not in the memory of the CPU.
    """
    if not isinstance(formula, Formula):
        raise TypeError(f"formula is a {type(formula).__name__}: stl.parse and the builder make formulas")
    if normalise:
        formula = formula.normalise(dict(normalise))
    values = dict(params or {})
    if any(map(is_tensor, values.values())) and not isinstance(x, Mapping) and not is_tensor(x):
        x = sys.modules["torch"].from_numpy(_number_array("samples", x))
    array = _columns(formula, x) if isinstance(x, Mapping) else _real("samples", x)
    given = list(array.shape)
    if array.ndim == 1:
        array = array[:, None]
    width = len(formula.signals)
    if array.ndim not in (2, 3) or array.shape[-1] != width:
        raise ValueError(f"samples have shape {given}, expected [T, {width}] or [N, T, {width}]")
    if width > 1 and not formula.declared and not isinstance(x, Mapping):
        names = ", ".join(formula.signals)
        raise ValueError(
            f"which column is which signal? Parse with signals=(...), or pass a mapping with {names}"
        )
    single = array.ndim == 2
    if single:
        array = array[None]
    array = array.contiguous() if is_tensor(array) else np.ascontiguousarray(array)
    return Call(
        formula=formula,
        x=array,
        single=single,
        params={name: _param(name, value, array) for name, value in values.items()},
        lengths=None if lengths is None else _lengths(lengths, array.shape[0]),
        settings=(end, semantics, None if beta is None else float(beta), nan, operator.index(threads)),
    )


def instant(at: Any) -> int:
    """An instant as the extension takes it."""
    step = operator.index(at)
    if not 0 <= step < 1 << 32:
        raise ValueError(f"at = {step}: a step from 0 wanted")
    return step


def is_tensor(x: Any) -> bool:
    """Whether x is a torch tensor. Nothing is imported: before torch is, there are none."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _columns(formula: Formula, x: Mapping[str, Any]) -> Any:
    """One column for each signal of the formula."""
    missing = [name for name in formula.signals if name not in x]
    if missing:
        raise ValueError(f"no samples of {', '.join(missing)}; given are {', '.join(x) or 'none'}")
    if not formula.signals:
        raise ValueError("the formula has no signals: pass samples of shape [T, 0]")
    columns = {name: _real(f"samples of {name}", x[name]) for name in formula.signals}
    shapes = {name: list(column.shape) for name, column in columns.items()}
    if len(set(map(tuple, shapes.values()))) != 1:
        raise ValueError(f"signals have different shapes: {shapes}")
    if any(map(is_tensor, columns.values())):
        torch = sys.modules["torch"]
        tensors = [torch.as_tensor(column) for column in columns.values()]
        kinds = {tensor.dtype for tensor in tensors}
        if len(kinds) != 1:
            raise TypeError(f"signals have different types: {', '.join(map(str, kinds))}")
        array = torch.stack(tensors, dim=-1)
    else:
        array = np.stack(list(columns.values()), axis=-1)
    if array.ndim not in (2, 3):
        raise ValueError(f"signals have shape {list(array.shape[:-1])}, expected [T] or [N, T]")
    return array


def _real(what: str, x: Any) -> Any:
    """An array or tensor of float32 or float64."""
    if not is_tensor(x):
        return _number_array(what, x)
    torch = sys.modules["torch"]
    if x.device.type != "cpu":
        raise DeviceError(f"{what} are on {x.device}: STL is evaluated on the CPU, call .cpu() first")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{what} have type {x.dtype}: float32 or float64 wanted")
    return x


def _number_array(what: str, x: Any) -> np.ndarray:
    try:
        array = np.asarray(x)
    except ValueError:
        raise ValueError(f"{what} are ragged: pad them and give lengths") from None
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise TypeError(f"{what} have type {array.dtype}: real numbers of at most 64 bits wanted")
    return array if array.dtype == np.float32 else array.astype(np.float64, copy=False)


def _param(name: str, value: Any, x: Any) -> Any:
    """A parameter in the type of the samples, `[]` or `[N]`."""
    array = _real(f"values of ${name}", value)
    if array.ndim > 1 or (array.ndim == 1 and array.shape[0] != x.shape[0]):
        raise ValueError(f"${name} has shape {list(array.shape)}, expected [] or [{x.shape[0]}]")
    if is_tensor(x) or is_tensor(array):
        torch = sys.modules["torch"]
        return torch.as_tensor(array, dtype=torch.as_tensor(x).dtype)
    return np.ascontiguousarray(array.astype(x.dtype)).reshape(array.shape)


def _lengths(lengths: Any, n: int) -> np.ndarray:
    if is_tensor(lengths):
        lengths = lengths.numpy()
    array = np.asarray(lengths)
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths have type {array.dtype}: whole numbers wanted")
    if array.shape not in ((n,), ()) or (array.ndim == 0 and n != 1):
        raise ValueError(f"lengths have shape {list(array.shape)}, expected [{n}]")
    if array.size and not 0 <= array.min() <= array.max() < 1 << 32:
        raise ValueError(f"lengths lie between {array.min()} and {array.max()}: numbers of steps wanted")
    return np.ascontiguousarray(array.reshape(-1), np.uint32)
