"""`cadenza sweep ALGORITHM --task ID --seeds 0..4`: many runs, one table."""

from __future__ import annotations

import argparse
from pathlib import Path

from cadenza.sweep import TABLE, describe, parse_grid, parse_seeds, plan, sweep
from cadenza.verbs.train import TrainOptions, configure


def main(argv: list[str]) -> int:
    """Runs `cadenza sweep …`; exit code 1 when a run failed."""
    parser = argparse.ArgumentParser(
        prog="cadenza sweep",
        description="Train seeds × settings, each in a process of its own, and put the results in one table. "
        "Started again, a sweep goes on where it stopped.",
        epilog="example: cadenza sweep symphony --task gym:Hopper-v5 --seeds 0..4 --grid lr=1e-4,3e-4",
    )
    parser.add_argument("algorithm", help="name of the algorithm")
    parser.add_argument("--task", required=True, nargs="+", metavar="ID", help="one or more tasks")
    parser.add_argument("--seeds", default="0", help="0..4 or 0,3,7 (0)")
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="NAME=VALUE,VALUE",
        help="a setting's values; again for more",
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of every run")
    parser.add_argument("--preset", help="as for train")
    parser.add_argument("--steps", type=int, help="transitions of every run")
    parser.add_argument("--envs", type=int, help="parallel environments of every run")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (1)")
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"), help="folder (runs/sweep)")
    parser.add_argument(
        "--ray", nargs="?", const="", metavar="ADDRESS",
        help="run on Ray: a cluster at ADDRESS, or a local one; RAY_AUTH_MODE is Ray's own",
    )  # fmt: skip
    options = parser.parse_args(argv)
    seeds, grid = parse_seeds(options.seeds), parse_grid(options.grid)
    given = [
        word
        for name in ("preset", "steps", "envs")
        if (value := getattr(options, name)) is not None
        for word in (f"--{name}", str(value))
    ]
    jobs = plan(options.out, options.algorithm, options.task, seeds, grid, options.set, given)
    _check(options, grid)
    options.out.mkdir(parents=True, exist_ok=True)
    describe(jobs, options.out)
    failed = sweep(
        jobs,
        options.out,
        parallel=options.jobs,
        use_ray=options.ray is not None,
        ray_address=options.ray or None,
    )
    print(f"{len(jobs) - failed} of {len(jobs)} runs done: {options.out / TABLE}")
    return int(failed > 0)


def _check(options: argparse.Namespace, grid: dict[str, list[str]]) -> None:
    """Bad names and values are said once, before the first run."""
    from cadenza.robot import suggest
    from cadenza.tasks import make
    from cadenza.train_config import ALGORITHMS

    if options.algorithm not in ALGORITHMS:
        known = list(ALGORITHMS)
        raise ValueError(f"unknown algorithm {options.algorithm!r}{suggest(options.algorithm, known)}")
    for task in options.task:
        make(task, 1).close()
        for name, values in grid.items():
            for value in values:
                words = (*options.set, f"{name}={value}")
                configure(options.algorithm, TrainOptions(task, preset=options.preset, set=words))
