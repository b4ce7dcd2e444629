"""Cost of one Symphony update against its GEMM floor (spec/symphony.md §10).

    python benches/symphony.py [--quick] [--json FILE]
    python benches/symphony.py curves …     the learning table, see `curves.py`

The floor is the update's own matrix products, by torch.mm on preallocated tensors of the true shapes.
Blocks of both alternate in one process, on one thread; the figures are medians of process CPU time, the
ratio is the result. When CADENZA_SYMPHONY_OFFICIAL names a clone of SuspensionRailway/symphony, its update
runs in the same alternation.
"""

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

import common
import curves
from cadenza.algos.symphony import Symphony
from cadenza.algos.symphony_config import SymphonyConfig
from common import Report


@dataclass(frozen=True)
class Case:
    """One size: preset overrides, task sizes, updates per block, and the bars (None: reported only)."""

    preset: str
    obs_dim: int
    action_dim: int
    updates: int
    floor_bar: float | None
    official_bar: float | None
    overrides: tuple[tuple[str, int], ...] = ()


# the Humanoid replay is cut to 10 tiles: the whole 1.46 GB is the business of a buffer benchmark
CASES = {
    "s3-hopper": Case("s3", 11, 3, 3, 1.6, 1.2),
    "s3-humanoid": Case("s3", 348, 17, 3, 1.6, 1.2, (("tiles", 10),)),
    "small-hopper": Case("small", 11, 3, 12, 2.2, None),
    "tiny-pendulum": Case("tiny", 4, 1, 60, None, 1.8),
    "demo-reach": Case(
        "tiny", 29, 6, 150, None, None, (("hidden", 64), ("explore_steps", 4096), ("tiles", 16))
    ),
}


def agent(case: Case) -> Symphony:
    """An agent of that size with a replay full of random transitions."""
    config = SymphonyConfig.from_preset(case.preset, **dict(case.overrides))
    high = np.ones(case.action_dim)
    learner = Symphony(config, case.obs_dim, -high, high, seed=0)
    n, rng = config.explore_steps, np.random.default_rng(0)
    obs = rng.standard_normal((n, case.obs_dim), dtype=np.float32)
    action = rng.uniform(-1, 1, (n, case.action_dim)).astype(np.float32)
    learner.buffer.add(obs, action, rng.standard_normal(n), obs, np.full(n, 0.99), np.zeros(n, bool))
    return learner


def gemm_floor(config: SymphonyConfig, obs_dim: int, action_dim: int) -> tuple[Callable[[], None], float]:
    """The matrix products of one update as one call, and their number of floating-point operations."""
    rows, h, critic_in = config.nodes, config.hidden, obs_dim + action_dim
    shapes: list[tuple[int, int, int]] = []  # (m, k, n) of [m, k] @ [k, n]

    def block(f_in: int, f_out: int, *, weights: bool, inputs: int) -> None:
        layers = ((f_in, h), (h, h), (h, f_out))
        shapes.extend((rows, a, b) for a, b in layers)  # forward
        if weights:
            shapes.extend((b, rows, a) for a, b in layers)  # dW
        shapes.extend((rows, b, a) for a, b in layers[1:])  # dX
        if inputs:
            shapes.append((rows, h, inputs))

    block(obs_dim, 3 * action_dim, weights=True, inputs=0)
    for _ in range(3):
        block(critic_in, h // 4, weights=True, inputs=0)
        block(critic_in, h // 4, weights=False, inputs=action_dim)
    products = [(torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)) for m, k, n in shapes]

    def run() -> None:
        for a, b, out in products:
            torch.mm(a, b, out=out)

    return run, sum(2.0 * m * k * n for m, k, n in shapes)


def official(case: Case, config: SymphonyConfig) -> Callable[[], object] | None:
    """The official update on the same sizes, or None without a clone."""
    clone = os.environ.get("CADENZA_SYMPHONY_OFFICIAL")
    if clone is None:
        return None
    spec = importlib.util.spec_from_file_location("official_symphony", Path(clone) / "symphony.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    n_s, n_a, n = case.obs_dim, case.action_dim, config.explore_steps
    theirs = module.Symphony(n * config.tiles, n_s, n_a, config.hidden, "cpu", torch.ones(n_a), config.lr)
    memory, generator = theirs.replay_buffer, torch.Generator().manual_seed(0)
    for store in (memory.states, memory.actions, memory.rewards, memory.next_states):
        store[:n] = torch.randn(store[:n].shape, generator=generator)
    memory.not_dones_gamma[:n] = 0.99
    memory.length = n
    memory.norm_fill(config.tiles)
    return theirs.train


def measure(quick: bool) -> Report:
    """Every case; only the two small ones when quick."""
    report = Report("symphony", "process CPU time, one thread, medians of alternating blocks")
    report.notes.append(f"torch {torch.__version__}")
    for name, case in CASES.items():
        if quick and case.preset != "tiny":
            continue
        learner = agent(case)
        floor, flop = gemm_floor(learner.config, case.obs_dim, case.action_dim)
        contenders: dict[str, Callable[[], object]] = {"update": learner.update, "floor": floor}
        theirs = official(case, learner.config)
        if theirs is not None:
            contenders["official"] = theirs
        for run in contenders.values():
            common.cpu_seconds(run, 2 + case.updates // 4)
        count = 3 if quick else case.updates
        timed = {key: partial(common.cpu_seconds, run, count) for key, run in contenders.items()}
        seconds = common.interleave(timed, 3 if quick else 9)
        ms = {key: 1e3 * float(np.median(t)) for key, t in seconds.items()}
        figures = f"{ms['update']:.3f} / {ms['floor']:.3f} ms; {flop / 1e6 / ms['floor']:.0f} GFLOP/s"
        update = seconds["update"]
        report.ratio(
            f"{name}, update / GEMM floor", update, seconds["floor"], case.floor_bar, figures=figures
        )
        if theirs is None:
            why = "not installed: set CADENZA_SYMPHONY_OFFICIAL to a clone"
            report.missing(f"{name}, official / update", why, case.official_bar, at_least=True)
        else:
            figures = f"{ms['official']:.3f} / {ms['update']:.3f} ms"
            report.ratio(
                f"{name}, official / update", seconds["official"], update, case.official_bar,
                at_least=True, figures=figures,
            )  # fmt: skip
    return report


if __name__ == "__main__":
    if sys.argv[1:2] == ["curves"]:
        curves.main(sys.argv[2:])
    else:
        common.main(measure, __doc__)
