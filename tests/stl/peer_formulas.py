"""Random formulas and their spelling in the languages of other STL tools.

A formula is a tuple `(operator, …)`: `("pred", signal, comparison, value)`, `(unary, f)`,
`(connective, f, g)`, `(temporal, a, b, f)` and `(binary, a, b, f, g)` with `b` None for no end.
"""

import random

STEPS = ("X", "wX", "Y", "wY")
CONNECTIVES = ("and", "or", "->", "iff", "xor")
FUTURE = ("G", "F")
PAST = ("H", "O")
BINARY_FUTURE = ("U", "Ui", "R", "Ri", "W", "Wi")
BINARY_PAST = ("S", "Si")
EVERY = ("not", "rise", "fall", *STEPS, *CONNECTIVES, *FUTURE, *PAST, *BINARY_FUTURE, *BINARY_PAST)


class Untranslated(Exception):
    """Operator and reason for which a formula has no equal in the peer's language."""


def draw(rng: random.Random, depth: int, operators: tuple[str, ...], unbounded: bool = True):
    """A formula of at most this depth; predicates on multiples of 1/4, so that every comparison is exact."""
    if depth == 0 or rng.random() < 0.15:
        if rng.random() < 0.02:
            return (rng.choice(("true", "false")),)
        comparison = rng.choice((">", ">=", "<", "<=", ">", "<", "==", "!="))
        return ("pred", rng.choice("xy"), comparison, rng.randint(-8, 8) / 4)
    op = rng.choice(operators)
    operands = [draw(rng, depth - 1, operators, unbounded)]
    if op in CONNECTIVES or op in BINARY_FUTURE or op in BINARY_PAST:
        operands.append(draw(rng, depth - 1, operators, unbounded))
    if op in FUTURE or op in PAST or op in BINARY_FUTURE or op in BINARY_PAST:
        a = rng.choice((0, 0, 1, 2))
        b = None if unbounded and rng.random() < 0.15 else a + rng.randint(0, 4)
        # most tools know "no end" only from now on
        return (op, 0 if b is None and rng.random() < 0.8 else a, b, *operands)
    return (op, *operands)


def trace(rng: random.Random, length: int) -> dict[str, list[float]]:
    """Two signals on the same grid, with ties."""
    return {name: [rng.randint(-8, 8) / 4 for _ in range(length)] for name in "xy"}


def ours(f) -> str:
    """The formula in our grammar."""
    op, *rest = f
    if op == "pred":
        return f"({rest[0]} {rest[1]} {rest[2]})"
    if not rest:
        return op
    if isinstance(rest[0], tuple):
        texts = [ours(g) for g in rest]
        return f"{op}({texts[0]})" if len(texts) == 1 else f"({texts[0]} {op} {texts[1]})"
    a, b, *operands = rest
    window = f"[{a},{'inf' if b is None else b}]"
    texts = [ours(g) for g in operands]
    return f"({op}{window} {texts[0]})" if len(texts) == 1 else f"({texts[0]} {op}{window} {texts[1]})"


def rtamt(f) -> str:
    """The formula in rtamt's language; until includes no end there, next and prev are weak."""
    op, *rest = f
    words = {
        "X": "s_next",
        "wX": "next",
        "Y": "s_prev",
        "wY": "prev",
        "not": "not",
        "rise": "rise",
        "fall": "fall",
    }
    temporal = {
        "G": "always",
        "F": "eventually",
        "H": "historically",
        "O": "once",
        "U": "until",
        "S": "since",
    }
    if op == "pred":
        return f"({rest[0]} {'!==' if rest[1] == '!=' else rest[1]} ({rest[2]}))"
    if not rest:
        raise Untranslated(f"{op}: rtamt has no literal of truth")
    if op in words:
        return f"({words[op]}({rtamt(rest[0])}))"
    if op in ("iff", "xor"):  # rtamt's own are −|φ − ψ| and |φ − ψ|
        p, q = (rtamt(g) for g in rest)
        same = f"(({p} -> {q}) and ({q} -> {p}))"
        return same if op == "iff" else f"(not {same})"
    if op in CONNECTIVES:
        return f"({rtamt(rest[0])} {op} {rtamt(rest[1])})"
    a, b, *operands = rest
    if b is None and a > 0:
        raise Untranslated(f"{op}[a,inf]: rtamt has no unbounded window that starts later")
    window = "" if b is None else f"[{a}:{b}]"
    if len(operands) == 1:
        return f"({temporal[op]}{window} ({rtamt(operands[0])}))"
    p, q = operands
    if op in ("Ui", "Si"):
        return rtamt((op[0], a, b, p, ("and", p, q)))
    if op in ("R", "Ri"):
        return rtamt(("not", ("U" + op[1:], a, b, ("not", p), ("not", q))))
    if op in ("W", "Wi"):
        if op == "W" and b is not None:
            return f"({rtamt(p)} unless{window} {rtamt(q)})"
        return rtamt(("or", ("G", 0, b, p), ("U" + op[1:], a, b, p, q)))
    return f"({rtamt(p)} {temporal[op]}{window} {rtamt(q)})"


def mstlo(f) -> str:
    """The formula in mstlo's language: future with an end only, until includes its end."""
    op, *rest = f
    if op == "pred":
        signal, comparison, value = rest
        if comparison == "!=":
            return f"(!({signal} == {value}))"
        return f"({signal} {comparison} {value})"
    if not rest:
        return f"({op})"
    if op == "not":
        return f"(!({mstlo(rest[0])}))"
    if op in ("and", "or", "->"):
        return f"({mstlo(rest[0])} {op} {mstlo(rest[1])})"
    plain = bounded_future(f, "mstlo")
    if plain is not None:
        return mstlo(plain)
    a, b, *operands = rest
    if op == "Ui":
        return f"({mstlo(operands[0])} U[{a},{b}] {mstlo(operands[1])})"
    return f"({op}[{a},{b}]({mstlo(operands[0])}))"


def stlcgpp(f) -> str:
    """The formula as a Python expression over stlcgpp's classes: future only, until includes its end."""
    op, *rest = f
    if op == "pred":
        signal, comparison, value = rest
        equal = f"({signal} == {value})"
        return {"==": equal, "!=": f"Negation({equal})"}.get(comparison, f"({signal} {comparison} {value})")
    if not rest:
        raise Untranslated(f"{op}: stlcgpp has no literal of truth")
    names = {"not": "Negation", "and": "And", "or": "Or", "->": "Implies"}
    if op in names:
        return f"{names[op]}({', '.join(stlcgpp(g) for g in rest)})"
    plain = bounded_future(f, "stlcgpp")
    if plain is not None:
        return stlcgpp(plain)
    a, b, *operands = rest
    texts = ", ".join(stlcgpp(g) for g in operands)
    return f"{ {'G': 'Always', 'F': 'Eventually', 'Ui': 'Until'}[op] }({texts}, interval=[{a}, {b}])"


def bounded_future(f, peer: str):
    """The formula in `G`, `F`, `Ui` and Boolean operators, by definition; None if it is one of them.

    Next equals F[1,1] or G[1,1] where the horizon fits, and only there the peers are compared.
    """
    op, *rest = f
    if op == "X":
        return ("F", 1, 1, rest[0])
    if op == "wX":
        return ("G", 1, 1, rest[0])
    if op in ("iff", "xor"):
        p, q = rest
        same = ("and", ("->", p, q), ("->", q, p))
        return same if op == "iff" else ("not", same)
    if op == "Ri":
        a, b, p, q = rest
        return ("not", ("Ui", a, b, ("not", p), ("not", q)))
    if op == "Wi":
        a, b, p, q = rest
        return ("or", ("G", 0, b, p), ("Ui", a, b, p, q))
    if op in ("G", "F", "Ui"):
        return None
    raise Untranslated(f"{op}: {peer} has no such operator")


def operators(f):
    """The operators of a formula, one for each use."""
    yield f[0]
    for part in f[1:]:
        if isinstance(part, tuple):
            yield from operators(part)
