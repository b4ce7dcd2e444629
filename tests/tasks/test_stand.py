"""cadenza.tasks.stand: the declaration, starts, rewards, falls, and the way into the loop."""

import json

import numpy as np
import pytest

from cadenza.runtime import Bundle, RunConfig, Runtime, SimDevice
from cadenza.sim.domain import Domain
from cadenza.sim.env import RobotEnvironment
from cadenza.tasks.stand import StandConfig, StandHumanoid29
from cadenza.tasks.task import Moment

TASK = StandHumanoid29()
CALM = StandHumanoid29(StandConfig(domain=Domain()))


def rotation(quat):
    w, x, y, z = quat
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def test_declaration():
    m = TASK.manifest()
    assert json.loads(json.dumps(m, allow_nan=False)) == m
    assert m["observation"]["size"] == 93
    assert m["action"]["joints"] == list(TASK.robot.joint_names)
    assert m["rates"] == {"policy_dt": 0.02, "control_dt": 0.002, "physics_dt": 0.002}
    names = [line.split()[1].rstrip(":") for line in TASK.spec().splitlines()]
    assert names == [monitor["name"] for monitor in m["monitors"]]


def test_observation_is_the_recipe():
    env = RobotEnvironment(CALM, 3, seed=5)
    rng = np.random.default_rng(0)
    for _ in range(20):
        u = rng.uniform(-1, 1, (3, 29)).astype(np.float32)
        t = env.step(u)
        assert not t.done.any()
    for i, row in enumerate(t.next_obs):
        quat, gyro = env.sim.imu[i, :4], env.sim.imu[i, 4:7]
        gravity = rotation(quat).T @ [0, 0, -1]
        expected = np.concatenate(
            (gravity, 0.25 * gyro, env.sim.q[i] - TASK.robot.home, 0.05 * env.sim.dq[i], u[i])
        )
        np.testing.assert_allclose(row, expected, atol=2e-6)
        # sensors are those of the last physics step: one step before the state
        np.testing.assert_allclose(quat, env.sim.base[i, 3:7], atol=0.02)
        np.testing.assert_allclose(gyro, env.sim.base[i, 10:13], atol=1.0)


def test_targets_are_offsets_about_home():
    env = RobotEnvironment(CALM, 2)
    u = np.zeros((2, 29), np.float32)
    u[0, 3], u[1, 20] = 1.0, -0.5
    env.step(u)
    expected = np.tile(TASK.robot.home, (2, 1)) + 0.3 * u
    np.testing.assert_allclose(env._actions.target, expected, atol=1e-9)


def moment(q, base, action=None):
    n, joints = len(base), 29
    zero = np.zeros((n, joints))
    action = zero if action is None else action
    return Moment(
        np.tile(q, (n, 1)), zero, zero, np.zeros((n, 0)), action, zero, {}, None, np.array(base, float), {}
    )


def test_reward_and_falls():
    z = TASK._base[2]
    half = 0.9 / 2
    rest = [0.0] * 6
    upright, low = [0, 0, z, 1, 0, 0, 0, *rest], [0, 0, 0.45, 1, 0, 0, 0, *rest]
    tilted = [0, 0, z, np.cos(half), np.sin(half), 0, 0, *rest]
    now = moment(TASK.robot.home, [upright, low, tilted])
    assert TASK.terminated(now).tolist() == [False, True, True]
    assert TASK.success(now).tolist() == [True, False, False]
    sunk, leant = np.exp(-(((0.45 - z) / 0.1) ** 2)), np.exp(-(np.sin(0.9) ** 2) / 0.05)
    expected = [1.0, 0.5 + 0.5 * sunk, 0.5 + 0.5 * leant]
    np.testing.assert_allclose(TASK.reward(now), expected, atol=1e-12)
    moved = moment(TASK.robot.home, [upright], np.full((1, 29), 0.5))
    np.testing.assert_allclose(TASK.reward(moved), 1.0 - 0.1 * 0.25, atol=1e-12)


def test_starts_stand_and_nothing_holds_them_for_long():
    """Zero action neither falls at once nor stands: there is something to learn."""
    env = RobotEnvironment(TASK, 8, seed=0)
    assert (np.abs(env.sim.base[:, 2] - TASK._base[2]) < 0.02).all()
    fell = np.zeros(8, int)
    for k in range(200):
        fell[(fell == 0) & env.step(np.zeros((8, 29), np.float32)).terminated] = k
    assert (fell > 25).all()


def test_seeds_and_resume_across_falls_and_pushes():
    def rows(env, steps, seed):
        u = np.random.default_rng(seed).uniform(-1, 1, (steps, 3, 29)).astype(np.float32)
        out = [env.step(a) for a in u]
        return np.stack([t.obs for t in out]), np.stack([t.reward for t in out])

    envs = [RobotEnvironment(TASK, 3, seed=s) for s in (1, 1, 2)]
    (a, _), (b, _), (c, _) = (rows(env, 60, 0) for env in envs)
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    saved = envs[0].state_dict()
    expected = rows(envs[0], 120, 1)
    envs[2].load_state_dict(saved)
    for mine, theirs in zip(rows(envs[2], 120, 1), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_an_untrained_policy_runs_in_the_loop(untrained, tmp_path):
    path = untrained("cadenza/StandHumanoid29-v0")
    report = Runtime(
        path, robot=TASK.robot, device=SimDevice.of(TASK.robot),
        config=RunConfig(1.0, str(tmp_path / "run.mcap"), virtual_clock=True),
    ).run()  # fmt: skip
    assert report.exit_code == 0, report.table
    assert report.ticks >= 500
    assert Bundle(path).entry("x-scene.xml") is None


def test_a_bolted_robot_cannot_be_pushed():
    from cadenza.tasks.reach import ReachArm6, ReachConfig

    pushed = ReachArm6(ReachConfig(domain=Domain(push_every=1.0, push_speed=0.1)))
    with pytest.raises(ValueError, match="push_every: arm6 has no floating base"):
        RobotEnvironment(pushed, 1)
