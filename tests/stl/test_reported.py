"""What users of other STL tools reported, and what must hold here (spec/stl.md §9)."""

import random
from math import inf

import numpy as np
import pytest

from cadenza import stl
from stl import peer_formulas as formulas

P = [1, 3, -1, 2, 0.5, -2]
Q = [-5, -0.5, -3, 4, -1, 1]
X = {"p": P, "q": Q}


def stream(monitor: stl.Monitor, samples: np.ndarray) -> list[float]:
    """Every verdict, in order."""
    closed = [v.closed for v in map(monitor.update, samples) if v.closed is not None]
    closed += monitor.finish()
    assert [t for t, _ in closed] == list(range(len(samples)))
    return [rho for _, rho in closed]


def test_no_state_is_kept_between_evaluations():
    """nickovic/rtamt#85"""
    f = stl.parse("G[0,2] p>0 and p>0 S[0,2] q>0", ["p", "q"])
    first = stl.robustness_trace(f, X)
    stl.robustness_trace(f, {"p": [-100.0] * 9, "q": [-100.0] * 9})
    np.testing.assert_array_equal(stl.robustness_trace(f, X), first)
    monitor = stl.Monitor(f)
    samples = np.stack([P, Q], axis=-1).astype(float)
    runs = []
    for _ in range(2):
        runs.append(stream(monitor, samples))
        monitor.reset()
    assert runs[0] == runs[1] == first.tolist()


def test_a_shared_definition_never_changes_the_result():
    """nickovic/rtamt#164"""
    shared = "let near = F[0,2] p>0; G[0,1] near and (near U[0,2] q>0) and near"
    spelled = "G[0,1] F[0,2] p>0 and (F[0,2] p>0 U[0,2] q>0) and F[0,2] p>0"
    wanted = stl.robustness_trace(stl.parse(spelled, ["p", "q"]), X)
    np.testing.assert_array_equal(stl.robustness_trace(stl.parse(shared, ["p", "q"]), X), wanted)


def test_weak_until_holds_without_its_right_side():
    """nickovic/rtamt#41"""
    never = {"p": [1.0, 2.0, 3.0], "q": [-1.0, -1.0, -1.0]}
    assert stl.robustness_trace(stl.parse("p>0 W q>0"), never).tolist() == [1, 2, 3]
    assert stl.robustness_trace(stl.parse("p>0 U q>0"), never).tolist() == [-1, -1, -1]


def test_nothing_is_said_before_the_horizon_is_full():
    """nickovic/rtamt#59"""
    monitor = stl.Monitor(stl.parse("G[0,2] p>0"))
    closed = [monitor.update([value]).closed for value in P]
    assert closed == [None, None, (0, -1), (1, -1), (2, -1), (3, -2)]
    assert monitor.finish() == [(4, -2), (5, -2)]


@pytest.mark.parametrize("text", ["G p>0", "F[3,inf] p>0", "p>0 U p<0", "H[0,2] F p>0"])
def test_an_unbounded_future_is_refused_online_and_judged_offline(text):
    """nickovic/rtamt#182, #189"""
    f = stl.parse(text)
    assert f.horizon is None
    with pytest.raises(stl.StlError, match="unbounded"):
        stl.Monitor(f)
    assert np.isfinite(stl.robustness(f, P))


def test_online_equals_offline_with_past_and_future_mixed():
    """nickovic/rtamt#84, #26, #28, #170"""
    rng = random.Random(9)
    for _ in range(300):
        drawn = formulas.draw(rng, 3, formulas.EVERY, unbounded=False)
        f = stl.parse(formulas.ours(drawn), ["x", "y"])
        trace = formulas.trace(rng, rng.randint(1, 12))
        offline = stl.robustness_trace(f, trace).tolist()
        assert stream(stl.Monitor(f), np.stack([trace["x"], trace["y"]], axis=-1)) == offline, str(f)


@pytest.mark.parametrize(
    "text, wanted",
    [
        # what rtamt's pastification gets wrong, as its own operators over the trace 1, 2, 0.5, −1, 3
        ("H F[0,1] x > 0", [2, 2, 0.5, 0.5, 0.5]),
        ("rise(F[0,1] x > 0)", [2, -2, -2, -0.5, -3]),
        ("wY F[0,1] x > 0", [inf, 2, 2, 0.5, 3]),
    ],
)
def test_a_past_over_a_future_starts_with_the_trace(text, wanted):
    """nickovic/rtamt#84"""
    f, x = stl.parse(text), [1.0, 2.0, 0.5, -1.0, 3.0]
    assert stl.robustness_trace(f, x).tolist() == wanted
    assert stream(stl.Monitor(f), np.array(x)[:, None]) == wanted


def test_a_jump_changes_no_sign():
    """nickovic/rtamt#210: dense time loses the sign at a discontinuity; a discrete sample has one value."""
    jump = [1.0, 1.0, -1.0, -1.0, 1.0]
    assert stl.robustness_trace(stl.parse("G[0,1] x>0"), jump).tolist() == [1, -1, -1, -1, 1]
    assert stl.robustness_trace(stl.parse("x>0 S[0,1] x<0"), jump).tolist() == [-1, -1, 1, 1, 1]


def test_a_long_run_needs_no_more_memory_than_a_short_one():
    """nickovic/rtamt#46: what a monitor holds is known when it is made."""
    f = stl.parse("p>0 U[0,50] (H q>0)", ["p", "q"])
    monitor, rng = stl.Monitor(f), np.random.default_rng(0)
    before = getattr(monitor, "memory_bytes", None)
    for sample in rng.normal(size=(2_000, 2)):
        assert monitor.update(sample).closed is None or monitor.delay == 50
    assert getattr(monitor, "memory_bytes", None) == before


def test_until_of_any_window_on_any_length_is_right_and_does_not_crash():
    """decyphir/STLRom#4, #2: by until's own definition."""
    rng = random.Random(2)
    for _ in range(150):
        n, a = rng.randint(1, 12), rng.randint(0, 14)
        b = a + rng.randint(0, 14)
        p, q = ([rng.randint(-8, 8) / 4 for _ in range(n)] for _ in "pq")
        wanted = [
            max((min([q[s], *p[t:s]]) for s in range(t + a, min(t + b, n - 1) + 1)), default=-inf)
            for t in range(n)
        ]
        f = stl.parse(f"p>0 U[{a},{b}] q>0", ["p", "q"])
        assert stl.robustness_trace(f, {"p": p, "q": q}).tolist() == wanted, (a, b, p, q)


def test_the_magnitude_is_the_smallest_change_that_can_flip_the_verdict():
    """StanfordASL/stlcg#29"""
    f = stl.parse("F[0,2] G[0,1] p>0")
    rho = stl.robustness(f, P)
    assert rho == 1
    assert stl.robustness(f, [value - (rho - 0.01) for value in P]) > 0
    assert stl.robustness(f, [value - (rho + 0.01) for value in P]) < 0
