"""What Symphony costs: update, environment step, replay and action (spec/symphony.md §10).

    python benches/symphony.py [--quick] [--json FILE]
    python benches/symphony.py curves …         the learning table, see `curves.py`
    python benches/symphony.py gate …           learning beside the official code, see `official.py`
    python benches/symphony.py smoothness …     the smoothness table, see `smoothness.py`

The floor is the update's own matrix products, by torch.mm on preallocated tensors of the true shapes. The
official code takes part when CADENZA_SYMPHONY_OFFICIAL names a clone of SuspensionRailway/symphony. Blocks of
all alternate in one process, on one thread; the figures are medians of process CPU time, the ratio is the
result. An environment step is one action, one stored transition into a full replay, and the updates that
follow; the environment itself is left out on both sides.
"""

import contextlib
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

import common
import curves
import official
import smoothness
from cadenza.algos.symphony import Symphony
from cadenza.algos.symphony_config import SymphonyConfig
from cadenza.buffer import Draw
from common import Report


@dataclass(frozen=True)
class Case:
    """One size: preset, task sizes, updates per block, the bars (None: reported only), preset overrides."""

    preset: str
    obs_dim: int
    action_dim: int
    updates: int
    floor_bar: float | None
    official_bar: float | None
    step_bar: float | None = None
    add_bar: float | None = None
    overrides: tuple[tuple[str, int], ...] = ()


CASES = {
    "s3-hopper": Case("s3", 11, 3, 3, 1.6, 1.2, 1.25, 1e-3),
    "s3-humanoid": Case("s3", 348, 17, 3, 1.6, 1.2, 3.5),
    "small-hopper": Case("small", 11, 3, 12, 2.2, None),
    "tiny-pendulum": Case("tiny", 4, 1, 60, None, 1.8),
    "demo-reach": Case(
        "tiny", 29, 6, 150, None, None, overrides=(("hidden", 64), ("explore_steps", 4096), ("tiles", 16))
    ),
}
SAMPLE_BAR, ACT_BAR = 0.5, 1.2


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


def official_agent(case: Case, config: SymphonyConfig) -> Any | None:
    """The official agent of the same sizes with a full replay, or None without a clone."""
    path = official.clone()
    if path is None:
        return None
    theirs = official.build(official.load(path), config, case.obs_dim, case.action_dim)
    memory, generator, n = theirs.replay_buffer, torch.Generator().manual_seed(0), config.explore_steps
    for store in (memory.states, memory.actions, memory.rewards, memory.next_states):
        store[:n] = torch.randn(store[:n].shape, generator=generator)
    memory.not_dones_gamma[:n] = 0.99
    memory.length = n
    with contextlib.redirect_stdout(io.StringIO()):
        memory.norm_fill(config.tiles)
    return theirs


def contenders(case: Case, learner: Symphony, theirs: Any | None) -> dict[str, tuple[Callable, int]]:
    """What is timed, with the calls of one block."""
    rng, config = np.random.default_rng(1), learner.config
    obs = rng.standard_normal((1, case.obs_dim)).astype(np.float32)
    zero, reward = np.zeros(1, bool), np.ones(1)
    draw = Draw(config.nodes, case.obs_dim, case.action_dim, torch.float32, torch.device("cpu"))
    generator, forward = torch.Generator().manual_seed(0), learner.deploy_module()

    def step() -> None:
        action = learner.act(obs, explore=True)
        learner.observe(obs, action, reward, obs, zero, zero)
        for _ in range(config.updates_per_step):
            learner.update()

    @torch.inference_mode()
    def plain_forward() -> np.ndarray:
        return forward(torch.from_numpy(obs)).numpy()

    row = (obs, np.zeros((1, case.action_dim), np.float32), reward, obs, reward, zero)
    steps = max(1, case.updates // 3)
    runs: dict[str, tuple[Callable, int]] = {
        "update": (learner.update, case.updates),
        "step": (step, steps),
        "add": (lambda: learner.buffer.add(*row), 1000),
        "sample": (lambda: draw.sample(learner.buffer, generator), 100),
        "act": (lambda: learner.act(obs, explore=False), 300),
        "forward": (plain_forward, 300),
    }
    if theirs is None:
        return runs
    memory, flat = theirs.replay_buffer, (obs[0], row[1][0], 1.0, obs[0], False)

    def their_step() -> None:
        action = theirs.select_action(obs[0])
        memory.add(obs[0], action, 1.0, obs[0], False)
        for _ in range(config.updates_per_step):
            theirs.train()

    return runs | {
        "official update": (theirs.train, case.updates),
        "official step": (their_step, steps),
        "official add": (lambda: memory.add(*flat), 3),
        "official sample": (lambda: memory.sample(config.nodes), 20),
    }


def measure(quick: bool) -> Report:
    """Every case; only the two small ones when quick."""
    report = Report("symphony", "process CPU time, one thread, medians of alternating blocks")
    report.notes.append(f"torch {torch.__version__}")
    for name, case in CASES.items():
        if not quick or case.preset == "tiny":
            measure_case(report, name, case, quick)
    return report


def measure_case(report: Report, name: str, case: Case, quick: bool) -> None:
    """The rows of one size."""
    learner = agent(case)
    floor, flop = gemm_floor(learner.config, case.obs_dim, case.action_dim)
    theirs = official_agent(case, learner.config)
    runs = contenders(case, learner, theirs) | {"floor": (floor, case.updates)}
    for run, count in runs.values():
        common.cpu_seconds(run, 2 + min(count, 100) // 4)
    timed = {
        key: partial(common.cpu_seconds, run, min(count, 3) if quick else count)
        for key, (run, count) in runs.items()
    }
    seconds = common.interleave(timed, 3 if quick else 9)
    ms = {key: 1e3 * float(np.median(t)) for key, t in seconds.items()}

    def row(what: str, over: str, under: str, bar: float | None, *, at_least: bool = False) -> None:
        title = f"{name}, {what}"
        if over not in ms or under not in ms:
            why = "not installed: set CADENZA_SYMPHONY_OFFICIAL to a clone"
            report.missing(title, why, bar, at_least=at_least)
            return
        figures = f"{ms[over]:.4g} / {ms[under]:.4g} ms"
        if under == "floor":
            figures += f"; {flop / 1e6 / ms['floor']:.0f} GFLOP/s"
        report.ratio(title, seconds[over], seconds[under], bar, at_least=at_least, figures=figures)

    row("update / GEMM floor", "update", "floor", case.floor_bar)
    row("official / update", "official update", "update", case.official_bar, at_least=True)
    row("official / environment step", "official step", "step", case.step_bar, at_least=True)
    row("add / official", "add", "official add", case.add_bar)
    row("sample / official", "sample", "official sample", SAMPLE_BAR)
    row("act / torch forward", "act", "forward", ACT_BAR)


COMMANDS = {"curves": curves.main, "gate": official.main, "smoothness": smoothness.main}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        COMMANDS[sys.argv[1]](sys.argv[2:])
    else:
        common.main(measure, __doc__)
