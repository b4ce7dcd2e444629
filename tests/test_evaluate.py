"""cadenza.evaluate: metrics against numbers worked out by hand, and that training never notices."""

import numpy as np
import pytest

from cadenza.evaluate import action_change, bootstrap, evaluate
from cadenza.tasks import make
from cadenza.tasks.task import Transition


class Countdown:
    """Environment i ends after i + 1 steps; reward 1 a step; even ones succeed at their end."""

    name, obs_size, action_names, episode_steps, dt = "countdown", 1, (), None, 0.5
    action_low, action_high = np.array([-2.0, 0.0]), np.array([2.0, 4.0])

    def __init__(self, n):
        self.n = n

    def reset(self, seed=None):
        self.seed, self.t = seed, np.zeros(self.n, int)
        return np.zeros((self.n, 1), np.float32)

    def step(self, action):
        self.t += 1
        done = self.t == np.arange(self.n) + 1
        success = done & (np.arange(self.n) % 2 == 0)
        self.t[done] = -1000
        obs = np.zeros((self.n, 1), np.float32)
        return Transition(obs, obs, np.ones(self.n), done, np.zeros(self.n, bool), success)


def test_each_environment_gives_one_episode():
    steps = iter(range(100))
    # centre 0 and 2, half-width 2: u = ±0.5, and 0
    result = evaluate(lambda obs: np.tile([(-1.0) ** next(steps), 2.0], (len(obs), 1)), Countdown(5), seed=1)
    assert result.episodes == 5
    assert result.success == 3 / 5
    assert result.return_mean == result.length == 3.0
    assert result.return_std == pytest.approx(np.sqrt(2))
    assert 1.0 < result.return_low < 3.0 < result.return_high < 5.0
    assert result.action_change == pytest.approx(0.5)  # one joint jumps by 1, the other rests
    # third difference of ±0.5 is ±4; over dt³ = 1/8, one joint of two
    assert result.jerk == pytest.approx(32 / np.sqrt(2))


def test_action_change_golden():
    ramp = np.arange(10.0)[:, None] * 0.1
    assert action_change([ramp, ramp[:1]]) == pytest.approx(0.1)
    assert action_change([ramp[:1]]) == 0.0


def test_bootstrap_covers_the_mean():
    values = np.random.default_rng(0).normal(2.0, 1.0, 400)
    low, high = bootstrap(values, 0)
    # 1.96 standard errors on each side
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert low < values.mean() < high
    assert bootstrap(values, 0) == (low, high)


def test_same_seed_same_result_and_training_is_not_disturbed():
    trained, watched = make("cadenza/ReachArm6-v0", 2, seed=1), make("cadenza/ReachArm6-v0", 3, seed=5)
    rng = np.random.default_rng(0)
    u = rng.uniform(-1, 1, (20, 2, 6))

    def act(obs):
        return np.tanh(obs[:, :6]).astype(np.float32)

    first = evaluate(act, watched, seed=7)
    alone = [trained.step(a).obs for a in u]
    trained.reset(1)
    again = []
    for a in u:
        again.append(trained.step(a).obs)
        if len(again) == 10:
            assert evaluate(act, watched, seed=7) == first
    twin = make("cadenza/ReachArm6-v0", 2, seed=1)
    twin.reset(1)
    np.testing.assert_array_equal(again, [twin.step(a).obs for a in u])
    assert evaluate(act, watched, seed=8) != first
    assert len(alone) == 20
