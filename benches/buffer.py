"""Replays against stable-baselines3's ReplayBuffer: storing and drawing (spec/training.md §7).

    python benches/buffer.py [--quick] [--json FILE]

One transition is stored per call, 256 are drawn per call, out of full rings of equal sizes; drawn batches are
torch tensors on both sides. The bar is for the uniform replay; what fading costs more stands beside it, its
own bars are those against the official code in `symphony.py`.
"""

from collections.abc import Callable
from functools import partial

import gymnasium
import numpy as np
import torch

import common
import peers
from cadenza.buffer import Draw, FadingReplay, UniformReplay
from common import Report

CASES = {"humanoid": (348, 17, 100_000), "walker": (17, 6, 500_000)}
BATCH, BAR = 256, 0.5


def measure(quick: bool) -> Report:
    """Both sizes; smaller rings when quick."""
    report = Report("buffer", "process CPU time, one thread, medians of alternating blocks")
    for name, (obs_dim, action_dim, capacity) in CASES.items():
        capacity = capacity // 10 if quick else capacity
        rng = np.random.default_rng(0)
        block = (
            rng.standard_normal((capacity, obs_dim), dtype=np.float32),
            rng.uniform(-1, 1, (capacity, action_dim)).astype(np.float32),
            rng.standard_normal(capacity).astype(np.float32),
        )
        obs, action, reward = block
        going_on = np.full(capacity, 0.99, np.float32)
        uniform = UniformReplay(obs_dim, action_dim, capacity)
        uniform.add(obs, action, reward, obs, going_on)
        fading = FadingReplay(obs_dim, action_dim, capacity // 10, 10)
        fading.add(*(x[: capacity // 10] for x in (obs, action, reward, obs, going_on, going_on > 1.0)))
        draw = Draw(BATCH, obs_dim, action_dim, torch.float32, torch.device("cpu"))
        generator = torch.Generator().manual_seed(0)
        one = (obs[:1], action[:1], reward[:1], obs[:1], going_on[:1])
        runs: dict[str, Callable[[], object]] = {
            "uniform add": partial(uniform.add, *one),
            "fading add": partial(fading.add, *one, np.zeros(1, bool)),
            "uniform sample": partial(draw.sample, uniform, generator),
            "fading sample": partial(draw.sample, fading, generator),
        }
        why = ""
        try:
            runs |= _theirs(obs, action, reward)
        except RuntimeError as error:
            why = str(error)
        for run in runs.values():
            common.cpu_seconds(run, 20)
        timed = {key: partial(common.cpu_seconds, run, 50 if quick else 400) for key, run in runs.items()}
        seconds = common.interleave(timed, 3 if quick else 11)
        us = {key: 1e6 * float(np.median(t)) for key, t in seconds.items()}
        for key in ("uniform add", "fading add", "uniform sample", "fading sample"):
            what = f"{name}, {key} / {peers.named('stable-baselines3')}"
            bar = BAR if key.startswith("uniform") else None
            other = "their " + key.split()[1]
            if other in seconds:
                figures = f"{us[key]:.1f} / {us[other]:.1f} µs"
                report.ratio(what, seconds[key], seconds[other], bar, figures=figures)
            else:
                report.missing(what, why, bar)
    return report


def _theirs(obs: np.ndarray, action: np.ndarray, reward: np.ndarray) -> dict[str, Callable[[], object]]:
    module = peers.stable_baselines3()

    def space(size: int) -> gymnasium.spaces.Box:
        return gymnasium.spaces.Box(-1.0, 1.0, (size,), np.float32)

    ring = module.common.buffers.ReplayBuffer(
        len(obs), space(obs.shape[1]), space(action.shape[1]), device="cpu"
    )
    ring.observations[:, 0], ring.next_observations[:, 0] = obs, obs
    ring.actions[:, 0], ring.rewards[:, 0], ring.full = action, reward, True
    one, done = (obs[:1], obs[:1], action[:1], reward[:1]), np.zeros(1)
    return {
        "their add": lambda: ring.add(*one, done, [{}]),
        "their sample": lambda: ring.sample(BATCH),
    }


if __name__ == "__main__":
    common.main(measure, __doc__)
