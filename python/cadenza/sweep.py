"""Many runs: seeds × settings, each a `cadenza train` in a process of its own.

A run that fails is reported and the others go on. The same sweep started again goes on where it stopped: what
is finished stays, what was interrupted resumes. With Ray the runs are spread over its cluster, whose machines
must see the sweep's folder under the same path; nothing of Ray is imported otherwise.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLE = "sweep.csv"
LOG = "output.txt"
_MEASURED = ("success", "return_mean", "return_low", "return_high", "length", "action_change", "jerk",
             "high_frequency")  # fmt: skip
COLUMNS = ("run", "task", "seed", "status", "steps", *_MEASURED, "best_return_mean", "cpu_seconds", "error")
"""Columns of the table, beside one for each setting of the grid."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        folder: its run folder.
        command: arguments of `cadenza train`.
        task: id of the task.
        seed: its seed.
        grid: its settings of the grid.
    """

    folder: Path
    command: tuple[str, ...]
    task: str
    seed: int
    grid: Mapping[str, str]


def parse_seeds(text: str) -> list[int]:
    """`0..4` (both ends belong to it), `0,3,7`, or both mixed. ValueError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", part.strip())
        if match is None or (match[2] is not None and int(match[2]) < int(match[1])):
            raise ValueError(f"--seeds {text}: {part!r} is no seed and no range like 0..4")
        seeds.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"--seeds {text}: a seed stands there twice")
    return seeds


def parse_grid(texts: Sequence[str]) -> dict[str, list[str]]:
    """`lr=1e-4,3e-4` for each setting. ValueError for a doubled name or value, or none."""
    grid: dict[str, list[str]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        choices = [v for v in values.split(",") if v]
        if not name or not choices or len(set(choices)) != len(choices) or name in grid:
            raise ValueError(f"--grid {text}: NAME=VALUE,VALUE wanted, each name and value once")
        grid[name] = choices
    return grid


def plan(
    out: Path,
    algorithm: str,
    tasks: Sequence[str],
    seeds: Sequence[int],
    grid: Mapping[str, Sequence[str]],
    settings: Sequence[str] = (),
    options: Sequence[str] = (),
) -> list[Job]:
    """All runs of a sweep: tasks × settings × seeds.

    Args:
        out: the sweep's folder; each run gets one in it.
        algorithm: name of the algorithm.
        tasks: ids.
        seeds: seeds.
        grid: values by setting, as `--set` takes them.
        settings: NAME=VALUE of every run.
        options: further arguments of every run.
    """
    jobs = []
    for task, values in itertools.product(tasks, itertools.product(*grid.values())):
        chosen = dict(zip(grid, values, strict=True))
        name = "-".join([re.sub(r"\W+", "-", task), *(f"{k}={v}" for k, v in chosen.items())])
        for seed in seeds:
            command = [algorithm, "--task", task, "--seed", str(seed), *options]
            if words := [*settings, *(f"{k}={v}" for k, v in chosen.items())]:
                command += ["--set", *words]
            jobs.append(Job(out / f"{name}-seed{seed}", tuple(command), task, seed, chosen))
    return jobs


def run_job(folder: str, command: Sequence[str]) -> str | None:
    """Run, or go on with, one run; None, or why it failed. Its output goes to `output.txt` in its folder."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    words = ["train", *command, "--out", folder]
    if (path / "checkpoint.pt").exists():
        # a sweep that is started again with more steps goes on to them
        steps = command.index("--steps") if "--steps" in command else len(command)
        words = ["resume", folder, *command[steps : steps + 2]]
    with (path / LOG).open("a") as log:
        done = subprocess.run([sys.executable, "-m", "cadenza.cli", *words], stdout=log, stderr=log)
    if done.returncode == 0:
        return None
    lines = [line for line in (path / LOG).read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else "no output"
    return f"exit code {done.returncode}: {last}"


def sweep(
    jobs: Sequence[Job],
    out: Path,
    *,
    parallel: int = 1,
    ray_address: str | None = None,
    use_ray: bool = False,
    say: Callable[[str], None] = print,
) -> int:
    """Run all jobs; the number of those that failed.

    Args:
        jobs: the runs.
        out: where the table goes; it is written again whenever a run ends.
        parallel: local processes at a time; with Ray it is the cluster that decides.
        ray_address: a running cluster; a local one is started when None.
        use_ray: run on Ray.
        say: takes a line for each run that ended.

    Raises:
        ModuleNotFoundError: Ray is asked for and not installed.
        ValueError: no jobs, or fewer than one process.
    """
    if not jobs or parallel < 1:
        raise ValueError(f"{len(jobs)} runs with {parallel} processes: at least one of each")
    out.mkdir(parents=True, exist_ok=True)
    failures: dict[Path, str | None] = {}
    finished = _on_ray(jobs, ray_address) if use_ray else _locally(jobs, parallel)
    for job, error in finished:
        failures[job.folder] = error
        write_table(jobs, failures, out / TABLE)
        say(f"{len(failures)}/{len(jobs)} {job.folder.name}: {error or 'done'}")
    return sum(error is not None for error in failures.values())


def write_table(jobs: Sequence[Job], failures: Mapping[Path, str | None], path: Path) -> None:
    """One row for each run, started or not; failures are rows too."""
    grid = list(jobs[0].grid)
    rows = []
    for job in jobs:
        error = failures.get(job.folder)
        status = "waiting" if job.folder not in failures else "failed" if error else "done"
        row = {"run": job.folder.name, "task": job.task, "seed": job.seed, "status": status}
        rows.append(row | {"error": error or ""} | dict(job.grid) | outcome(job.folder))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", newline="") as file:
        table = csv.DictWriter(file, [*COLUMNS[:3], *grid, *COLUMNS[3:]], restval="")
        table.writeheader()
        table.writerows(rows)
    temporary.replace(path)


def outcome(folder: Path) -> dict[str, Any]:
    """The last evaluation of a run, the best return among all, and its cost; empty before the first."""
    path = folder / "metrics.csv"
    if not path.exists():
        return {}
    out: dict[str, Any] = {}
    returns = []
    with path.open(newline="") as file:
        for step, name, value in (row for row in csv.reader(file) if len(row) == 3 and row[0].isdigit()):
            if name.startswith("eval/") and (short := name.removeprefix("eval/")) in _MEASURED:
                out |= {short: value, "steps": step}
                returns += [float(value)] if short == "return_mean" else []
            elif name == "time/cpu_seconds":
                out["cpu_seconds"] = value
    return out | ({"best_return_mean": max(returns)} if returns else {})


def _locally(jobs: Sequence[Job], parallel: int) -> Iterator[tuple[Job, str | None]]:
    with ThreadPoolExecutor(parallel) as pool:
        running: dict[Future[str | None], Job] = {
            pool.submit(run_job, str(job.folder), job.command): job for job in jobs
        }
        try:
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except KeyboardInterrupt:
            # the runs got the signal too and end with a checkpoint; no new ones
            pool.shutdown(cancel_futures=True)
            raise


def _on_ray(jobs: Sequence[Job], address: str | None) -> Iterator[tuple[Job, str | None]]:
    from cadenza.cluster import connected

    with connected(address) as ray:
        remote = ray.remote(num_cpus=1, max_retries=0)(run_job)
        running = {remote.remote(str(job.folder.resolve()), job.command): job for job in jobs}
        while running:
            for reference in ray.wait(list(running))[0]:
                job = running.pop(reference)
                try:
                    yield job, ray.get(reference)
                except ray.exceptions.RayError as error:  # the machine or the worker is gone
                    yield job, f"{type(error).__name__}: {str(error).splitlines()[0]}"


def describe(jobs: Sequence[Job], out: Path) -> None:
    """Write the plan beside the table."""
    plan = [{"run": job.folder.name, "command": ["cadenza", "train", *job.command]} for job in jobs]
    (out / "plan.json").write_text(json.dumps(plan, indent=1) + "\n")
