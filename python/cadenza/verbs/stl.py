"""`cadenza stl eval`: the robustness of a formula on a trace from a CSV or NumPy file."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from cadenza import stl


def main(argv: list[str]) -> int:
    """Runs `cadenza stl …`; exit code 1 when the formula is violated, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="cadenza stl", description="Signal Temporal Logic on recorded traces."
    )
    actions = parser.add_subparsers(dest="action", required=True)
    evaluate = actions.add_parser(
        "eval",
        help="robustness of a formula at one instant",
        description="Robustness of a formula on a trace. Exit code 1: violated.",
        epilog='example: cadenza stl eval "G[0,2s](x > 0.5)" --trace log.csv --dt 0.01',
    )
    evaluate.add_argument("formula", help="STL text, for example G[0,2s](x > 0.5)")
    evaluate.add_argument(
        "--trace", type=Path, required=True, help="CSV with a header line, or .npz with one array a signal"
    )
    evaluate.add_argument("--dt", type=float, help="seconds of one sample; needed for bounds with units")
    evaluate.add_argument("--at", type=int, default=0, help="sample at which it is evaluated (0)")
    evaluate.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="value of $NAME")
    options = parser.parse_args(argv)

    signals, samples = read_trace(options.trace)
    formula = stl.parse(options.formula, signals=signals, dt=options.dt)
    if not 0 <= options.at < len(samples):
        raise ValueError(f"--at {options.at}: {options.trace} has samples 0 to {len(samples) - 1}")
    rho = float(stl.robustness(formula, samples, params=dict(map(_parameter, options.param)), at=options.at))
    verdict = "satisfied" if rho > 0 else "violated" if rho < 0 else "not decided"
    print(f"{formula}\nrobustness {rho:.9g} at sample {options.at}: {verdict}")
    return 1 if rho < 0 else 0


def read_trace(path: Path) -> tuple[list[str], np.ndarray]:
    """Names and samples `[T, D]` (float64) of a trace file.

    Raises:
        ValueError: not a trace; the text names file, line and column.
    """
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays.files)
            lengths = {name: arrays[name].shape for name in names}
            if not names or len({shape for shape in lengths.values()}) != 1 or len(lengths[names[0]]) != 1:
                raise ValueError(f"{path}: signals must be vectors of one length, got {lengths}")
            return names, np.stack([arrays[name].astype(np.float64) for name in names], axis=1)
    with path.open() as file:
        names = [name.strip().strip('"') for name in file.readline().split(",")]
        rows = []
        for number, line in enumerate(file, start=2):
            if not line.strip():
                continue
            cells = line.split(",")
            if len(cells) != len(names):
                raise ValueError(f"{path}, line {number}: {len(cells)} cells, the header has {len(names)}")
            try:
                rows.append([float(cell) for cell in cells])
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    if not rows:
        raise ValueError(f"{path}: no samples")
    return names, np.array(rows)


def _parameter(text: str) -> tuple[str, float]:
    name, separator, value = text.partition("=")
    try:
        return name, float(value if separator else "missing")
    except ValueError:
        raise ValueError(f"--param {text}: NAME=VALUE wanted") from None
