"""`cadenza demo`: the whole way once, in at most three minutes on two cores."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cadenza.demo import DemoError, demo


def main(argv: list[str]) -> int:
    """Runs `cadenza demo …`; exit code 1 when a step fails."""
    parser = argparse.ArgumentParser(
        prog="cadenza demo",
        description="Train a reach policy in MuJoCo, export it, prove it, run it in real time, report.",
        epilog="example: cadenza demo --out runs/demo",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo"), help="folder of the results (runs/demo)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the training (0)")
    options = parser.parse_args(argv)
    try:
        demo(options.out, seed=options.seed)
    except DemoError as error:
        print(f"cadenza demo: {error}", file=sys.stderr)
        return 1
    return 0
