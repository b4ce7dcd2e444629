"""Cost of one SAC update against stable-baselines3 and against its GEMM floor (spec/training.md §7).

    python benches/sac_update.py [--quick] [--json FILE]

Equal networks (2×256), batch (256) and update: one step of both critics, actor, temperature and targets. The
floor is the update's own matrix products by torch.mm on preallocated tensors of the true shapes.
"""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import torch

import common
import peers
from cadenza.algos.sac import CRITICS, Sac
from cadenza.algos.sac_config import SacConfig
from common import Report

# name: n_s, n_a, bar against the floor
CASES = {"humanoid": (348, 17, 1.4), "walker": (17, 6, 2.0)}
PEER_BAR = 0.76
ROWS = 20_000


class Space(gymnasium.Env):
    """Nothing but spaces, which is all that an update asks of an environment."""

    def __init__(self, obs_dim: int, action_dim: int) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (obs_dim,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (action_dim,), np.float32)


def ours(obs_dim: int, action_dim: int) -> Sac:
    """Our agent with `ROWS` random transitions."""
    high, rng = np.ones(action_dim), np.random.default_rng(0)
    agent = Sac(SacConfig(capacity=ROWS), obs_dim, -high, high, seed=0)
    obs = rng.standard_normal((ROWS, obs_dim), dtype=np.float32)
    action = rng.uniform(-1, 1, (ROWS, action_dim)).astype(np.float32)
    agent.buffer.add(obs, action, rng.standard_normal(ROWS), obs, np.full(ROWS, 0.99))
    return agent


def theirs(module: ModuleType, obs_dim: int, action_dim: int) -> Any:
    """Their agent with `ROWS` random transitions."""
    model = module.SAC("MlpPolicy", Space(obs_dim, action_dim), buffer_size=ROWS, device="cpu", seed=0)
    model.set_logger(module.common.logger.Logger(None, []))
    memory, rng = model.replay_buffer, np.random.default_rng(0)
    for store in (memory.observations, memory.next_observations, memory.rewards):
        store[:] = rng.standard_normal(store.shape)
    memory.actions[:] = rng.uniform(-1, 1, memory.actions.shape)
    memory.full = True
    return model


def gemm_floor(config: SacConfig, obs_dim: int, action_dim: int) -> tuple[Callable[[], None], float]:
    """The matrix products of one update as one call, and their number of floating-point operations."""
    rows, h = config.batch, config.hidden
    shapes: list[tuple[int, int, int]] = []  # (m, k, n) of [m, k] @ [k, n]

    def network(f_in: int, f_out: int, *, weights: bool, through: bool, inputs: int = 0) -> None:
        layers = ((f_in, h), (h, h), (h, f_out))
        shapes.extend((rows, a, b) for a, b in layers)  # forward
        if weights:
            shapes.extend((b, rows, a) for a, b in layers)  # dW
        if through:
            shapes.extend((rows, b, a) for a, b in layers[1:])  # dX
        if inputs:
            shapes.append((rows, h, inputs))

    network(obs_dim, 2 * action_dim, weights=True, through=True)  # actor on s
    network(obs_dim, 2 * action_dim, weights=False, through=False)  # actor on s′
    for _ in range(CRITICS):
        network(obs_dim + action_dim, 1, weights=True, through=True)
        network(obs_dim + action_dim, 1, weights=False, through=False)  # target
        network(obs_dim + action_dim, 1, weights=False, through=True, inputs=action_dim)  # for the actor
    products = [(torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)) for m, k, n in shapes]

    def run() -> None:
        for a, b, out in products:
            torch.mm(a, b, out=out)

    return run, sum(2.0 * m * k * n for m, k, n in shapes)


def measure(quick: bool) -> Report:
    """Both sizes."""
    report = Report("sac_update", "process CPU time, one thread, medians of alternating blocks")
    try:
        module, why = peers.stable_baselines3(), ""
    except RuntimeError as error:
        module, why = None, str(error)
    for name, (obs_dim, action_dim, bar) in CASES.items():
        agent = ours(obs_dim, action_dim)
        floor, flop = gemm_floor(agent.config, obs_dim, action_dim)
        runs: dict[str, Callable[[], object]] = {"update": agent.update, "floor": floor}
        if module is not None:
            runs["theirs"] = partial(theirs(module, obs_dim, action_dim).train, 1, agent.config.batch)
        for run in runs.values():
            common.cpu_seconds(run, 3)
        timed = {key: partial(common.cpu_seconds, run, 2 if quick else 10) for key, run in runs.items()}
        seconds = common.interleave(timed, 3 if quick else 11)
        ms = {key: 1e3 * float(np.median(t)) for key, t in seconds.items()}
        figures = f"{ms['update']:.3f} / {ms['floor']:.3f} ms; {flop / 1e6 / ms['floor']:.0f} GFLOP/s"
        report.ratio(
            f"{name}, update / GEMM floor", seconds["update"], seconds["floor"], bar, figures=figures
        )
        title = f"{name}, update / {peers.named('stable-baselines3')}"
        if "theirs" in seconds:
            figures = f"{ms['update']:.3f} / {ms['theirs']:.3f} ms"
            report.ratio(title, seconds["update"], seconds["theirs"], PEER_BAR, figures=figures)
        else:
            report.missing(title, why, PEER_BAR)
    return report


if __name__ == "__main__":
    common.main(measure, __doc__)
