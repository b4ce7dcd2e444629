"""cadenza.sim.gym: what gymnasium expects of an environment."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import cadenza.sim.gym  # noqa: F401
from cadenza.tasks import TASKS, make


@pytest.mark.filterwarnings("ignore:.*A Box observation space:UserWarning")
@pytest.mark.parametrize("task_id", TASKS)
def test_check_env(task_id):
    check_env(gymnasium.make(task_id).unwrapped)


def test_the_module_registers_the_id():
    env = gymnasium.make("cadenza.sim.gym:cadenza/ReachArm6-v0")
    env.reset(seed=0)
    for _ in range(49):
        assert not env.step(np.zeros(6))[3]
    _, _, terminated, truncated, info = env.step(np.zeros(6))
    assert truncated
    assert not terminated
    assert info["success"] in (True, False)


def test_vector_view_is_the_batch():
    view = gymnasium.make_vec("cadenza/ReachArm6-v0", num_envs=3, vectorization_mode="vector_entry_point")
    batch = make("cadenza/ReachArm6-v0", 3)
    obs, _ = view.reset(seed=4)
    np.testing.assert_array_equal(obs, batch.reset(4))
    assert view.observation_space.shape == (3, 32)
    rng = np.random.default_rng(0)
    for k in range(50):
        u = rng.uniform(-1, 1, (3, 6)).astype(np.float32)
        obs, reward, terminated, truncated, info = view.step(u)
        t = batch.step(u)
        np.testing.assert_array_equal(obs, t.obs)
        np.testing.assert_array_equal(reward, t.reward)
        assert ("final_obs" in info) == (k == 49)
    assert truncated.all()
    assert not terminated.any()
    np.testing.assert_array_equal(info["final_obs"], t.next_obs)
    with pytest.raises(ValueError, match="one seed for the whole batch"):
        view.reset(seed=[1, 2, 3])
