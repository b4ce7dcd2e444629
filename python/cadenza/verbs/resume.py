"""`cadenza resume RUN`: goes on with a run that was stopped or killed."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from cadenza.rundir import RunDir
from cadenza.verbs.train import carry_out


def main(argv: list[str]) -> int:
    """Runs `cadenza resume …`."""
    parser = argparse.ArgumentParser(
        prog="cadenza resume",
        description="Go on with a run from its last checkpoint, as if it had never been stopped.",
        epilog="example: cadenza resume runs/reach --steps 50000",
    )
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--steps", type=int, help="transitions in all; the run's own number when not given")
    parser.add_argument("--ray", metavar="ADDRESS", help="cluster of the run's actors, as for train")
    options = parser.parse_args(argv)
    config = RunDir(options.run).config()
    if options.steps is not None:
        config = dataclasses.replace(config, steps=options.steps)
    return carry_out(config, options.run, resume=True, ray_address=options.ray)
