"""Decomposition from Python: allocations against the robustness of the formula, samples, refusals."""

import itertools

import numpy as np
import pytest

from cadenza import stl

COMPLETE = [
    "F[0,3] (x > 0) and G[1,4] (y > 0)",
    "(x > 0) U[1,3] (y > 0)",
    "(x > 0) Ui[0,2] (y > 0) or X (x > 1)",
    "F[0,2] (x > 0 and F[1,3] y > 0)",
    "(x > 0) R[0,3] (y > 0)",
    "G[0,2] (x > 0 or not y > 0)",
]


def allocations(branch):
    ranges = [range(v.min, v.max + 1) for v in branch.variables]
    return [branch.allocate(deltas) for deltas in itertools.product(*ranges)]


@pytest.mark.parametrize("text", COMPLETE)
def test_the_best_allocation_is_the_formula(text):
    f = stl.parse(text, ["x", "y"])
    branches = stl.decompose(f)
    assert all(branch.complete for branch in branches)
    every = [a for branch in branches for a in allocations(branch)]
    assert len(every) == sum(branch.count() for branch in branches)
    for x in np.random.default_rng(0).normal(size=(30, 9, 2)):
        best = max(a.robustness(x) for a in every)
        assert best == stl.robustness(f, x)
        assert any(a.check(x) for a in every) == (best > 0)


def test_what_a_branch_says():
    f = stl.parse("F[2,5] (x > $d and y < 1) and G[0,8] (y < 3)", ["x", "y"])
    [branch] = stl.decompose(f)
    start = stl.Instant(None, 0)
    assert branch.variables == (stl.Variable(start, 2, 5),) and branch.count() == 4 and branch.complete
    [reach], [hold] = branch.reach, branch.hold
    assert str(reach.region) == "x > $d and y < 1" and reach.at == stl.Instant(0, 0)
    assert (str(hold.region), hold.start, hold.end) == ("y < 3", start, stl.Instant(None, 8))
    assert hold.region.signals == ("x", "y")
    allocation = branch.allocate([3])
    assert [(g.start, g.end) for g in allocation.goals] == [(3, 3)]
    assert [(g.start, g.end) for g in allocation.invariants] == [(0, 8)]
    x = np.zeros((9, 2))
    x[3, 0] = 2.0
    assert allocation.robustness(x, params={"d": 0.5}) == 1.0
    assert allocation.check({"x": x[:, 0], "y": x[:, 1]}, params={"d": 0.5})
    assert not branch.allocate([4]).check(x, params={"d": 0.5})
    with pytest.raises(stl.StlError, match=r"\$d has no value"):
        allocation.check(x)
    with pytest.raises(stl.StlError, match="length 8"):
        allocation.check(x[:8], params={"d": 0.5})
    with pytest.raises(ValueError, match="one trace"):
        allocation.check(x[None], params={"d": 0.5})
    with pytest.raises(stl.StlError, match=r"δ = 6, outside 2..=5"):
        branch.allocate([6])
    with pytest.raises(stl.StlError, match="1"):
        branch.allocate([])
    with pytest.raises(TypeError):
        branch.allocate([2.5])


def test_goals_stand_in_order_of_time():
    [branch] = stl.decompose(stl.parse("F[5,9] x > 0 and F[0,4] x < 0 and F[0,2] G[0,3] x > 1"))
    for seed in range(20):
        goals = branch.sample(np.random.default_rng(seed)).goals
        assert [(g.start, g.end) for g in goals] == sorted((g.start, g.end) for g in goals)
        assert [g for g in goals if g.end > g.start], "F G gives a goal to be held"


def test_samples_cover_the_box_and_follow_the_generator():
    [branch] = stl.decompose(stl.parse("F[0,3] (x > 0 and F[1,2] x < 0)"))
    rng = np.random.default_rng(1)
    drawn = [tuple(g.start for g in branch.sample(rng).goals) for _ in range(400)]
    counts = {times: drawn.count(times) for times in set(drawn)}
    assert set(counts) == {(t, t + d) for t in range(4) for d in (1, 2)}
    assert min(counts.values()) > 20, "each of the 8 is expected 50 times"
    rng = np.random.default_rng(1)
    assert drawn == [tuple(g.start for g in branch.sample(rng).goals) for _ in range(400)]
    with pytest.raises(AttributeError):
        branch.sample(None)


def test_chains_satisfy_again_and_again():
    f = stl.parse("G[0,6] F[0,2] x > 0")
    with pytest.raises(stl.ParseError, match="chain") as refused:
        stl.decompose(f)
    assert refused.value.kind == "Unsupported" and "^" in str(refused.value)
    rng = np.random.default_rng(2)
    for chain, complete in (("minimal", False), ("complete", True)):
        [branch] = stl.decompose(f, chain=chain)
        assert branch.complete == complete
        for _ in range(50):
            allocation = branch.sample(rng)
            x = np.full(9, -1.0)
            x[[goal.start for goal in allocation.goals]] = 1.0
            assert allocation.check(x) and stl.robustness(f, x) == 1.0
    with pytest.raises(ValueError, match="'some'"):
        stl.decompose(f, chain="some")


@pytest.mark.parametrize("text", ["O[0,3] x > 0", "F x > 0", "G[0,3] (x > 0 U[0,2] x > 1)"])
def test_what_cannot_be_decomposed_shows_the_place(text):
    with pytest.raises(stl.ParseError) as refused:
        stl.decompose(stl.parse(text))
    assert refused.value.kind == "Unsupported" and "^" in str(refused.value)


def test_too_many_branches_are_counted_before_they_are_made():
    f = stl.parse(" and ".join(f"(X x > {i} or X X x > {i})" for i in range(40)))
    with pytest.raises(stl.ParseError, match="1099511627776 branches, the limit is 4096"):
        stl.decompose(f)
