"""How late the loop wakes, against a bare sleeper on the same thread (spec/runtime.md §17).

    python benches/wake.py [--quick] [--json FILE]

Blocks of 64 ticks of the whole loop (29 joints, network K, ten monitors, recorder on, 500 Hz) alternate
with 64 bare absolute-deadline sleeps; each round pools 24 blocks of both, the ratio is the median over
the rounds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import common
from common import Report

CONTROL_HZ = 500.0


def measure(quick: bool) -> Report:
    """Without spinning, and with 100 µs of it."""
    import nets

    report = Report("wake", "loop's wake lateness / bare sleeper's, medians of paired rounds")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        robot = folder / "robot.toml"
        robot.write_text(nets.robot_toml(nets.JOINTS, CONTROL_HZ))
        bundle = nets.bundles(folder, ["K"], control_hz=CONTROL_HZ)["K"][0]
        size = ["--rounds", "3", "--blocks", "1"] if quick else ["--rounds", "9", "--blocks", "24"]
        try:
            program = common.program("wake", quick)
        except RuntimeError as error:
            report.missing("wake", str(error))
            return report
        for spin, bars in ((0, {"p50": 1.10, "p99": 1.5}), (100, {"p50": 0.25})):
            command = [program, "--bundle", bundle, "--robot", robot, "--record", folder / "log.mcap", *size]
            output = common.answer([*command, "--spin-us", str(spin)])
            for figure in ("p50", "p99"):
                wake, bare = (
                    np.array([r[k][figure] / 1e3 for r in output["rounds"]]) for k in ("wake", "bare")
                )
                figures = f"{np.median(wake):.1f} / {np.median(bare):.1f} µs"
                report.ratio(f"spin {spin} µs, {figure}", wake, bare, bars.get(figure), figures=figures)
            report.notes.append(f"spin {spin} µs: {output['level']}")
    return report


if __name__ == "__main__":
    common.main(measure, __doc__)
