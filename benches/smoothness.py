"""How gently the policies of the learning table move, before and after the runtime's limiter (spec §9).

    python benches/symphony.py smoothness [--runs FOLDER] [--out FOLDER]

Takes the Hopper and Walker2d runs that `curves` has finished: the final policy of each, and the snapshot that
is nearest to equal return, because a policy that stands still is smooth. Equal return is what the weaker
algorithm reaches in the end, in the mean over its seeds. Plays 20 episodes of each policy three times: as it
is, through the runtime's limiter, and with exploration noise. Figures are of normalised actions u in [-1, 1],
per joint, then averaged. The limiter is the runtime's own, from the extension: u is its position target, held
to `RATE` and `ACCELERATION`.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from cadenza import _native
from cadenza.algos.acting import Acting
from cadenza.rundir import RunDir
from cadenza.tasks import make
from cadenza.tasks.task import Environment
from cadenza.train import load_agent, load_snapshot
from curves import LONG, ROOT, TABLE, Experiment, folder

EPISODES, SEED = 20, 30_000
# Of u: the full range of 2 in 0.2 s, and a fifth of that time to reach the rate.
RATE, ACCELERATION = 10.0, 250.0
FINAL, EQUAL = "final", "equal return"
NEAR = 0.1  # of the return: how far from equal is still equal
BAR = "\\|"  # in a table
GOALS = (  # of SAC's, at most
    ("action_change", "mean |Δu|", 0.6), ("variation", "Σ|Δu| per s", 0.6), ("p95", "p95 |u|", 0.8),
    ("falls", "falls", 1.0),
)  # fmt: skip
Act = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Smoothness:
    """One policy in one way of playing it, and a row of the CSV.

    Attributes:
        task: gymnasium id.
        algorithm: algorithm.
        seed: seed of the run.
        policy: "final" or "equal return".
        steps: transitions after which it was taken.
        played: "plain", "limited" or "noisy".
        return_mean: mean return.
        action_change: mean |Δu| per step.
        variation: Σ|Δu| per second of simulated time.
        p95: 95th percentile of |u|.
        power: mean u².
        falls: terminated episodes for 100 000 training steps; NaN for a run that did not count them.
    """

    task: str
    algorithm: str
    seed: int
    policy: str
    steps: int
    played: str
    return_mean: float
    action_change: float
    variation: float
    p95: float
    power: float
    falls: float


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


def returns(at: Path) -> dict[int, float]:
    """Mean return of each evaluation of a run, by transitions."""
    return {step: value for step, name, value in _metrics(at) if name == "eval/return_mean"}


def falls(at: Path, steps: int) -> float:
    """Terminated episodes for 100 000 training steps; NaN where the run did not count them."""
    counts = [value for _, name, value in _metrics(at) if name == "train/terminated"]
    return sum(counts) * LONG / steps if counts else float("nan")


def equal_return(runs: Sequence[tuple[Experiment, Path]]) -> float:
    """The least of the algorithms' final returns, each the mean over its runs."""
    finals: dict[str, list[float]] = {}
    for e, at in runs:
        finals.setdefault(e.label, []).append(list(returns(at).values())[-1])
    return min(float(np.mean(values)) for values in finals.values())


def nearest(at: Path, level: float) -> int | None:
    """Transitions of the snapshot whose return is nearest to `level`; None where none is within `NEAR`."""
    kept = set(RunDir(at).snapshots())
    near = [
        (abs(value - level), step)
        for step, value in returns(at).items()
        if step in kept and abs(value - level) <= NEAR * abs(level)
    ]
    return min(near)[1] if near else None


def measure(e: Experiment, seed: int, at: Path, level: float) -> list[Smoothness]:
    """The ways of playing the policies of a finished run."""
    config, agent, steps = load_agent(at)
    policies: list[tuple[str, int, Acting]] = [(FINAL, steps, agent.acting)]
    step = nearest(at, level)
    if step is None:
        print(f"{e.label}, seed {seed}: no snapshot within {NEAR:.0%} of return {level:.0f}")
    else:
        policies.append((EQUAL, step, load_snapshot(at, step)))
    rows = []
    for policy, taken, acting in policies:
        for played in ("plain", "limited", "noisy"):
            env = make(config.task, EPISODES, seed=SEED)
            limiter = Limiter(env.n, len(env.action_low), env.dt) if played == "limited" else None
            value, episodes = play(env, _act(acting, explore=played == "noisy"), limiter)
            env.close()
            changes = np.concatenate([np.abs(np.diff(u, axis=0)) for u in episodes])
            seconds = env.dt * sum(len(u) for u in episodes)
            size = np.abs(np.concatenate(episodes))
            rows.append(
                Smoothness(
                    e.task, e.algorithm, seed, policy, taken, played, value, float(changes.mean()),
                    float(changes.sum() / changes.shape[1] / seconds),
                    float(np.percentile(size, 95, axis=0).mean()), float(np.square(size).mean()),
                    falls(at, steps),
                )
            )  # fmt: skip
    return rows


def page(rows: list[Smoothness]) -> str:
    """The smoothness table as Markdown: means over seeds."""
    lines = [
        "# Smoothness",
        "",
        f"{EPISODES} episodes of each policy, mean over seeds; u is the normalised action. «{EQUAL}» is the",
        "snapshot nearest to what the weaker algorithm of the task reaches in the end, in the mean over its",
        f"seeds, within {NEAR:.0%}: compare there, since a policy that stands still is smooth. «limited»",
        f"goes through the runtime's limiter at a rate of {RATE:g} 1/s and an acceleration of",
        f"{ACCELERATION:g} 1/s², «noisy» is what training does. Falls are terminated episodes of the whole",
        "training. `python benches/symphony.py smoothness` writes this page from the runs of the learning",
        "table, and `smoothness.csv` with every seed.",
        "",
        "| task | algorithm | seeds | policy | played | return | mean \\|Δu\\| | Σ\\|Δu\\| per s "
        "| p95 \\|u\\| | mean u² | falls in 100k training steps |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for task, algorithm, policy, played in _kinds(rows):
        mine = [r for r in rows if _kind(r) == (task, algorithm, policy, played)]
        value, *figures, fell = _means(mine).values()
        text = " | ".join(f"{x:.3g}" for x in figures)
        fell = "–" if np.isnan(fell) else f"{fell:.0f}"
        lines.append(
            f"| {task} | {algorithm} | {len(mine)} | {policy} | {played} | {value:.0f} | {text} | {fell} |"
        )
    return "\n".join([*lines, *_goals(rows)]) + "\n"


def _goals(rows: list[Smoothness]) -> list[str]:
    """Symphony over SAC at equal return, as played plainly, and whether the goals are met."""
    goals = ", ".join(f"{name} ≤ {goal:g}" for _, name, goal in GOALS)
    lines = ["", f"Symphony / SAC at {EQUAL}, plain; goals: {goals.replace('|', BAR)}", ""]
    lines += ["| task | " + " | ".join(name.replace("|", BAR) for _, name, _ in GOALS) + " |"]
    lines += ["|---" * (1 + len(GOALS)) + "|"]
    for task in dict.fromkeys(r.task for r in rows):
        ours, theirs = (
            [r for r in rows if _kind(r) == (task, algorithm, EQUAL, "plain")]
            for algorithm in ("symphony", "sac")
        )
        cells = ["not yet"] * len(GOALS)
        if ours and theirs:
            a, b = _means(ours), _means(theirs)
            ratios = [(a[name] / b[name] if b[name] else float("nan"), goal) for name, _, goal in GOALS]
            cells = [
                "–" if np.isnan(ratio) else f"{ratio:.2f} {'met' if ratio <= goal else 'missed'}"
                for ratio, goal in ratios
            ]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return lines


def _kind(r: Smoothness) -> tuple[str, str, str, str]:
    return r.task, r.algorithm, r.policy, r.played


def _kinds(rows: list[Smoothness]) -> list[tuple[str, str, str, str]]:
    """In order, the policies of a task beside each other."""
    order = {(task, policy): None for r in rows for task, policy in [(r.task, r.policy)]}
    kinds = dict.fromkeys(_kind(r) for r in rows)
    return [k for task, policy in order for k in kinds if (k[0], k[2]) == (task, policy)]


def _means(rows: list[Smoothness]) -> dict[str, float]:
    names = [f.name for f in fields(Smoothness)][6:]
    return dict(zip(names, np.mean([astuple(r)[6:] for r in rows], axis=0).tolist(), strict=True))


def _metrics(at: Path) -> list[tuple[int, str, float]]:
    with (at / "metrics.csv").open(newline="") as file:
        return [(int(r["step"]), r["name"], float(r["value"])) for r in csv.DictReader(file)]


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
    finished: dict[str, list[tuple[Experiment, int, Path]]] = {}
    for e in TABLE:
        for seed in range(e.seeds if e.steps >= LONG else 0):
            at = folder(args.runs, e, seed)
            if (at / "outcome.txt").exists() and (at / "outcome.txt").read_text().strip() == "trained":
                finished.setdefault(e.task, []).append((e, seed, at))
            else:
                print(f"{e.label}, seed {seed}: not trained")
    rows = []
    for runs in finished.values():
        level = equal_return([(e, at) for e, _, at in runs])
        rows += [row for e, seed, at in runs for row in measure(e, seed, at, level)]
    if not rows:
        parser.error(f"{args.runs} holds no finished run of {LONG} steps: train with `curves` first")
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "smoothness.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([f.name for f in fields(Smoothness)])
        writer.writerows([f"{x:.6g}" if isinstance(x, float) else x for x in astuple(row)] for row in rows)
    (args.out / "smoothness.md").write_text(page(rows))


def _act(acting: Acting, *, explore: bool) -> Act:
    return lambda obs: acting.act(obs, explore=explore)


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
