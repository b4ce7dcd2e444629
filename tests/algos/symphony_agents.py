"""Small agents and transitions for the Symphony tests."""

import numpy as np
import torch

from cadenza.algos.symphony import Symphony
from cadenza.algos.symphony_config import SymphonyConfig


def agent(hidden=8, obs_dim=3, action_dim=2, *, seed=0, dtype=torch.float64, bounds=1.0, info=None, **config):
    config = {"explore_steps": 32, "tiles": 2, "lr": 1e-3} | config
    high = np.full(action_dim, bounds)
    return Symphony(
        SymphonyConfig(hidden=hidden, **config), obs_dim, -high, high, seed=seed, dtype=dtype, env_info=info
    )


def set_actor_output(a: Symphony, x) -> None:
    """Make the actor return x = (A, S, B heads) for every observation."""
    a.set_blocks(
        {"actor.linear2.weight": np.zeros((len(x), a.config.hidden)), "actor.linear2.bias": np.array(x)}
    )


def explore(a: Symphony, seed=0, k=4, steps=None, terminal=0.1) -> None:
    """Feed random transitions: the exploration phase, or `steps` vector steps."""
    rng = np.random.default_rng(seed)
    for _ in range(a.config.explore_steps // k if steps is None else steps):
        obs, following = rng.standard_normal((2, k, a.obs_dim)).astype(np.float32)
        action = a.act(obs, explore=True)
        a.observe(obs, action, rng.standard_normal(k), following, rng.random(k) < terminal, np.zeros(k, bool))
