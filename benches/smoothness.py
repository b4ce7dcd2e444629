"""How gently the policies of the learning table move, before and after the runtime's limiter (spec §9).

    python benches/symphony.py smoothness [--runs FOLDER] [--out FOLDER]

Takes the final policies of the Hopper and Walker2d runs that `curves` has finished and plays 20 episodes of
each three times: as it is, through the runtime's limiter, and with exploration noise. Figures are of
normalised actions u in [-1, 1], per joint, then averaged. The limiter is the runtime's own, from the
extension: u is its position target, held to `RATE` and `ACCELERATION`.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from cadenza import _native
from cadenza.algos import Algorithm
from cadenza.tasks import make
from cadenza.tasks.task import Environment
from cadenza.train import load_agent
from curves import LONG, ROOT, TABLE, Experiment, folder

EPISODES, SEED = 20, 30_000
# Of u: the full range of 2 in 0.2 s, and a fifth of that time to reach the rate.
RATE, ACCELERATION = 10.0, 250.0
Act = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Smoothness:
    """One policy in one way of playing it, and a row of the CSV.

    Attributes:
        task: gymnasium id.
        algorithm: algorithm.
        seed: seed of the run.
        played: "plain", "limited" or "noisy".
        return_mean: mean return.
        action_change: mean |Δu| per step.
        variation: Σ|Δu| per second of simulated time.
        p95: 95th percentile of |u|.
        power: mean u².
        training_episodes: episodes that ended in 100 000 training steps; more are more falls.
    """

    task: str
    algorithm: str
    seed: int
    played: str
    return_mean: float
    action_change: float
    variation: float
    p95: float
    power: float
    training_episodes: float


class Limiter:
    """The runtime's limiter on normalised actions of n environments.

    Args:
        n: environments.
        joints: actions of each.
        dt: seconds of a step, which is one control tick.
    """

    def __init__(self, n: int, joints: int, dt: float) -> None:
        names = [f"u{i}" for i in range(joints)]
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "robot.toml"
            path.write_text(_robot(names, dt))
            robot = _native.Robot(str(path))
        self._batch = _native.ActionBatch(json.dumps(_manifest(names, dt)), robot, n)
        self._u, self._out, self._rate = (np.zeros((n, joints)), *np.zeros((2, n, 1, joints)))
        self._batch.reset(np.arange(n, dtype=np.int64), self._u)

    def __call__(self, u: np.ndarray) -> np.ndarray:
        """What the limiter makes of the wanted actions [n, joints]; it follows its own last answer."""
        self._batch.step(np.clip(u, -1.0, 1.0).astype(np.float32), self._u, self._out, self._rate)
        self._u = np.ascontiguousarray(np.clip(self._out[:, 0], -1.0, 1.0))
        return self._u.copy()


def play(env: Environment, act: Act, limiter: Limiter | None) -> tuple[float, list[np.ndarray]]:
    """One episode in each environment: the mean return, and the actions u [T, joints] of each."""
    centre, span = (env.action_high + env.action_low) / 2.0, (env.action_high - env.action_low) / 2.0
    obs, alive = env.reset(SEED), np.ones(env.n, bool)
    returns, taken = np.zeros(env.n), [[] for _ in range(env.n)]
    while alive.any():
        u = (act(obs) - centre) / span
        if limiter is not None:
            u = limiter(u)
        t = env.step((centre + span * u).astype(np.float32))
        for i in np.flatnonzero(alive):
            taken[i].append(u[i])
        returns[alive] += t.reward[alive]
        obs = t.obs
        alive &= ~t.done
    return float(returns.mean()), [np.array(u) for u in taken]


def measure(e: Experiment, seed: int, runs: Path) -> list[Smoothness]:
    """The three ways of playing a finished run's policy."""
    at = folder(runs, e, seed)
    config, agent, steps = load_agent(at)
    with (at / "metrics.csv").open(newline="") as file:
        ended = sum(float(row["value"]) for row in csv.DictReader(file) if row["name"] == "train/episodes")
    rows = []
    for played in ("plain", "limited", "noisy"):
        env = make(config.task, EPISODES, seed=SEED)
        limiter = Limiter(env.n, len(env.action_low), env.dt) if played == "limited" else None
        value, episodes = play(env, _policy(agent, explore=played == "noisy"), limiter)
        env.close()
        changes = np.concatenate([np.abs(np.diff(u, axis=0)) for u in episodes])
        seconds = env.dt * sum(len(u) for u in episodes)
        size = np.abs(np.concatenate(episodes))
        rows.append(
            Smoothness(
                e.task, e.algorithm, seed, played, value, float(changes.mean()),
                float(changes.sum() / changes.shape[1] / seconds),
                float(np.percentile(size, 95, axis=0).mean()), float(np.square(size).mean()),
                ended * LONG / steps,
            )
        )  # fmt: skip
    return rows


def page(rows: list[Smoothness]) -> str:
    """The smoothness table as Markdown: means over seeds."""
    lines = [
        "# Smoothness",
        "",
        f"Final policies, {EPISODES} episodes each, mean over seeds; u is the normalised action. «limited»",
        f"goes through the runtime's limiter at a rate of {RATE:g} 1/s and an acceleration of",
        f"{ACCELERATION:g} 1/s², «noisy» is what training does. Compare actions only between policies of",
        "like return: one that stands still is smooth. `python benches/symphony.py smoothness` writes this",
        "page from the runs of the learning table, and `smoothness.csv` with every seed.",
        "",
        "| task | algorithm | seeds | played | return | mean \\|Δu\\| | Σ\\|Δu\\| per s | p95 \\|u\\| "
        "| mean u² | episodes in 100k training steps |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((r.task, r.algorithm, r.played) for r in rows):
        mine = [r for r in rows if (r.task, r.algorithm, r.played) == key]
        means = np.mean([astuple(r)[4:] for r in mine], axis=0)
        figures = " | ".join(f"{x:.3g}" if i else f"{x:.0f}" for i, x in enumerate(means[:-1]))
        lines.append(f"| {key[0]} | {key[1]} | {len(mine)} | {key[2]} | {figures} | {means[-1]:.0f} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> None:
    """Measures every finished run; see the module."""
    parser = argparse.ArgumentParser(
        prog="symphony.py smoothness",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "symphony", help="folder of the runs")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results", help="folder of the results")
    args = parser.parse_args(argv)
    rows = []
    for e in TABLE:
        for seed in range(e.seeds if e.steps >= LONG else 0):
            outcome = folder(args.runs, e, seed) / "outcome.txt"
            if outcome.exists() and outcome.read_text().strip() == "trained":
                rows += measure(e, seed, args.runs)
            else:
                print(f"{e.label}, seed {seed}: not trained")
    if not rows:
        parser.error(f"{args.runs} holds no finished run of {LONG} steps: train with `curves` first")
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "smoothness.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([f.name for f in fields(Smoothness)])
        writer.writerows([f"{x:.6g}" if isinstance(x, float) else x for x in astuple(row)] for row in rows)
    (args.out / "smoothness.md").write_text(page(rows))


def _policy(agent: Algorithm, *, explore: bool) -> Act:
    return lambda obs: agent.act(obs, explore=explore)


def _robot(names: list[str], dt: float) -> str:
    """A robot whose joint positions are the actions."""
    joints = "".join(
        f'[[joint]]\nname = "{name}"\nhome = 0.0\ngains = {{ kp_max = 1.0, kd_max = 1.0, kd_damp = 1.0 }}\n'
        f"limits = {{ position = [-1.0, 1.0], velocity = {RATE}, acceleration = {ACCELERATION}, "
        "effort = 1.0 }\n"
        for name in names
    )
    return (
        'schema = 1\nname = "actions"\n[device]\nkind = "sim"\n'
        f"[rates]\ncontrol_hz = {1.0 / dt:.9g}\n"
        '[safety]\nstale_after = "1s"\nlost_after = "2s"\ntrack_max = 10.0\nhold_ticks = 25\n'
        'gain_ramp = "0s"\nauthority_ramp = "0s"\nstart = "measured"\ntorque_mode = "gain"\n'
        f'estop_level = "damp"\nsoftstop_damp = "1s"\n{joints}'
    )


def _manifest(names: list[str], dt: float) -> dict[str, object]:
    """A policy that decides at every control tick and whose actions are those positions."""
    n = len(names)
    joint = {"default": 0.0, "kp": 1.0, "kd": 1.0, "position": [-1.0, 1.0]}
    joint |= {"velocity_max": RATE, "effort_max": 1.0}
    return {
        "format": 1, "name": "actions", "files": {}, "robot": {"name": "actions", "model_sha256": "0" * 64},
        "rates": {"policy_dt": dt, "control_dt": dt, "physics_dt": dt},
        "joints": [{"name": name, **joint} for name in names],
        "frames": [],
        "observation": {
            "size": n, "interleave": "term",
            "terms": [{"name": "q", "source": "joint_pos", "size": n, "offset": 0.0, "scale": 1.0}],
        },
        "normalizer": {"where": "none"},
        "action": {
            "kind": "position", "joints": names, "raw_clip": [-1.0, 1.0], "scale": {"*": 1.0},
            "offset": {"*": 0.0}, "previous": "raw", "reset": [0.0] * n,
        },
        "chunk": {"mode": "none", "horizon": 1, "execute": 1, "on_exhausted": "hold", "seam": "replace"},
        "functions": {}, "carry": {}, "monitors": [], "commands": [], "weights": "f32", "provenance": {},
        "in_graph": {"normalize": False, "squash": True, "action_scale": False, "action_offset": False},
    }  # fmt: skip
