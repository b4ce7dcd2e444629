"""Signal Temporal Logic: what a trajectory must do and when, and by how much it does.

One engine (Rust) serves logs, rollouts and the running robot; offline and streaming give the same numbers.
Time is discrete: one step is one sample. Bare bounds are steps, bounds with units (`2s`, `500ms`) need `dt`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cadenza import _native
from cadenza._native import Formula, StlError

__all__ = [
    "Formula",
    "Monitor",
    "StlError",
    "Verdict",
    "parse",
    "parse_spec",
    "robustness",
    "robustness_trace",
]


def parse(
    text: str, signals: Sequence[str] | None = None, *, dt: float | None = None, until: str = "exclusive"
) -> Formula:
    """Parses a formula.

    Args:
        text: for example `"G[0,2s](gap > $d) and F[0,100](norm(x, y) < 0.2)"`.
        signals: names of the columns of a sample; the formula's own, in order of appearance, when not given.
        dt: seconds of one step; needed for bounds with units.
        until: `"exclusive"` or `"inclusive"`: what a plain `U`, `S`, `R` or `W` means.

    Raises:
        StlError: the text is refused; it carries `start`, `end`, `line`, `column` and shows the place with a
            caret.
    """
    return _native.parse_formula(text, None if signals is None else list(signals), dt, until)


def parse_spec(text: str, *, dt: float | None = None, until: str = "exclusive") -> dict[str, Formula]:
    """Parses the properties `spec NAME: formula;` of a text, by name."""
    return dict(_native.parse_spec(text, dt, until))


def robustness(
    formula: Formula,
    x: ArrayLike | Mapping[str, ArrayLike],
    *,
    params: Mapping[str, float] | None = None,
    at: int = 0,
) -> Any:
    """Robustness at instant `at`: a scalar for one trace, `[N]` for a batch.

    Args:
        formula: the formula.
        x: samples `[T]` (one signal), `[T, D]`, `[N, T, D]`, or a mapping from signal to `[T]` or `[N, T]`.
            float32 is computed in float32, anything else real in float64.
        params: values of the formula's parameters `$name`.
        at: the instant.

    Raises:
        ValueError: a shape that does not fit; the text names both.
        TypeError: samples that are not real numbers.
        StlError: an instant outside the trace, missing or unknown parameters.
    """
    array, single = _traces(formula, x)
    single_precision = array.dtype == np.float32
    evaluate = formula.robustness32 if single_precision else formula.robustness
    rho = evaluate(array, dict(params or {}), at)
    return rho[0] if single else rho


def robustness_trace(
    formula: Formula, x: ArrayLike | Mapping[str, ArrayLike], *, params: Mapping[str, float] | None = None
) -> np.ndarray:
    """Robustness at every instant: `[T]` for one trace, `[N, T]` for a batch; windows end with the trace."""
    array, single = _traces(formula, x)
    evaluate = formula.robustness_trace32 if array.dtype == np.float32 else formula.robustness_trace
    rho = evaluate(array, dict(params or {}))
    return rho[0] if single else rho


def _traces(formula: Formula, x: ArrayLike | Mapping[str, ArrayLike]) -> tuple[np.ndarray, bool]:
    """Samples as a contiguous `[N, T, D]` array, and whether they were one trace."""
    if isinstance(x, Mapping):
        missing = [name for name in formula.signals if name not in x]
        if missing:
            raise ValueError(f"no samples of {', '.join(missing)}; given are {', '.join(x) or 'none'}")
        columns = [np.asarray(x[name]) for name in formula.signals]
        shapes = {column.shape for column in columns}
        if len(shapes) != 1:
            raise ValueError(f"signals have different shapes: {sorted(shapes)}")
        array = np.stack(columns, axis=-1)
    else:
        array = np.asarray(x)
        if array.ndim == 1:
            array = array[:, None]
    if array.dtype.kind not in "fiub":
        raise TypeError(f"samples have type {array.dtype}: real numbers wanted")
    if array.dtype != np.float32:
        array = array.astype(np.float64)
    single = array.ndim == 2
    if single:
        array = array[None]
    if array.ndim != 3 or array.shape[2] != len(formula.signals):
        raise ValueError(
            f"samples have shape {list(np.shape(array))}, expected [N, T, {len(formula.signals)}]"
        )
    return np.ascontiguousarray(array), single


@dataclass(frozen=True)
class Verdict:
    """What one sample decided.

    Attributes:
        closed: `(t, robustness)` of the instant whose horizon it completed, if there is one.
        pending: `(t, lo, hi)`: what the oldest undecided instant can still become, if there is one.
    """

    closed: tuple[int, float] | None
    pending: tuple[int, float, float] | None


class Monitor:
    """Evaluates a formula sample by sample; after the last sample `finish` closes what is still open.

    Args:
        formula: the formula.
        at: `"every"` judges every instant, `"start"` only the first.
        interval: whether bounds of the oldest pending instant are computed at each sample.
        ranges: known `(lowest, highest)` of signals; they tighten the bounds.
        params: values of the formula's parameters.
    """

    def __init__(
        self,
        formula: Formula,
        *,
        at: str = "every",
        interval: bool = True,
        ranges: Mapping[str, tuple[float, float]] | None = None,
        params: Mapping[str, float] | None = None,
    ) -> None:
        self.formula = formula
        self._native = _native.Monitor(formula, at, interval, dict(ranges or {}), dict(params or {}))

    def update(self, sample: ArrayLike) -> Verdict:
        """One sample `[D]`, in the order of the formula's signals."""
        return Verdict(*self._native.update(np.ascontiguousarray(sample, np.float64).reshape(-1)))

    def finish(self) -> list[tuple[int, float]]:
        """The end of the trace: `(t, robustness)` of every instant still pending."""
        return self._native.finish()

    def reset(self) -> None:
        """Forgets the run."""
        self._native.reset()

    @property
    def delay(self) -> int:
        """Steps between a sample and the verdict that it completes."""
        return self._native.delay
