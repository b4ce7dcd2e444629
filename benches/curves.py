"""The learning table: every started seed in a CSV, and the page made from it (spec/symphony.md §8).

    python benches/symphony.py curves [--only LABEL ...] [--runs FOLDER] [--out FOLDER] [--report]

Trains what is missing, one process after the other, with the command line that anybody has; a run that was
stopped or killed goes on from its checkpoint. After each seed the CSV and the page are written anew, so they
always show what the run folders hold, failures included. `--report` only writes them.
"""

from __future__ import annotations

import argparse
import csv
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from cadenza.evaluate import bootstrap

ROOT = Path(__file__).resolve().parents[1]
STEM = "symphony"
LONG = 100_000
COLUMNS = 11
"""Most evaluations of a curve on the page."""


@dataclass(frozen=True)
class Experiment:
    """A line of the learning table.

    Attributes:
        task: gymnasium id.
        algorithm: name on the command line.
        preset: its preset; empty for an algorithm that has none.
        seeds: how many, from 0.
        steps: transitions.
        goal: mean return wanted at the end, None for a baseline.
        share: how many seeds have to reach the goal, each by itself; None: their mean has to.
    """

    task: str
    algorithm: str
    preset: str
    seeds: int
    steps: int
    goal: float | None = None
    share: int | None = None

    @property
    def label(self) -> str:
        """Name of the experiment, and the beginning of its run folders."""
        return "-".join(filter(None, (self.task, self.algorithm, self.preset)))

    def command(self, seed: int | str, out: str | Path) -> list[str]:
        """What trains one seed."""
        preset = ["--preset", self.preset] if self.preset else []
        task = ["--task", f"gym:{self.task}", *preset, "--steps", str(self.steps)]
        # the smoothness table compares policies at equal return
        keep = ["--set", "snapshots=true"] if self.steps >= LONG else []
        return ["train", self.algorithm, *task, "--seed", str(seed), "--out", str(out), *keep]


TABLE = (
    Experiment("InvertedPendulum-v5", "symphony", "tiny", 5, 20_000, 950.0, share=4),
    Experiment("InvertedDoublePendulum-v5", "symphony", "tiny", 3, 30_000, 2_000.0),
    Experiment("Pendulum-v1", "symphony", "tiny", 3, 30_000, -400.0),
    Experiment("Hopper-v5", "symphony", "small", 3, LONG, 2_000.0),
    Experiment("Walker2d-v5", "symphony", "small", 3, LONG, 2_000.0),
    Experiment("Hopper-v5", "sac", "", 3, LONG),
    Experiment("Walker2d-v5", "sac", "", 3, LONG),
)


@dataclass(frozen=True)
class Point:
    """One evaluation of one seed, and a row of the CSV.

    Attributes:
        task: gymnasium id.
        preset: preset.
        algorithm: algorithm.
        seed: seed.
        steps: transitions so far.
        return_mean: mean return of the noise-free episodes.
        return_std: its standard deviation over them.
        low: lower end of the 95 % bootstrap interval of the mean.
        high: upper end.
        scale_mean: mean S of the last training metrics; empty where the algorithm has none.
        cpu_seconds: process CPU time so far.
        outcome: how the seed's run stands: "trained", "unfinished", or why it failed.
    """

    task: str
    preset: str
    algorithm: str
    seed: int
    steps: int
    return_mean: float
    return_std: float
    low: float
    high: float
    scale_mean: float | None
    cpu_seconds: float
    outcome: str


def folder(runs: Path, e: Experiment, seed: int) -> Path:
    """Where a seed's run lies."""
    return runs / f"{e.label}-{seed}"


def train(e: Experiment, seed: int, runs: Path) -> None:
    """Brings one seed to its end; a run that fails leaves the reason in its folder and is not tried again."""
    at = folder(runs, e, seed)
    outcome = at / "outcome.txt"
    if outcome.exists():
        return
    arguments = ["resume", str(at)] if (at / "checkpoint.pt").exists() else e.command(seed, at)
    at.mkdir(parents=True, exist_ok=True)
    with (at / "output.txt").open("a") as log:
        code = subprocess.run(
            [sys.executable, "-m", "cadenza.cli", *arguments],
            stdout=log, stderr=log, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
        ).returncode  # fmt: skip
    if code < 0:  # killed: the next call goes on
        raise SystemExit(f"{e.label}, seed {seed}: ended by signal {-code}")
    last = ["", *(at / "output.txt").read_text().strip().splitlines()][-1]
    outcome.write_text("trained\n" if code == 0 else f"{last}\n")


def points(e: Experiment, seed: int, at: Path) -> list[Point]:
    """The evaluations that a run folder holds; one without numbers for a run that failed before any."""
    outcome = (at / "outcome.txt").read_text().strip() if (at / "outcome.txt").exists() else "unfinished"
    out: list[Point] = []
    seen: dict[str, float] = {}
    now: dict[str, float] = {}
    path = at / "metrics.csv"
    rows = list(csv.reader(path.open(newline="")))[1:] if path.exists() else []
    for row in rows:
        if len(row) != 3:  # being written
            continue
        step, name, value = int(row[0]), row[1], float(row[2])
        seen[name] = value
        if name.startswith("eval/"):
            now[name.removeprefix("eval/")] = value
        if name == "eval/high_frequency":  # the last of an evaluation
            out.append(
                Point(
                    e.task, e.preset, e.algorithm, seed, step, now["return_mean"], now["return_std"],
                    now["return_low"], now["return_high"], seen.get("train/scale_mean"),
                    round(seen["time/cpu_seconds"], 1), outcome,
                )
            )  # fmt: skip
    nan = float("nan")
    return out or [Point(e.task, e.preset, e.algorithm, seed, 0, nan, nan, nan, nan, None, 0.0, outcome)]


def collect(table: Sequence[Experiment], runs: Path) -> list[Point]:
    """Every evaluation of every seed that was started."""
    started = ((e, seed, folder(runs, e, seed)) for e in table for seed in range(e.seeds))
    return [p for e, seed, at in started if at.exists() for p in points(e, seed, at)]


def write_csv(path: Path, rows: Sequence[Point]) -> None:
    """One row for each evaluation."""
    names = [f.name for f in fields(Point)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_cell(getattr(row, name)) for name in names] for row in rows)


def read_csv(path: Path) -> list[Point]:
    """What `write_csv` wrote."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Point(
            task=row["task"],
            preset=row["preset"],
            algorithm=row["algorithm"],
            seed=int(row["seed"]),
            steps=int(row["steps"]),
            return_mean=float(row["return_mean"]),
            return_std=float(row["return_std"]),
            low=float(row["low"]),
            high=float(row["high"]),
            scale_mean=float(row["scale_mean"]) if row["scale_mean"] else None,
            cpu_seconds=float(row["cpu_seconds"]),
            outcome=row["outcome"],
        )
        for row in rows
    ]


def verdict(e: Experiment, finals: Sequence[float], complete: bool) -> str:
    """Whether the goal is met; a goal is judged when all seeds have ended."""
    if e.goal is None:
        return "baseline"
    if not complete:
        return "not yet run to the end"
    if e.share is None:
        return "met" if float(np.mean(finals)) >= e.goal else "missed"
    reached = sum(value >= e.goal for value in finals)
    return f"{'met' if reached >= e.share else 'missed'} ({reached} of {e.seeds})"


def page(table: Sequence[Experiment], rows: Sequence[Point]) -> str:
    """The learning table as Markdown."""
    lines = [
        "# Learning curves",
        "",
        "Returns of 10 noise-free episodes; mean ± standard deviation over seeds at the end, with the 95 %",
        "bootstrap interval of that mean. Actions span the environment's own bounds, so returns differ from",
        f"the paper's. Every started seed, with all its evaluations, is in `{STEM}.csv`;",
        "`make results-symphony` trains what is missing and writes both files anew.",
        "",
        "| task | algorithm | seeds | steps | return | interval | scale | CPU seconds a seed | goal | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    commands = []
    for e in table:
        mine = [p for p in rows if (p.task, p.algorithm, p.preset) == (e.task, e.algorithm, e.preset)]
        if not mine:
            continue
        last = {p.seed: p for p in mine}  # in order of steps
        ended = [p for p in last.values() if p.outcome == "trained"]
        failed = [p for p in last.values() if p.outcome not in ("trained", "unfinished")]
        commands.append(f"cadenza {shlex.join(e.command('SEED', 'RUN'))}")
        goal = "–" if e.goal is None else f"{e.goal:g}"
        if e.share is not None:
            goal += f" in {e.share} of {e.seeds}"
        finals = [p.return_mean for p in ended]
        # a failed seed has no return to average: it counts against a share and forbids a mean
        complete = len(ended) + len(failed) == e.seeds
        text = verdict(e, finals, complete) if not failed or e.share else "missed"
        if len(ended) < e.seeds:
            text += f"; {len(ended)} ended, {len(failed)} failed, {len(last)} started"
        figures = "– | – | – | –"
        if ended:
            low, high = bootstrap(np.array(finals), 0)
            scales = [p.scale_mean for p in ended if p.scale_mean is not None]
            scale = f"{np.mean(scales):.2f}" if scales else "–"
            figures = (
                f"{np.mean(finals):.4g} ± {np.std(finals):.3g} | [{low:.4g}, {high:.4g}] | {scale} | "
                f"{np.mean([p.cpu_seconds for p in ended]):.0f}"
            )
        name = f"{e.algorithm} {e.preset}".strip()
        lines.append(f"| {e.task} | {name} | {e.seeds} | {e.steps} | {figures} | {goal} | {text} |")
    lines += ["", "Each seed is one command:", "", "```sh", *commands, "```", "", "## Curves", ""]
    lines += ["Mean return over the seeds that got there.", ""]
    for e in table:
        lines += _curve(e, rows)
    return "\n".join(lines).rstrip() + "\n"


def _curve(e: Experiment, rows: Sequence[Point]) -> list[str]:
    mine = [
        p for p in rows if (p.task, p.algorithm, p.preset) == (e.task, e.algorithm, e.preset) and p.steps > 0
    ]
    if not mine:
        return []
    steps = sorted({p.steps for p in mine})
    steps = steps[:: -max(1, -(-len(steps) // COLUMNS))][::-1]  # evenly, and the last of all
    at = [[p.return_mean for p in mine if p.steps == s] for s in steps]
    name = f"{e.task}, {e.algorithm} {e.preset}".strip()
    return [
        f"| {name} | " + " | ".join(f"{s / 1000:g}k" for s in steps) + " |",
        "|---" * (len(steps) + 1) + "|",
        "| mean | " + " | ".join(f"{np.mean(v):.4g}" for v in at) + " |",
        "| std | " + " | ".join(f"{np.std(v):.3g}" for v in at) + " |",
        "| seeds | " + " | ".join(str(len(v)) for v in at) + " |",
        "",
    ]


def _cell(value: object) -> object:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


def write(out: Path, runs: Path) -> None:
    """Writes the CSV from the run folders, and the page from the CSV."""
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / f"{STEM}.csv", collect(TABLE, runs))
    (out / f"{STEM}.md").write_text(page(TABLE, read_csv(out / f"{STEM}.csv")))


def main(argv: list[str]) -> None:
    """Trains and writes; see the module."""
    parser = argparse.ArgumentParser(
        prog="symphony.py curves", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    labels = [e.label for e in TABLE]
    parser.add_argument("--only", nargs="+", choices=labels, metavar="LABEL", help=", ".join(labels))
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "symphony", help="folder of the runs")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results", help="folder of the results")
    parser.add_argument("--report", action="store_true", help="train nothing, only write the results")
    args = parser.parse_args(argv)
    for e in [] if args.report else TABLE:
        if args.only is None or e.label in args.only:
            for seed in range(e.seeds):
                train(e, seed, args.runs)
                write(args.out, args.runs)
    write(args.out, args.runs)
