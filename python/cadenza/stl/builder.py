"""Formulas from Python operators: the same trees as from text.

Expressions (`signal`, `param`, numbers, arithmetic) become predicates by comparison; predicates combine with
`& | ~ >>`, `.iff`, `.xor`, `.until`, `.release`, `.weak_until`, `.since` and the functions of this module.
Bounds are whole steps; `b=None` is unbounded.
"""

from __future__ import annotations

import math
import operator
from typing import SupportsFloat

from cadenza import _native
from cadenza._native import Formula

_SUM, _TERM, _FACTOR = 1, 2, 3


class Expr:
    """A number made of signals, parameters and constants; comparing two gives a predicate."""

    __slots__ = ("_level", "_text")
    __hash__ = None  # type: ignore[assignment]  # == makes a formula

    def __init__(self, text: str, level: int) -> None:
        """For this module: text of the grammar, and how strongly its operator binds."""
        self._text, self._level = text, level

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Expr({self._text!r})"

    def __bool__(self) -> bool:
        raise TypeError("an expression has no truth value: compare it, as in stl.signal('x') > 0")

    def __add__(self, other: Number) -> Expr:
        return _binary(self, "+", other, _SUM)

    def __radd__(self, other: Number) -> Expr:
        return _binary(other, "+", self, _SUM)

    def __sub__(self, other: Number) -> Expr:
        return _binary(self, "-", other, _SUM)

    def __rsub__(self, other: Number) -> Expr:
        return _binary(other, "-", self, _SUM)

    def __mul__(self, other: Number) -> Expr:
        return _binary(self, "*", other, _TERM)

    def __rmul__(self, other: Number) -> Expr:
        return _binary(other, "*", self, _TERM)

    def __truediv__(self, other: Number) -> Expr:
        return _binary(self, "/", other, _TERM)

    def __rtruediv__(self, other: Number) -> Expr:
        return _binary(other, "/", self, _TERM)

    def __neg__(self) -> Expr:
        return Expr(f"-{_inside(self, _FACTOR)}", _FACTOR)

    def __abs__(self) -> Expr:
        return abs(self)

    def __lt__(self, other: Number) -> Formula:
        return _compare(self, "<", other)

    def __le__(self, other: Number) -> Formula:
        return _compare(self, "<=", other)

    def __gt__(self, other: Number) -> Formula:
        return _compare(self, ">", other)

    def __ge__(self, other: Number) -> Formula:
        return _compare(self, ">=", other)

    def __eq__(self, other: Number) -> Formula:  # type: ignore[override]
        return _compare(self, "==", other)

    def __ne__(self, other: Number) -> Formula:  # type: ignore[override]
        return _compare(self, "!=", other)


Number = Expr | SupportsFloat


def signal(name: str) -> Expr:
    """The signal `name`; any characters but backticks and line ends."""
    if not name or any(c in "`\n\r" for c in name):
        raise ValueError(f"signal name {name!r}: neither empty nor with backticks or line ends")
    return Expr(f"`{name}`", _FACTOR)


def param(name: str) -> Expr:
    """The parameter `$name`, whose value is given when the formula is evaluated."""
    if not isinstance(name, str):
        raise TypeError(f"parameter name {name!r}: a string wanted")
    expr = Expr(f"${name}", _FACTOR)
    if _native.parse_formula(f"{expr} > 0").params != (name,):
        raise ValueError(f"parameter name {name!r}: letters, digits, _ and . wanted")
    return expr


def abs(x: Number) -> Expr:
    """Absolute value."""
    return _call("abs", x)


def min(*args: Number) -> Expr:
    """The smallest argument."""
    return _call("min", *args)


def max(*args: Number) -> Expr:
    """The largest argument."""
    return _call("max", *args)


def sqrt(x: Number) -> Expr:
    """Square root; NaN below zero."""
    return _call("sqrt", x)


def norm(*args: Number) -> Expr:
    """Euclidean norm of the arguments."""
    return _call("norm", *args)


def sin(x: Number) -> Expr:
    """Sine of an angle in rad."""
    return _call("sin", x)


def cos(x: Number) -> Expr:
    """Cosine of an angle in rad."""
    return _call("cos", x)


def exp(x: Number) -> Expr:
    """Exponential."""
    return _call("exp", x)


true: Formula = _native.parse_formula("true")
false: Formula = _native.parse_formula("false")


def always(f: Formula, a: int = 0, b: int | None = None) -> Formula:
    """`G[a,b] f`: f holds at every step of the window."""
    return f.under(f"G{_bounds(a, b)}")


def eventually(f: Formula, a: int = 0, b: int | None = None) -> Formula:
    """`F[a,b] f`: f holds at some step of the window."""
    return f.under(f"F{_bounds(a, b)}")


def historically(f: Formula, a: int = 0, b: int | None = None) -> Formula:
    """`H[a,b] f`: f held at every step of the window of the past."""
    return f.under(f"H{_bounds(a, b)}")


def once(f: Formula, a: int = 0, b: int | None = None) -> Formula:
    """`O[a,b] f`: f held at some step of the window of the past."""
    return f.under(f"O{_bounds(a, b)}")


def next(f: Formula) -> Formula:
    """`X f`: f at the next step; false after the last sample."""
    return f.under("X")


def weak_next(f: Formula) -> Formula:
    """`wX f`: f at the next step; true after the last sample."""
    return f.under("wX")


def prev(f: Formula) -> Formula:
    """`Y f`: f at the step before; false before the first sample."""
    return f.under("Y")


def weak_prev(f: Formula) -> Formula:
    """`wY f`: f at the step before; true before the first sample."""
    return f.under("wY")


def rise(f: Formula) -> Formula:
    """f holds and did not hold at the step before."""
    return f.under("rise")


def fall(f: Formula) -> Formula:
    """f does not hold and held at the step before."""
    return f.under("fall")


def _bounds(a: int, b: int | None) -> str:
    first, last = _steps(a), "inf" if b is None else _steps(b)
    return f"[{first},{last}]"


def _steps(bound: int) -> int:
    try:
        steps = operator.index(bound)
    except TypeError:
        raise TypeError(f"bound {bound!r}: whole steps wanted; stl.parse reads bounds with units") from None
    if steps < 0:
        raise ValueError(f"bound {steps}: steps from 0 wanted")
    return steps


def _inside(x: Number, level: int) -> str:
    """Text of an operand of an operator that binds with `level`."""
    if isinstance(x, Expr):
        return x._text if x._level >= level else f"({x._text})"
    if isinstance(x, Formula | str | bytes):
        raise TypeError(f"{x!r} is not a number")
    value = float(x)
    if not math.isfinite(value):
        raise ValueError(f"{value} in a formula: finite numbers wanted")
    return repr(value)


def _binary(left: Number, op: str, right: Number, level: int) -> Expr:
    return Expr(f"{_inside(left, level)} {op} {_inside(right, level + 1)}", level)


def _call(name: str, *args: Number) -> Expr:
    if not args:
        raise TypeError(f"{name} needs an argument")
    return Expr(f"{name}({', '.join(_inside(arg, _SUM) for arg in args)})", _FACTOR)


def _compare(left: Expr, comparison: str, right: Number) -> Formula:
    return _native.parse_formula(f"{_inside(left, _SUM)} {comparison} {_inside(right, _SUM)}")
