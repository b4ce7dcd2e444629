"""cadenza.stl: the table of the specification, against brute force; shapes, dtypes, parameters, errors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cadenza import stl
from stl.reference import Reads, Reference, text

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


def columns(trace):
    return {"x": trace[:, 0].tolist(), "y": trace[:, 1].tolist()}


@settings(max_examples=300, deadline=None)
@given(formulas, traces, st.sampled_from([np.float32, np.float64]))
def test_offline_equals_brute_force(formula, trace, dtype):
    expected = Reference(columns(trace)).every(formula)
    parsed = stl.parse(text(formula), ["x", "y"])
    rho = stl.robustness_trace(parsed, trace.astype(dtype))
    assert rho.dtype == dtype
    np.testing.assert_array_equal(rho, expected)
    at = len(trace) // 2
    assert stl.robustness(parsed, trace.astype(dtype), at=at) == expected[at]


@settings(max_examples=150, deadline=None)
@given(formulas, st.lists(traces, min_size=1, max_size=19), st.integers(1, 2))
def test_ragged_batches_are_their_traces(formula, batch, threads):
    lengths = [len(trace) for trace in batch]
    x = np.full((len(batch), max(lengths), 2), 1e9)
    for row, trace in zip(x, batch, strict=True):
        row[: len(trace)] = trace
    parsed = stl.parse(text(formula), ["x", "y"])
    rho = stl.robustness_trace(parsed, x, lengths=lengths, threads=threads)
    for row, trace in zip(rho, batch, strict=True):
        np.testing.assert_array_equal(row[: len(trace)], Reference(columns(trace)).every(formula))
        assert np.isnan(row[len(trace) :]).all()


@settings(max_examples=200, deadline=None)
@given(formulas, traces, st.data())
def test_nan_marks_exactly_what_reads_it_in_any_formula(formula, trace, data):
    holes = data.draw(st.lists(st.booleans(), min_size=trace.size, max_size=trace.size))
    broken = np.where(np.reshape(holes, trace.shape), np.nan, trace)
    mask = np.array(Reads(columns(broken)).every(formula), bool)
    expected = np.where(mask, np.nan, Reference(columns(trace)).every(formula))
    np.testing.assert_array_equal(
        stl.robustness_trace(stl.parse(text(formula), ["x", "y"]), broken), expected
    )


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
