"""cadenza.tasks.reach: starts, goals, the declaration, the ids."""

import json

import numpy as np
import pytest

from cadenza.tasks import make, make_task
from cadenza.tasks.reach import ARM, ReachArm6

TASK = ReachArm6()


def test_starts_and_goals_fill_their_ranges_and_nothing_else():
    start = TASK.start(np.random.default_rng(0), 20_000)
    home = TASK.robot.home
    off = start.q - home
    assert np.abs(off[:, :6]).max() <= 0.3
    assert (np.abs(off[:, :6]).max(0) > 0.299).all()
    assert not off[:, 6].any()
    radius = np.hypot(*start.user[:, :2].T)
    azimuth = np.degrees(np.arctan2(start.user[:, 1], start.user[:, 0]))
    for values, lo, hi in ((radius, 0.25, 0.45), (azimuth, -60, 60), (start.user[:, 2], 0.05, 0.35)):
        assert lo <= values.min() < lo + 0.01 * (hi - lo)
        assert hi - 0.01 * (hi - lo) < values.max() <= hi
        assert np.mean(values) == pytest.approx((lo + hi) / 2, abs=0.01 * (hi - lo))
    # the operator may ask for every goal that occurs in training
    for slot, values in zip(TASK.manifest()["commands"], start.user.T, strict=True):
        lo, hi = slot["range"]
        assert lo <= values.min()
        assert values.max() <= hi
        assert lo <= slot["default"] <= hi


def test_the_same_seed_gives_the_same_goals():
    a, b = (TASK.start(np.random.default_rng(7), 50) for _ in range(2))
    np.testing.assert_array_equal(a.user, b.user)
    np.testing.assert_array_equal(a.q, b.q)


def test_declaration():
    m = TASK.manifest()
    assert json.loads(json.dumps(m, allow_nan=False)) == m
    assert m["observation"]["size"] == sum(t["size"] for t in m["observation"]["terms"]) == 32
    assert [j["name"] for j in m["joints"]] == list(TASK.robot.joint_names)
    assert m["action"]["joints"] == list(ARM)
    assert (m["action"]["kind"], m["action"]["scale"], m["action"]["leash"]) == (
        "position_increment", {"*": 0.1}, 0.2,
    )  # fmt: skip
    assert m["rates"] == {"policy_dt": 0.04, "control_dt": 0.002, "physics_dt": 0.002}
    names = [line.split()[1].rstrip(":") for line in TASK.spec().splitlines()]
    assert names == [monitor["name"] for monitor in m["monitors"]]


def test_reward_is_round_at_the_goal_and_linear_far_away():
    from cadenza.tasks.task import Moment

    zero = np.zeros((3, 6))
    tool = np.array([[0.0, 0, 0], [0.03, 0, 0], [3.0, 0, 0]])
    now = Moment(zero, zero, zero, np.zeros((3, 3)), zero, zero + 0.5, {"tool": tool})
    expected = [-0.025, -(np.sqrt(0.0013) - 0.02) / 0.3 - 0.025, -(np.sqrt(9.0004) - 0.02) / 0.3 - 0.025]
    np.testing.assert_allclose(TASK.reward(now), expected, atol=1e-12)
    assert TASK.success(now).tolist() == [True, False, False]
    assert not TASK.terminated(now).any()


def test_ids():
    assert make("cadenza/ReachArm6-v0", 2).n == 2
    for maker in (make_task, lambda i: make(i, 1)):
        with pytest.raises(
            ValueError, match="no task 'cadenza/ReachArm7-v0'; did you mean 'cadenza/ReachArm6-v0'"
        ):
            maker("cadenza/ReachArm7-v0")
