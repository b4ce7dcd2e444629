"""The official Symphony code beside ours: how it is loaded, and the gate of spec/symphony.md §8.

    CADENZA_SYMPHONY_OFFICIAL=CLONE python benches/symphony.py gate [--out FOLDER]

The gate: our `paper_mode` and the official code learn the same task in the same loop, with equal sizes,
bounds and evaluations; their mean returns at the end must differ by at most one pooled standard deviation
over seeds. Every seed that ends is in `symphony_gate.csv`; a seed that is there is not run again.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.util
import io
import os
import random
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch

from cadenza.algos import EnvInfo
from cadenza.algos.symphony import Symphony
from cadenza.algos.symphony_config import SymphonyConfig
from cadenza.evaluate import evaluate
from cadenza.tasks import make
from cadenza.tasks.task import Environment, Transition

TASK, PRESET, SEEDS, STEPS, EVERY = "gym:InvertedDoublePendulum-v5", "tiny", 3, 10_000, 2_500
EVAL_SEED, EPISODES = 20_000, 10
COLUMNS = ("code", "seed", "steps", "return_mean", "return_std", "low", "high")


def clone() -> Path | None:
    """The clone that CADENZA_SYMPHONY_OFFICIAL names; None without one."""
    path = os.environ.get("CADENZA_SYMPHONY_OFFICIAL")
    return None if path is None else Path(path)


def load(path: Path) -> ModuleType:
    """The official `symphony.py`; its `train.py`, which opens a window, is never touched."""
    spec = importlib.util.spec_from_file_location("official_symphony", path / "symphony.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(module: ModuleType, config: SymphonyConfig, obs_dim: int, action_dim: int) -> Any:
    """An official agent of those sizes."""
    capacity = config.explore_steps * config.tiles
    return module.Symphony(
        capacity, obs_dim, action_dim, config.hidden, "cpu", torch.ones(action_dim), config.lr
    )


class Learner(Protocol):
    """What the gate's loop needs: one environment, one step at a time."""

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray: ...
    def learn(self, obs: np.ndarray, action: np.ndarray, t: Transition) -> None: ...


class Ours:
    """Our agent in `paper_mode`."""

    def __init__(self, config: SymphonyConfig, env: Environment, seed: int) -> None:
        info = EnvInfo(task=env.name, max_episode_steps=env.episode_steps)
        low, high = env.action_low, env.action_high
        self._agent = Symphony(config, env.obs_size, low, high, seed=seed, env_info=info)
        self.act = self._agent.act

    def learn(self, obs: np.ndarray, action: np.ndarray, t: Transition) -> None:
        """Store a step and take the updates that are due."""
        self._agent.observe(obs, action, t.reward, t.next_obs, t.terminated, t.truncated)
        for _ in range(self._agent.updates_due(1)):
            self._agent.update()


class Theirs:
    """The official agent, with the schedule of its own training script."""

    def __init__(self, module: ModuleType, config: SymphonyConfig, env: Environment, seed: int) -> None:
        torch.manual_seed(seed)
        random.seed(seed)
        self._agent = build(module, config, env.obs_size, len(env.action_low))
        self._config, self._limit = config, env.episode_steps or 0
        self._stored = self._episode = 0

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions for [k, n_s]; near an episode's limit the learned part is taken away, after exploration."""
        after = self._stored >= self._config.explore_steps
        falls = explore and after and self._episode + 1 >= self._limit - self._config.final_fall_steps
        with torch.no_grad():
            action, _, _ = self._agent.nets.online.actor(torch.from_numpy(obs), not falls, explore)
        return action.numpy()

    def learn(self, obs: np.ndarray, action: np.ndarray, t: Transition) -> None:
        """Store a step and take the updates that are due."""
        self._agent.replay_buffer.add(obs[0], action[0], t.reward[0], t.next_obs[0], t.terminated[0])
        self._stored += 1
        self._episode = 0 if t.done[0] else self._episode + 1
        if self._stored == self._config.explore_steps:
            with contextlib.redirect_stdout(io.StringIO()):
                self._agent.replay_buffer.norm_fill(self._config.tiles)
        if self._stored >= self._config.explore_steps:
            for _ in range(self._config.updates_per_step):
                self._agent.train()


def run(learner: Learner, env: Environment, eval_env: Environment) -> list[tuple[Any, ...]]:
    """The loop of both: (steps, mean, std, low, high) of every evaluation."""
    obs, rows = env.reset(), []
    for step in range(1, STEPS + 1):
        action = learner.act(obs, explore=True)
        t = env.step(action)
        learner.learn(obs, action, t)
        obs = t.obs
        if step % EVERY == 0:
            e = evaluate(lambda obs: learner.act(obs, explore=False), eval_env, seed=EVAL_SEED)
            rows.append((step, e.return_mean, e.return_std, e.return_low, e.return_high))
    return rows


def main(argv: list[str]) -> None:
    """Runs the seeds that are missing and says whether the gate holds."""
    parser = argparse.ArgumentParser(
        prog="symphony.py gate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out = Path(__file__).resolve().parents[1] / "docs" / "results"
    parser.add_argument("--out", type=Path, default=out, help="folder of the results")
    args = parser.parse_args(argv)
    path = clone()
    if path is None:
        parser.error("CADENZA_SYMPHONY_OFFICIAL must name a clone of SuspensionRailway/symphony")
    torch.set_num_threads(1)
    module, table = load(path), args.out / "symphony_gate.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    if not table.exists():
        table.write_text(",".join(COLUMNS) + "\n")
    config = SymphonyConfig.from_preset(PRESET, paper_mode=True)
    for seed in range(SEEDS):
        for code in ("ours", "official"):
            if any((row["code"], row["seed"]) == (code, str(seed)) for row in _read(table)):
                continue
            env, eval_env = make(TASK, 1, seed=seed), make(TASK, EPISODES, seed=EVAL_SEED)
            learner = Ours(config, env, seed) if code == "ours" else Theirs(module, config, env, seed)
            rows = run(learner, env, eval_env)
            with table.open("a", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerows(
                    [code, seed, step, *(f"{x:.6g}" for x in figures)] for step, *figures in rows
                )
            print(f"{code}, seed {seed}: {rows[-1][1]:.4g} at {STEPS}", flush=True)
    print(verdict(_read(table)))


def verdict(rows: list[dict[str, str]]) -> str:
    """Means of both at the end, their difference and the pooled standard deviation (n - 1)."""
    last = max(int(row["steps"]) for row in rows)
    ends = {
        code: np.array(
            [float(r["return_mean"]) for r in rows if r["code"] == code and int(r["steps"]) == last]
        )
        for code in ("ours", "official")
    }
    ours, theirs = ends["ours"], ends["official"]
    pooled = float(np.sqrt((ours.var(ddof=1) + theirs.var(ddof=1)) / 2.0))
    difference = abs(float(ours.mean() - theirs.mean()))
    return (
        f"at {last}: ours {ours.mean():.4g}, official {theirs.mean():.4g}, difference {difference:.3g}, "
        f"pooled standard deviation {pooled:.3g}: {'met' if difference <= pooled else 'missed'}"
    )


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
