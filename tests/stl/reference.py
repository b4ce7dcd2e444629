"""Robustness by the table of spec/stl.md §2, one instant at a time: slow, short, independent of the engine.

A formula is a tuple `(operator, …)`; `text` prints it for the parser, `Reference` evaluates it.
"""

import math
from functools import cache

UNARY_FUTURE = {"G": min, "F": max}
UNARY_PAST = {"H": min, "O": max}
BINARY = ("U", "Ui", "R", "Ri", "W", "Wi", "S", "Si")
STEPS = {"X": (1, -math.inf), "Y": (-1, -math.inf), "wX": (1, math.inf), "wY": (-1, math.inf)}


def text(f):
    """The formula in the grammar of §1, fully parenthesised."""
    kind = f[0]
    if kind == "pred":
        _, signal, comparison, value = f
        return f"({signal} {comparison} {value})"
    if kind in ("true", "false"):
        return kind
    if kind == "not":
        return f"(not {text(f[1])})"
    if kind in STEPS:
        return f"({kind} {text(f[1])})"
    if kind in ("rise", "fall"):
        return f"{kind}({text(f[1])})"
    if kind in ("and", "or", "->", "iff", "xor"):
        return f"({text(f[1])} {kind} {text(f[2])})"
    if kind in BINARY:
        return f"({text(f[3])} {kind}{interval(f)} {text(f[4])})"
    return f"({kind}{interval(f)} {text(f[3])})"


def interval(f):
    return f"[{f[1]},{'inf' if f[2] is None else f[2]}]"


class Reference:
    """Evaluates formulas on one trace: signal name → list of numbers."""

    def __init__(self, trace):
        self.trace = trace
        self.length = len(next(iter(trace.values())))
        self.at = cache(self._at)

    def every(self, f):
        return [self.at(f, t) for t in range(self.length)]

    def _at(self, f, t):
        kind = f[0]
        if kind == "pred":
            return self._predicate(f, t)
        if kind in ("true", "false"):
            return math.inf if kind == "true" else -math.inf
        if kind == "not":
            return -self.at(f[1], t)
        if kind in STEPS:
            step, outside = STEPS[kind]
            return self.at(f[1], t + step) if 0 <= t + step < self.length else outside
        if kind == "rise":
            return min(self.at(f[1], t), self.at(("wY", ("not", f[1])), t))
        if kind == "fall":
            return min(-self.at(f[1], t), self.at(("wY", f[1]), t))
        if kind in ("and", "or", "->", "iff", "xor"):
            return self._boolean(kind, self.at(f[1], t), self.at(f[2], t))
        a, b = f[1], math.inf if f[2] is None else f[2]
        if kind in UNARY_FUTURE:
            chosen = [self.at(f[3], s) for s in self._ahead(t, a, b)]
            return UNARY_FUTURE[kind](chosen, default=math.inf if kind == "G" else -math.inf)
        if kind in UNARY_PAST:
            chosen = [self.at(f[3], s) for s in self._behind(t, a, b)]
            return UNARY_PAST[kind](chosen, default=math.inf if kind == "H" else -math.inf)
        return self._binary(kind, a, b, f, t)

    def _predicate(self, f, t):
        _, signal, comparison, value = f
        difference = self.trace[signal][t] - value
        return {
            ">": difference,
            ">=": difference,
            "<": -difference,
            "<=": -difference,
            "==": -abs(difference),
            "!=": abs(difference),
        }[comparison]

    @staticmethod
    def _boolean(kind, p, q):
        same = min(max(-p, q), max(-q, p))
        return {"and": min(p, q), "or": max(p, q), "->": max(-p, q), "iff": same, "xor": -same}[kind]

    def _binary(self, kind, a, b, f, t):
        p, q = f[3], f[4]
        inclusive = kind.endswith("i")
        operator = kind[0]
        if operator == "R":
            dual = ("Ui" if inclusive else "U", f[1], f[2], ("not", p), ("not", q))
            return -self.at(dual, t)
        if operator == "W":
            until = ("Ui" if inclusive else "U", f[1], f[2], p, q)
            return max(self.at(("G", 0, f[2], p), t), self.at(until, t))
        if operator == "U":
            values = [
                min(self.at(q, s), *[self.at(p, r) for r in range(t, s + inclusive)])
                if s + inclusive > t
                else self.at(q, s)
                for s in self._ahead(t, a, b)
            ]
        else:
            values = [
                min([self.at(q, s), *[self.at(p, r) for r in range(s + (not inclusive), t + 1)]])
                for s in self._behind(t, a, b)
            ]
        return max(values, default=-math.inf)

    def _ahead(self, t, a, b):
        return range(t + a, int(min(t + b, self.length - 1)) + 1)

    def _behind(self, t, a, b):
        return range(int(max(t - b, 0)), t - a + 1)


class Reads:
    """Which results are NaN, by the rule of §2: those that read a predicate value that is one. Syntactic: no
    operator stops looking early."""

    def __init__(self, trace):
        self.trace = trace
        self.length = len(next(iter(trace.values())))
        self.nan = cache(self._nan)

    def every(self, f):
        return [self.nan(f, t) for t in range(self.length)]

    def any(self, f, steps):
        return any(self.nan(f, t) for t in steps)

    def _nan(self, f, t):
        kind, last = f[0], self.length - 1
        if kind == "pred":
            return math.isnan(self.trace[f[1]][t])
        if kind in ("true", "false"):
            return False
        if kind in STEPS:
            step = t + STEPS[kind][0]
            return 0 <= step <= last and self.nan(f[1], step)
        if kind in ("rise", "fall"):
            return self.any(f[1], range(max(t - 1, 0), t + 1))
        if kind in ("not", "and", "or", "->", "iff", "xor"):
            return any(self.nan(operand, t) for operand in f[1:])
        a, b = f[1], math.inf if f[2] is None else f[2]
        ahead = range(t + a, int(min(t + b, last)) + 1)
        behind = range(int(max(t - b, 0)), t - a + 1)
        if kind in UNARY_FUTURE:
            return self.any(f[3], ahead)
        if kind in UNARY_PAST:
            return self.any(f[3], behind)
        inclusive = kind.endswith("i")
        if kind[0] == "S":
            first = max(t - b, 0) if inclusive else max(t - b, -1) + 1
            held = range(int(first), t + 1)
            return self.any(f[4], behind) or self.any(f[3], held)
        end = min(t + b, last) + 1 if inclusive else min(t + b, self.length)
        held = range(t, int(end))
        always = range(t, int(min(t + b, last)) + 1) if kind[0] == "W" else ()
        return self.any(f[4], ahead) or self.any(f[3], held) or self.any(f[3], always)
