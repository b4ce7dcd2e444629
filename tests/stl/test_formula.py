"""Formulas: reading, printing, building with operators, keeping."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cadenza import stl
from stl.reference import BINARY, STEPS, text
from stl.test_semantics import formulas


def test_units_need_dt_and_whole_steps():
    assert stl.parse("G[0,0.3s] (x > 0)", dt=0.1).horizon == 3
    assert stl.parse("O[0,500ms] (x > 0)", dt=0.02).history == 25
    with pytest.raises(stl.StlError, match="dt"):
        stl.parse("G[0,2s] (x > 0)")
    with pytest.raises(stl.StlError) as refused:
        stl.parse("G[0,0.25s](gap > 0.1)", dt=0.02)
    error = refused.value
    assert "0.24s" in str(error) and "0.26s" in str(error)
    line, caret = str(error).splitlines()[-2:]
    assert line.strip() == "G[0,0.25s](gap > 0.1)"
    assert caret.strip() == "^^^^^"
    assert line[caret.index("^") :].startswith("0.25s")


@pytest.mark.parametrize(
    "formula, signals, culprit, match",
    [
        ("G[0,2] (x > )", None, ")", None),
        ("x > 0 and\n  (y > 0", None, "", None),
        ("G[3,1] (x > 0)", None, "[3,1]", "3"),
        ("gap > 0", ["gop", "speed"], "gap", "gop"),
        ("x", None, "x", "x > 0"),
        ("F[0,-1] (x>0)", None, "-", None),
        ("größe > 0 and y > )", None, ")", None),
    ],
)
def test_refused_texts_show_the_place(formula, signals, culprit, match):
    with pytest.raises(stl.StlError, match=match) as refused:
        stl.parse(formula, signals)
    e = refused.value
    assert formula[e.start : e.end].startswith(culprit)
    before = formula[: e.start]
    assert e.line == before.count("\n") + 1
    assert e.column == e.start - (before.rfind("\n") + 1) + 1
    assert "^" in str(e).splitlines()[-1]
    assert e.text == formula and e.message in str(e) and isinstance(e, stl.ParseError)
    again = pickle.loads(pickle.dumps(e))
    assert str(again) == str(e) and (again.start, again.end) == (e.start, e.end)


def test_a_file_of_properties(tmp_path):
    path = tmp_path / "rules.stl"
    path.write_text("let near = norm(x, y) < 0.5;\nspec a: G[0,1] near;\nspec b: F[0,1s] (x > 1);")
    spec = stl.parse_file(path, dt=0.5)
    assert list(spec) == ["a", "b"] and spec["b"].horizon == 2
    assert stl.robustness(spec["a"], {"x": [0.3, 0.0], "y": [0.4, 0.1]}) == 0.0
    path.write_text("x > 0")
    assert stl.parse_file(str(path)) == {"": stl.parse("x > 0")}
    with pytest.raises(OSError):
        stl.parse_file(tmp_path / "absent.stl")


UNDER = {"G": stl.always, "F": stl.eventually, "H": stl.historically, "O": stl.once}
STEP = {"X": stl.next, "wX": stl.weak_next, "Y": stl.prev, "wY": stl.weak_prev}
ENDS = {"U": "until", "R": "release", "W": "weak_until", "S": "since"}
COMPARE = {
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}
assert set(STEP) == set(STEPS) and {op[0] for op in BINARY} == set(ENDS)


def build(f):
    """The formula of the tuple by Python operators."""
    kind = f[0]
    if kind == "pred":
        return COMPARE[f[2]](stl.signal(f[1]), f[3])
    if kind in ("true", "false"):
        return stl.true if kind == "true" else stl.false
    if kind == "not":
        return ~build(f[1])
    if kind in STEP:
        return STEP[kind](build(f[1]))
    if kind in ("rise", "fall"):
        return {"rise": stl.rise, "fall": stl.fall}[kind](build(f[1]))
    if kind in ("and", "or", "->"):
        p, q = build(f[1]), build(f[2])
        return {"and": p & q, "or": p | q, "->": p >> q}[kind]
    if kind in ("iff", "xor"):
        return getattr(build(f[1]), kind)(build(f[2]))
    if kind in UNDER:
        return UNDER[kind](build(f[3]), f[1], f[2])
    return getattr(build(f[3]), ENDS[kind[0]])(build(f[4]), f[1], f[2], inclusive=kind.endswith("i"))


@settings(max_examples=150, deadline=None)
@given(formulas)
def test_operators_build_what_text_says_and_print_what_is_read(formula):
    built, read = build(formula), stl.parse(text(formula))
    assert built == read and hash(built) == hash(read) and str(built) == str(read)
    assert stl.parse(str(read), read.signals) == read
    assert pickle.loads(pickle.dumps(built)) == built
    assert (built.horizon, built.history, built.nodes[-1].text) == (read.horizon, read.history, str(read))


names = st.sampled_from(["x", "left/hip", "G", "min", "q.arm[2]", "Größe"])
expressions = st.recursive(
    st.one_of(names.map(stl.signal), st.sampled_from(["d", "top"]).map(stl.param)),
    lambda inner: st.one_of(
        st.tuples(inner, inner, st.sampled_from("+-*/")).map(
            lambda t: {"+": t[0] + t[1], "-": t[0] - t[1], "*": t[0] * t[1], "/": t[0] / t[1]}[t[2]]
        ),
        st.tuples(inner, st.floats(-1e3, 1e3)).map(lambda t: t[1] - t[0] * -t[1]),
        inner.map(lambda e: -e),
        st.tuples(st.sampled_from([stl.abs, stl.sqrt, stl.sin, stl.cos, stl.exp]), inner).map(
            lambda t: t[0](t[1])
        ),
        st.tuples(st.sampled_from([stl.min, stl.max, stl.norm]), inner, inner).map(
            lambda t: t[0](t[1], t[2])
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(expressions, expressions)
def test_arithmetic_prints_and_parses_to_the_same_tree(left, right):
    f = left >= right
    assert stl.parse(str(f), f.signals) == f
    assert stl.parse(f"({left}) >= ({right})") == f


def test_arithmetic_means_what_python_means():
    x, y = stl.signal("x"), stl.signal("y")
    e = 2 * x - (y - 1) / 4 + abs(-x) * stl.norm(x, y, 2.0) - (3 - x)
    rho = stl.robustness(e > 0.5, {"x": [3.0], "y": [-4.0]})
    assert rho == pytest.approx(2 * 3 - (-4 - 1) / 4 + 3 * np.hypot(np.hypot(3, 4), 2) - 0 - 0.5)
    assert str(x > 0.5) == "x > 0.5" and str(1 < x) == "x > 1"  # noqa: SIM300 (the reflected operator)


def test_truth_values_are_refused():
    x = stl.signal("x")
    with pytest.raises(TypeError, match=r"& \| ~ >>"):
        bool(x > 0)
    with pytest.raises(TypeError, match="a < x"):
        _ = 0 < x < 1
    with pytest.raises(TypeError, match="compare it"):
        bool(x)
    with pytest.raises(TypeError):
        _ = (x > 0) & True
    with pytest.raises(TypeError):
        hash(x)


@pytest.mark.parametrize(
    "make, kind, match",
    [
        (lambda x: stl.always(x > 0, 3, 1), stl.ParseError, "3"),
        (lambda x: stl.always(x > 0, -1, 1), ValueError, "-1"),
        (lambda x: stl.always(x > 0, 0, 1.5), TypeError, "1.5"),
        (lambda x: stl.always(x > 0, 0, 2**31), stl.ParseError, "2147483648"),
        (lambda x: x > float("nan"), ValueError, "nan"),
        (lambda x: x + "1", TypeError, "'1'"),
        (lambda x: x > (x > 0), TypeError, "not a number"),
        (lambda x: stl.signal("a`b"), ValueError, "backticks"),
        (lambda x: stl.signal(""), ValueError, "empty"),
        (lambda x: stl.param("a b"), ValueError, "a b"),
        (lambda x: stl.max(), TypeError, "max"),
        (lambda x: stl.parse("x > 0", "xy"), TypeError, "sequence of names"),
        (lambda x: stl.parse("x > 0", ["x", "x"]), ValueError, "'x' is declared twice"),
        (lambda x: stl.parse("x > 0", dt=0.0), ValueError, "dt = 0"),
    ],
)
def test_refused_pieces(make, kind, match):
    with pytest.raises(kind, match=match):
        make(stl.signal("x"))


def test_formulas_keep_their_signals():
    f = stl.parse("x > 0", ["y", "x"])
    assert f.signals == ("y", "x") and f.declared
    assert (f & (stl.signal("y") > 1)).declared
    wider = f & (stl.signal("z") > 1)
    assert wider.signals == ("y", "x", "z") and not wider.declared
    assert f != stl.parse("x > 0") and {f: 1}[stl.parse("x >  0", ["y", "x"])] == 1
    assert f != "x > 0"


def test_formulas_are_frozen_and_survive_pickling_and_copying(tmp_path):
    spec = tmp_path / "rules.stl"
    spec.write_text("let near = norm(x, y) < 0.5;\nspec a: G[0,1s] near;\nspec b: near U[0,2] (x > 1);")
    made = {
        "units": stl.parse("let fast = v > 1; G[0,2s] fast and H[0,1s] v < $d", ["v", "w"], dt=0.5),
        "inclusive": stl.parse("x > 0 U[0,3] y > 0", until="inclusive"),
        "normalised": stl.parse("x > 1 and y > 2").normalise({"x": 4.0}).normalise({"y": 3.0}),
        **stl.parse_file(spec, dt=0.5),
    }
    for name, f in made.items():
        for again in (pickle.loads(pickle.dumps(f)), copy.deepcopy(f)):
            assert again == f and again.text == f.text and again.declared == f.declared, name
            assert [n.label for n in again.nodes] == [n.label for n in f.nodes], name
        with pytest.raises(AttributeError):
            f.horizon = 3


def test_nodes_know_their_place_and_name():
    source = "let größer = x > 1;\nG[0,2] größer and y < 2"
    f = stl.parse(source)
    assert [node.operator for node in f.nodes] == ["predicate", "always", "predicate", "and"]
    assert [node.text for node in f.conjuncts] == ["G[0,2] x > 1", "y < 2"]
    assert f.nodes[0].label == "größer" and f.nodes[-1].operands == [1, 2]
    places = [source[slice(*node.span)] for node in f.nodes]
    assert places[1] == "G[0,2] größer" and places[2] == "y < 2"
    assert f.nodes == stl.parse(source).nodes and len({*f.nodes, *f.nodes}) == 4


def test_normalised_predicates_are_divided_by_their_scale():
    f = stl.parse("x > 1 and y > 2", ["x", "y"])
    x = np.array([[5.0, 8.0]])
    assert stl.robustness(f.normalise({"x": 4.0, "y": 3.0}), x) == 1.0
    assert stl.robustness(f, x, normalise={"x": 8.0}) == 0.5
    assert stl.robustness(f, x) == 4.0
    with pytest.raises(stl.StlError, match="did you mean `x`"):
        f.normalise({"xx": 1.0})
    with pytest.raises(stl.StlError, match="positive"):
        f.normalise({"x": 0.0})
    with pytest.raises(stl.ParseError, match="different scales"):
        stl.parse("x > y").normalise({"x": 1.0, "y": 2.0})
