"""A formula as timed subgoals: which region to reach when, and which to stay in from when to when.

Decomposition works on traces longer than the horizon. A trace that meets one allocation of one branch
satisfies the formula; if every branch is complete, the largest robustness of all allocations is the
robustness of the formula.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cadenza import _native
from cadenza._native import Formula
from cadenza.stl.samples import prepare


@dataclass(frozen=True)
class Instant:
    """`offset` steps after a variable of the branch, or after the start of the trace."""

    variable: int | None
    offset: int


@dataclass(frozen=True)
class Variable:
    """A free instant: its parent plus δ steps, δ in `min..max`, both included."""

    parent: Instant
    min: int
    max: int


@dataclass(frozen=True)
class Reach:
    """Be in a region, a formula without temporal operators, at an instant."""

    region: Formula
    at: Instant


@dataclass(frozen=True)
class Hold:
    """Stay in a region from one instant to another, both included; nothing if the second is earlier."""

    region: Formula
    start: Instant
    end: Instant


@dataclass(frozen=True)
class Goal:
    """Be in a region from step `start` to step `end`, both included."""

    region: Formula
    start: int
    end: int


@dataclass(frozen=True)
class Allocation:
    """A branch with all instants fixed.

    Attributes:
        goals: what to reach, and after reaching to hold, by time.
        invariants: what to hold over windows that no choice moves, by time.
    """

    goals: tuple[Goal, ...]
    invariants: tuple[Goal, ...]
    _formula: Formula = field(repr=False)
    _native: _native.Allocation = field(repr=False, compare=False)

    def robustness(self, trace: Any, params: Mapping[str, float] | None = None) -> float:
        """The least robustness of all goals and invariants on one trace `[T, D]` (or `[T]`, or a mapping from
        signal to `[T]`); NaN if one of them reads a NaN.

        Raises:
            StlError: the trace ends before the last goal; parameters are missing or unknown.
        """
        call = prepare(self._formula, trace, None)
        if not call.single:
            raise ValueError(f"an allocation is checked on one trace [T, D], got {list(call.x.shape)}")
        values = {name: float(value) for name, value in (params or {}).items()}
        return self._native.robustness(np.asarray(call.x[0], np.float64), values)

    def check(self, trace: Any, params: Mapping[str, float] | None = None) -> bool:
        """Whether a trace meets every goal and invariant: robustness above 0."""
        return self.robustness(trace, params) > 0


@dataclass(frozen=True)
class Branch:
    """One way to satisfy a formula.

    Attributes:
        variables: free instants.
        reach: regions to be in at an instant.
        hold: regions to stay in.
        complete: False if a choice that could change over time was made once for a whole window; a trace may
            then satisfy the formula without meeting any allocation.
    """

    variables: tuple[Variable, ...]
    reach: tuple[Reach, ...]
    hold: tuple[Hold, ...]
    complete: bool
    _formula: Formula = field(repr=False)
    _native: _native.Branch = field(repr=False, compare=False)

    def count(self) -> int:
        """Number of allocations; with chains an upper bound."""
        return self._native.count()

    def allocate(self, deltas: Sequence[int]) -> Allocation:
        """Fixes all instants: `deltas[i]` is δ of variable i.

        Raises:
            StlError: a wrong number of them, or one outside its range.
        """
        return self._fixed(self._native.allocate([operator.index(delta) for delta in deltas]))

    def sample(self, rng: np.random.Generator) -> Allocation:
        """A random allocation: each δ uniform in its range, without rejection."""
        return self._fixed(self._native.sample(rng))

    def _fixed(self, native: _native.Allocation) -> Allocation:
        goals = tuple(Goal(*parts) for parts in native.goals)
        invariants = tuple(Goal(*parts) for parts in native.invariants)
        return Allocation(goals, invariants, self._formula, native)


def decompose(formula: Formula, *, chain: str | None = None) -> list[Branch]:
    """Branches of a formula of the bounded future.

    Args:
        formula: the formula.
        chain: how many visits stand for "again and again" (`G F`): `"minimal"` as few as can do, sound but
            missing satisfying traces; `"complete"` twice as many, missing none; None refuses such formulas.

    Raises:
        ParseError: past operators, unbounded intervals, until, release and weak until throughout a window,
            `F` throughout a window without `chain`; more than 4,096 branches. It shows the place.
    """
    return [_branch(formula, native) for native in _native.decompose_formula(formula, chain)]


def _branch(formula: Formula, native: _native.Branch) -> Branch:
    return Branch(
        variables=tuple(Variable(Instant(*parent), low, high) for parent, low, high in native.variables),
        reach=tuple(Reach(region, Instant(*at)) for region, at in native.reach),
        hold=tuple(Hold(region, Instant(*start), Instant(*end)) for region, start, end in native.hold),
        complete=native.complete,
        _formula=formula,
        _native=native,
    )
