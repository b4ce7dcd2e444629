"""cadenza.tasks.gymnasium: gymnasium's tasks by id, and their exact resume."""

import gymnasium
import numpy as np
import pytest

from cadenza.tasks import make
from cadenza.tasks.gym_batch import BATCHED, BatchedGym
from cadenza.tasks.gymnasium import GymEnvironment


@pytest.mark.parametrize("task_id", ["gym:Hopper-v5", "gym:Reacher-v5", "gym:Pendulum-v1"])
def test_resume_is_exact(task_id):
    env = make(task_id, 2, seed=3)
    u = np.random.default_rng(0).uniform(-1, 1, (260, 2, len(env.action_low)))
    for a in u[:60]:
        env.step(a)
    saved = env.state_dict()
    expected = [env.step(a) for a in u[60:]]
    other = make(task_id, 2, seed=9)
    other.load_state_dict(saved)
    for a, t in zip(u[60:], expected, strict=True):
        mine = other.step(a)
        for name in ("obs", "next_obs", "reward", "terminated", "truncated"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(t, name))
    assert sum(t.done.sum() for t in expected) > 0
    for e in (env, other):
        e.close()


@pytest.mark.parametrize("gym_id", BATCHED)
def test_the_batched_tasks_are_gymnasiums_own_bit_for_bit(gym_id):
    """A thousand steps of two copies, over falls and time limits, with small and with wild actions."""
    mine, theirs = BatchedGym(gym_id, 2, seed=3), GymEnvironment(gym_id, 2, seed=3)
    for name in ("obs_size", "action_low", "action_high", "episode_steps", "dt", "name"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(mine.reset(5), theirs.reset(5))
    ends = 0
    for k in range(1000):
        # one copy holds still for long, so that it lives, the other moves
        u = rng.uniform(-1.5, 1.5, (2, len(mine.action_low))) * mine.action_high * [[0.05], [1.0]]
        a, b = mine.step(u), theirs.step(u)
        for name in ("obs", "next_obs", "reward", "terminated", "truncated"):
            x, y = getattr(a, name), getattr(b, name)
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y, err_msg=f"{name} at step {k}")
        ends += b.done.sum()
    assert ends > 0


@pytest.mark.parametrize("gym_id", BATCHED)
def test_threads_and_resume_change_nothing(gym_id):
    one, two, other = BatchedGym(gym_id, 3, seed=1), BatchedGym(gym_id, 3, seed=1, threads=2), None
    rng = np.random.default_rng(0)
    for k in range(120):
        u = rng.uniform(-1, 1, (3, len(one.action_low))) * one.action_high
        a, b = one.step(u), two.step(u)
        np.testing.assert_array_equal(a.obs, b.obs)
        if other is not None:
            np.testing.assert_array_equal(other.step(u).obs, a.obs)
        if k == 60:
            other = BatchedGym(gym_id, 3, seed=9)
            np.testing.assert_array_equal(other.load_state_dict(one.state_dict()), a.obs)
    with pytest.raises(ValueError, match="state of 3 environments, expected 1"):
        BatchedGym(gym_id, 1).load_state_dict(one.state_dict())


def test_a_step_is_gymnasiums_own_with_clipped_actions():
    env = make("gym:Pendulum-v1", 2, seed=1)
    seeds = np.random.SeedSequence(1).generate_state(2)
    plain = [gymnasium.make("Pendulum-v1") for _ in range(2)]
    first = [e.reset(seed=int(s))[0] for e, s in zip(plain, seeds, strict=True)]
    np.testing.assert_allclose(env.reset(1), first, rtol=1e-6)
    for _ in range(200):
        t = env.step(np.full((2, 1), 5.0))
        for i, e in enumerate(plain):
            obs, reward, terminated, truncated, _ = e.step(np.array([2.0], np.float32))
            np.testing.assert_allclose(t.next_obs[i], obs, rtol=1e-6)
            assert t.reward[i] == pytest.approx(reward)
            assert (t.terminated[i], t.truncated[i]) == (terminated, truncated)
    assert t.truncated.all()
    assert (t.obs != t.next_obs).any(1).all()
    assert (env.dt, env.episode_steps) == (0.05, 200)


def test_bad_ids_and_actions():
    with pytest.raises(ValueError, match=r"no task 'gym:Hoper-v5'; did you mean 'gym:Hopper-v5'\?"):
        make("gym:Hoper-v5", 1)
    with pytest.raises(ValueError, match="action space Discrete"):
        make("gym:CartPole-v1", 1)
    env = make("gym:Pendulum-v1", 2)
    with pytest.raises(ValueError, match="action nan of component 0 in environment 1"):
        env.step(np.array([[0.0], [np.nan]]))
    with pytest.raises(ValueError, match="state of 2 environments, expected 1"):
        make("gym:Pendulum-v1", 1).load_state_dict(env.state_dict())
