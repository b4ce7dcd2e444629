"""Cost of one Symphony update against its GEMM floor (spec/symphony.md §10).

    python benches/symphony.py [NAME ...]

The floor is the update's own matrix products, by torch.mm on preallocated tensors of the true shapes.
Blocks of both alternate in one process, on one thread; the figures are medians of process CPU time, the
ratio is the result. When CADENZA_SYMPHONY_OFFICIAL names a clone of SuspensionRailway/symphony, its update
runs in the same alternation.
"""

import importlib.util
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cadenza.algos.symphony import Symphony, SymphonyConfig

BLOCKS = 9


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


def cpu_seconds(run: Callable[[], object], count: int) -> float:
    """Process CPU time of one call, averaged over `count`."""
    start = time.process_time()
    for _ in range(count):
        run()
    return (time.process_time() - start) / count


def verdict(ratio: float, bar: float | None, *, at_most: bool) -> str:
    """The ratio beside its bar."""
    if bar is None:
        return f"{ratio:5.2f}  (no bar)"
    met = ratio <= bar if at_most else ratio >= bar
    return f"{ratio:5.2f}  (bar {'≤' if at_most else '≥'} {bar}: {'met' if met else 'missed'})"


def main(names: list[str]) -> None:
    """Measure the named cases, or all."""
    torch.set_num_threads(1)
    unknown = [n for n in names if n not in CASES]
    if unknown:
        sys.exit(f"unknown case {unknown[0]!r}; there are {', '.join(CASES)}")
    print(f"torch {torch.__version__}, 1 thread, medians of {BLOCKS} alternating blocks, process CPU time")
    for name in names or CASES:
        case = CASES[name]
        learner = agent(case)
        floor, flop = gemm_floor(learner.config, case.obs_dim, case.action_dim)
        contenders: dict[str, Callable[[], object]] = {"update": learner.update, "floor": floor}
        theirs = official(case, learner.config)
        if theirs is not None:
            contenders["official"] = theirs
        for run in contenders.values():
            cpu_seconds(run, 2 + case.updates // 4)
        times: dict[str, list[float]] = {key: [] for key in contenders}
        for _ in range(BLOCKS):
            for key, run in contenders.items():
                times[key].append(cpu_seconds(run, case.updates))
        median = {key: float(np.median(t)) for key, t in times.items()}
        speed = flop / median["floor"] / 1e9
        print(f"{name}: {flop / 1e9:.4f} GFLOP per update, floor at {speed:.0f} GFLOP/s")
        print("  " + ", ".join(f"{key} {1e3 * t:.3f} ms" for key, t in median.items()))
        ratio = median["update"] / median["floor"]
        print("  update ÷ floor    " + verdict(ratio, case.floor_bar, at_most=True))
        if theirs is not None:
            ratio = median["official"] / median["update"]
            print("  official ÷ update " + verdict(ratio, case.official_bar, at_most=False))


if __name__ == "__main__":
    main(sys.argv[1:])
