"""Lazy decoding of SRL's sequences, one cell in each tick, against all in one tick and against onnxruntime.

The rows belong to benches/policy.py (spec/policy.md §10, spec/runtime.md §17). A sequence has 16 actions; the
worst tick is the first, which also runs `init`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import common
import nets
from common import Report

STEP, WORST, EAGER = 0.7, 1.2, 0.25


def rows(report: Report, folder: Path, library: Path | None, quick: bool) -> None:
    """Adds the rows; the bundle is written into `folder`."""
    bundle = folder / "lazy.cadenza"
    nets.lazy(bundle)
    command = [common.program("lazy", quick), *(["--ort", library] if library else [])]
    command += ["--rounds", "3", "--sequences", "2"] if quick else []
    output = common.answer([*command, bundle])
    rounds = output["rounds"]
    report.notes.append(
        f"SRL: {output['macs']} multiply-adds, {output['weight_bytes'] / 1e3:.0f} kB, J = {output['actions']}"
    )

    def times(*keys: str) -> np.ndarray:
        figures = []
        for value in rounds:
            for key in keys:
                value = value[key]
            figures.append(value["p50"] / 1e3)
        return np.array(figures)

    def row(what: str, ours: np.ndarray, other: np.ndarray, bar: float | None) -> None:
        report.ratio(what, ours, other, bar, figures=f"{np.median(ours):.2f} / {np.median(other):.2f} µs")

    init, step, worst = times("init"), times("step"), times("worst")
    for name, ours, bar in (("init", init, None), ("step", step, STEP)):
        what = f"SRL {name}, onnxruntime C"
        if library is None:
            report.missing(what, "not installed: onnxruntime", bar)
        else:
            row(what, ours, times("peer", name), bar)
    row("SRL decode, worst tick, init + step", worst, init + step, WORST)
    row("SRL decode, worst tick, eager decode", worst, times("eager"), EAGER)
    row("SRL decode cold, worst tick, eager decode", times("worst_cold"), times("eager_cold"), None)
