"""cadenza.stl: the table of the specification, against brute force; shapes, dtypes, parameters, errors."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cadenza import stl
from stl_reference import Reference, text

INF = math.inf
P = [1, 3, -1, 2, 0.5, -2]
Q = [-5, -0.5, -3, 4, -1, 1]
GOLDEN = {
    "G[0,2] p>0": [-1, -1, -1, -2, -2, -2],
    "F[1,2] q>0": [-0.5, 4, 4, 1, 1, -INF],
    "p>0 U[0,3] q>0": [-0.5, -0.5, -1, 4, 0.5, 1],
    "p>0 Ui[0,3] q>0": [-0.5, -0.5, -1, 2, -1, -2],
    "p>0 U[1,3] q>0": [-0.5, -1, -1, 0.5, 0.5, -INF],
    "p>0 Ui[1,3] q>0": [-0.5, -1, -1, -1, -2, -INF],
    "p>0 S[0,2] q>0": [-5, -0.5, -1, 4, 0.5, 1],
    "p>0 Si[0,2] q>0": [-5, -0.5, -1, 2, 0.5, -2],
    "p>0 S[1,3] q>0": [-INF, -5, -1, -1, 0.5, -2],
    "H[1,2] p>0": [INF, 1, 1, -1, -1, 0.5],
    "p>0 R[0,2] q>0": [-5, -0.5, -3, 2, -1, 1],
    "p>0 W[1,2] q>0": [-0.5, -1, -1, 0.5, 0.5, -2],
    "X p>0": [3, -1, 2, 0.5, -2, -INF],
    "wY p>0": [INF, 1, 3, -1, 2, 0.5],
    "F[0,3] G[0,1] p>0": [1, 0.5, 0.5, 0.5, -2, -2],
    "F[0,1](p>0 and G[0,1](q>-2))": [-1, -1, 1, 1, 0.5, -2],
}


@pytest.mark.parametrize("formula", GOLDEN)
def test_the_golden_table_of_the_specification(formula):
    rho = stl.robustness_trace(stl.parse(formula), {"p": P, "q": Q})
    np.testing.assert_array_equal(rho, GOLDEN[formula])


# Values on a grid: comparisons of equal robustness are exact, so any difference is one of semantics.
numbers = st.integers(-8, 8).map(lambda i: i / 4)
predicates = st.tuples(
    st.just("pred"), st.sampled_from("xy"), st.sampled_from([">", ">=", "<", "<=", "==", "!="]), numbers
)
bounds = st.tuples(st.integers(0, 4), st.integers(0, 5)).map(lambda ab: (ab[0], ab[0] + ab[1]))


def grow(inner, unbounded=True):
    """Formulas over `inner`; without `unbounded`, those that a monitor can judge at every instant."""
    window = st.one_of(bounds, bounds.map(lambda ab: (ab[0], None))) if unbounded else bounds
    past = st.one_of(bounds, bounds.map(lambda ab: (ab[0], None)))
    return st.one_of(
        st.tuples(st.sampled_from(["not", "X", "Y", "wX", "wY", "rise", "fall"]), inner),
        st.tuples(st.sampled_from(["and", "or", "->", "iff", "xor"]), inner, inner),
        st.tuples(st.sampled_from("GF"), window, inner).map(lambda f: (f[0], *f[1], f[2])),
        st.tuples(st.sampled_from("HO"), past, inner).map(lambda f: (f[0], *f[1], f[2])),
        st.tuples(st.sampled_from(["U", "Ui", "R", "Ri", "W", "Wi"]), window, inner, inner).map(
            lambda f: (f[0], *f[1], *f[2:])
        ),
        st.tuples(st.sampled_from(["S", "Si"]), past, inner, inner).map(lambda f: (f[0], *f[1], *f[2:])),
    )


leaves = st.one_of(predicates, st.sampled_from([("true",), ("false",)]))
formulas = st.recursive(leaves, grow, max_leaves=6)
bounded = st.recursive(leaves, lambda inner: grow(inner, unbounded=False), max_leaves=5)
traces = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=14).map(np.array)


@settings(max_examples=400, deadline=None)
@given(formulas, traces)
def test_offline_equals_brute_force(formula, trace):
    expected = Reference({"x": trace[:, 0].tolist(), "y": trace[:, 1].tolist()}).every(formula)
    parsed = stl.parse(text(formula), ["x", "y"])
    np.testing.assert_array_equal(stl.robustness_trace(parsed, trace), expected)
    at = len(trace) // 2
    assert stl.robustness(parsed, trace, at=at) == expected[at]


@settings(max_examples=300, deadline=None)
@given(bounded, traces)
def test_streaming_and_finish_equal_offline(formula, trace):
    parsed = stl.parse(text(formula), ["x", "y"])
    offline = stl.robustness_trace(parsed, trace)
    monitor = stl.Monitor(parsed)
    for _ in range(2):  # the second time after a reset: nothing may leak from one run into the next
        closed, last = [], None
        for row in trace:
            verdict = monitor.update(row)
            if verdict.closed is not None:
                t, rho = verdict.closed
                if last is not None and last[0] == t:
                    assert last[1] <= rho <= last[2]
                closed.append((t, rho))
            last = verdict.pending
        closed += monitor.finish()
        assert [t for t, _ in closed] == list(range(len(trace)))
        np.testing.assert_array_equal([rho for _, rho in closed], offline)
        monitor.reset()


@settings(max_examples=100, deadline=None)
@given(formulas)
def test_the_printed_text_parses_to_the_same_text(formula):
    once = str(stl.parse(text(formula)))
    assert str(stl.parse(once)) == once


def test_shapes_and_dtypes():
    f = stl.parse("G[0,2] (x > y)", ["x", "y"])
    batch = np.random.default_rng(0).normal(size=(5, 9, 2))
    every = stl.robustness_trace(f, batch)
    assert every.shape == (5, 9) and every.dtype == np.float64
    first = stl.robustness(f, batch)
    assert first.shape == (5,)
    np.testing.assert_array_equal(first, every[:, 0])
    np.testing.assert_array_equal(stl.robustness_trace(f, batch[3]), every[3])
    assert stl.robustness(f, batch[3], at=4) == every[3, 4]
    np.testing.assert_array_equal(stl.robustness_trace(f, batch[::-1, :, :])[0], every[-1])
    single = stl.robustness_trace(f, batch.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, every, atol=1e-6)
    whole = np.array([[3, 1], [2, 5], [7, 1]])
    assert stl.robustness_trace(f, whole).tolist() == [-3.0, -3.0, 6.0]
    columns = stl.robustness_trace(f, {"y": batch[..., 1], "x": batch[..., 0], "unused": 0})
    np.testing.assert_array_equal(columns, every)
    assert stl.robustness(stl.parse("x > 1"), [3.0, 4.0]) == 2.0


@pytest.mark.parametrize(
    "x, kind, match",
    [
        (np.zeros((4, 3)), ValueError, r"shape \[1, 4, 3\], expected \[N, T, 2\]"),
        (np.zeros((1, 2, 3, 2)), ValueError, r"expected \[N, T, 2\]"),
        ({"x": [1.0]}, ValueError, "no samples of y; given are x"),
        ({"x": [1.0], "y": [1.0, 2.0]}, ValueError, "different shapes"),
        (np.array([["a", "b"]]), TypeError, "real numbers"),
        (np.zeros((3, 2), complex), TypeError, "complex128"),
        (np.zeros((0, 2)), stl.StlError, "empty|sample"),
    ],
)
def test_samples_that_do_not_fit(x, kind, match):
    with pytest.raises(kind, match=match):
        stl.robustness(stl.parse("x > y", ["x", "y"]), x)


def test_an_instant_outside_the_trace():
    with pytest.raises(stl.StlError, match="7"):
        stl.robustness(stl.parse("x > 0"), [1.0, 2.0], at=7)


def test_parameters():
    f = stl.parse("G[0,1] (x > $d) and x < $top")
    assert f.params == ["d", "top"]
    x = [1.0, 2.0, 3.0]
    assert stl.robustness(f, x, params={"d": 0.5, "top": 4}) == 0.5
    assert stl.robustness(f, x, params={"d": -9, "top": 1.25}) == 0.25
    with pytest.raises(stl.StlError, match=r"\$top"):
        stl.robustness(f, x, params={"d": 0.5})
    with pytest.raises(stl.StlError, match=r"\$typo"):
        stl.robustness(f, x, params={"d": 0.5, "top": 1, "typo": 0})
    monitor = stl.Monitor(f, params={"d": 0.5, "top": 4})
    assert [monitor.update([v]).closed for v in x] == [None, (0, 0.5), (1, 1.5)]


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
    assert e.text == formula and e.message in str(e)


def test_properties_by_name():
    spec = stl.parse_spec(
        "let near = norm(x, y) < 0.5;\nspec a: G[0,1] near;\nspec b: F[0,1s] (x > 1);", dt=0.5
    )
    assert list(spec) == ["a", "b"] and spec["b"].horizon == 2
    assert stl.robustness(spec["a"], {"x": [0.3, 0.0], "y": [0.4, 0.1]}) == 0.0


def test_until_can_include_its_right_end():
    x = {"p": P, "q": Q}
    plain = stl.parse("p>0 U[0,3] q>0", until="inclusive")
    np.testing.assert_array_equal(stl.robustness_trace(plain, x), GOLDEN["p>0 Ui[0,3] q>0"])
    assert "Ui" in str(plain) or "until_incl" in str(plain)
    with pytest.raises(ValueError, match="'both'"):
        stl.parse("p>0", until="both")


def test_nan_marks_exactly_what_reads_it():
    nan = math.nan
    rho = stl.robustness_trace(stl.parse("G[0,3](x>0)"), [2, nan, -3, 1, 4.0])
    np.testing.assert_array_equal(rho, [nan, nan, -3, 1, 4])
    x = {"p": [1, 1, nan], "q": [0, 0, 3.0]}
    assert stl.robustness(stl.parse("p>0 U[0,2] q>0"), x) == 1
    assert math.isnan(stl.robustness(stl.parse("p>0 Ui[0,2] q>0"), x))


def test_monitor_refusals_and_bounds():
    with pytest.raises(stl.StlError, match="bound"):
        stl.Monitor(stl.parse("F[0,inf] G[0,inf] (x > 0)"))
    with pytest.raises(ValueError, match="'middle'"):
        stl.Monitor(stl.parse("x > 0"), at="middle")
    monitor = stl.Monitor(stl.parse("G[0,4] (x > 0)"), ranges={"x": (-1.0, 1.0)})
    assert monitor.delay == 4
    assert monitor.update([0.5]).pending == (0, -1.0, 0.5)
    with pytest.raises(stl.StlError, match="2"):
        monitor.update([0.5, 0.1])


def test_numpy_input_imports_no_torch():
    code = (
        "import sys, numpy as np; from cadenza import stl;"
        "print(stl.robustness(stl.parse('G[0,1](x>0)'), np.ones((4, 1))));"
        "print([m for m in ('torch', 'mujoco', 'gymnasium', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split("\n")[:2] == ["1.0", "[]"]
