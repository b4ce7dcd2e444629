"""cadenza.sim.env: rows, episode ends, seeds, resume; observations against numbers computed here."""

import mujoco
import numpy as np
import pytest

from cadenza.sim.batch import SimulationDiverged
from cadenza.sim.env import RobotEnvironment
from cadenza.tasks.reach import ARM, ReachArm6, ReachConfig

TASK = ReachArm6()


def actions(steps, n, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, n, 6)).astype(np.float32)


def test_observation_is_the_recipe():
    env = RobotEnvironment(TASK, 3, seed=5)
    assert env.obs_size == 32
    robot, home = TASK.robot, TASK.robot.home[:6]
    data = mujoco.MjData(env.sim.model)
    targets = env.sim.q[:, :6].copy()
    for u in actions(6, 3):
        before = env.sim.q[:, :6].copy()
        t = env.step(u)
        lo, hi = robot.position[:6].T
        targets = np.clip(np.clip(targets + 0.1 * u, before - 0.2, before + 0.2), lo, hi)
        for i, row in enumerate(t.next_obs):
            q, dq, goal = env.sim.q[i], env.sim.dq[i], env.moment().user[i]
            data.qpos[:] = q
            mujoco.mj_kinematics(env.sim.model, data)
            turned = data.site("turret").xmat.reshape(3, 3)
            e = turned.T @ (goal - data.site("tool").xpos)
            expected = np.concatenate(
                (
                    q[:6] - home, 0.3 * dq[:6], 5 * (targets[i] - q[:6]), e / 0.2,
                    e / np.sqrt(e @ e + 0.06**2), [(np.hypot(goal[0], goal[1]) - 0.35) / 0.15],
                    [(goal[2] - 0.2) / 0.15], u[i],
                )
            )  # fmt: skip
            np.testing.assert_allclose(row, expected, atol=2e-6)


def test_gripper_stays_where_it_started():
    env = RobotEnvironment(TASK, 2)
    for u in actions(30, 2):
        env.step(u)
    assert np.abs(env.sim.q[:, 6] - TASK.robot.home[6]).max() < 0.03


def test_targets_never_leave_the_limits_of_position_velocity_and_acceleration():
    env = RobotEnvironment(TASK, 4)
    lo, hi = TASK.robot.position.T
    last, last_v = env.sim.q.copy(), np.zeros((4, 7))
    for k in range(40):
        env.step(np.full((4, 6), 1.0 if k % 20 < 12 else -1.0, np.float32))
        for j in range(env._q.shape[1]):
            q, v = env._q[:, j], (env._q[:, j] - last) / 0.002
            assert ((q >= lo) & (q <= hi)).all()
            for joint, limit in enumerate(TASK.robot.joints):
                assert np.abs(v[:, joint]).max() <= limit.velocity * (1 + 1e-9)
                change = np.abs(v - last_v)[:, joint].max() / 0.002
                assert change <= limit.acceleration * (1 + 1e-6)
            last, last_v = q.copy(), v


def test_episodes_end_by_truncation_and_are_staggered():
    env = RobotEnvironment(ReachArm6(ReachConfig(episode_steps=10)), 5, stagger=True)
    ends = np.stack([env.step(u).truncated for u in actions(20, 5)])
    assert ends.sum(0).tolist() == [2, 2, 2, 2, 2]
    first = ends.argmax(0) + 1
    assert first.tolist() == [10, 8, 6, 4, 2]
    assert (ends.sum(1) <= 1).all()


def test_the_successor_of_an_ended_episode_is_the_true_one():
    env = RobotEnvironment(ReachArm6(ReachConfig(episode_steps=3)), 2)
    for _ in range(2):
        env.step(actions(1, 2)[0])
    t = env.step(actions(1, 2)[0])
    assert t.truncated.all()
    assert not t.terminated.any()
    # the last action stands in the true successor, none in the new episode's first observation
    np.testing.assert_array_equal(t.next_obs[:, -6:], actions(1, 2)[0])
    assert not t.obs[:, -6:].any()
    assert not t.obs[:, 6:18].any()  # at rest, target at the joints
    np.testing.assert_array_equal(env.moment().action, 0)


def test_the_first_change_of_action_counts_from_zero():
    env = RobotEnvironment(TASK, 2)
    u = actions(1, 2)[0]
    reward = env.step(u).reward
    d = TASK.distance(env.moment())
    expected = -(np.sqrt(d**2 + 0.0004) - 0.02) / 0.3 - 0.1 * (u.astype(float) ** 2).mean(1)
    np.testing.assert_allclose(reward, expected, atol=1e-12)
    reward = env.step(u).reward  # no change now
    d = TASK.distance(env.moment())
    np.testing.assert_allclose(reward, -(np.sqrt(d**2 + 0.0004) - 0.02) / 0.3, atol=1e-12)


def rows(env, steps, seed):
    out = [env.step(u) for u in actions(steps, env.n, seed)]
    return np.stack([t.obs for t in out]), np.stack([t.reward for t in out])


def test_seeds():
    def first(seed):
        return rows(RobotEnvironment(TASK, 3, seed=seed, stagger=True), 60, 0)

    (a, ra), (b, rb), (c, _) = first(1), first(1), first(2)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(ra, rb)
    assert (a != c).any()
    env = RobotEnvironment(TASK, 3, seed=9)
    np.testing.assert_array_equal(env.reset(1), env.reset(1))


def test_resume_is_exact_across_episode_ends():
    env = RobotEnvironment(TASK, 4, seed=3, stagger=True)
    rows(env, 23, 0)
    saved = env.state_dict()
    expected = rows(env, 70, 1)
    other = RobotEnvironment(TASK, 4, seed=8)
    obs = other.load_state_dict(saved)
    assert obs.shape == (4, 32)
    for mine, theirs in zip(rows(other, 70, 1), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_bad_actions_change_nothing():
    env = RobotEnvironment(TASK, 2, seed=1)
    twin = RobotEnvironment(TASK, 2, seed=1)
    for bad, text in (
        (np.zeros((2, 5)), r"shape \[2, 5\], expected \[2, 6\]"),
        (np.array([[0] * 6, [0, 0, np.nan, 0, 0, 0]]), "action nan of elbow_flex in simulation 1"),
        (np.array([[1.5, 0, 0, 0, 0, 0], [0] * 6]), "action 1.5 of shoulder_pan in simulation 0"),
    ):
        with pytest.raises(ValueError, match=text):
            env.step(bad)
    np.testing.assert_array_equal(rows(env, 3, 0)[0], rows(twin, 3, 0)[0])


def test_a_broken_simulation_is_reported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo logs warnings into the current folder
    env = RobotEnvironment(TASK, 2)
    env.sim._qpos[1, 0] = np.inf
    with pytest.raises(SimulationDiverged, match="simulation 1"):
        env.step(np.zeros((2, 6)))


def test_names():
    env = RobotEnvironment(TASK, 1)
    assert env.action_names == ARM
    assert env.name == "cadenza/ReachArm6-v0"
    assert (env.dt, env.episode_steps) == (0.04, 50)
