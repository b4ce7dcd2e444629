"""Ten minutes at 1 kHz: deadlines, drops and levels of a whole run (spec/runtime.md §17 and §18).

    python benches/soak.py [--quick] [--json FILE]

arm6 on MuJoCo at 1 kHz of control and physics, the reach policy (untrained) on a thread of its own, both STL
properties, everything recorded. In real time, on a machine as it is: the figures say what it can do. The
answer to a question of one step comes a tick or two after the step has begun, and the last action is held
until then: ticks without an action are that delay. Not run by `benches/run.py` unless it is named there.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import common
from cadenza.export import ParityConfig, export
from cadenza.robot import find_robot, load_robot
from cadenza.runtime import RunConfig, Runtime, SimDevice
from common import Report, Row

HZ = 1000
ROWS = ("wake lateness", "period error", "whole tick", "sensor->command")


def fast_arm(folder: Path) -> Path:
    """A copy of arm6 that runs, and is simulated, at 1 kHz."""
    source = find_robot("arm6")
    source = source if source.is_dir() else source.parent
    for path in source.iterdir():
        if path.suffix in (".toml", ".xml"):
            text = re.sub(r"control_hz = \d+", f"control_hz = {HZ}", path.read_text())
            text = re.sub(r'timestep="[\d.]+"', f'timestep="{1.0 / HZ}"', text)
            # what a busy machine makes late, loop or policy, is a figure here and not a fault
            text = re.sub(r"hold_ticks = \d+", "hold_ticks = 2000", text)
            text = re.sub(r'stale_after = "\w+"', 'stale_after = "1s"', text)
            text = re.sub(r'lost_after = "\w+"', 'lost_after = "2s"', text)
            (folder / path.name).write_text(text)
    return folder / "robot.toml"


def measure(quick: bool) -> Report:
    """One run, its deadlines and its tails."""
    import nets

    seconds = 3.0 if quick else 600.0
    report = Report("soak", f"{seconds:g} s at {HZ} Hz, policy on its own thread, recorded; tails / period")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        robot = load_robot(fast_arm(folder))
        network, document, spec = nets.symphony_actor()
        document["robot"]["model_sha256"] = None
        document["rates"] |= {"control_dt": 1.0 / HZ, "physics_dt": 1.0 / HZ}
        bundle = folder / "soak.cadenza"
        export(bundle, network, manifest=document, specification=spec, parity=ParityConfig(2, 4))
        config = RunConfig(seconds=seconds, mode="async", record=str(folder / "soak.mcap"))
        common.unpin()  # the policy belongs on the other core
        made = Runtime(bundle, robot=robot, device=SimDevice.of(robot), config=config).run()
    counters, stages = made.stats["counters"], {row["name"]: row for row in made.stats["stages"]}
    ticks, missed = counters["ticks"], counters["missed"]
    figures = f"missed {missed} of {ticks}, {counters['skipped']} periods skipped"
    report.rows.append(Row("deadlines met", 1.0 - missed / ticks, figures=figures))
    held = ticks - counters["flows"][0]
    report.rows.append(
        Row("ticks with an action", 1.0 - held / ticks, figures=f"{held} without, stop included")
    )
    written, dropped = made.record["written"], sum(n for _, n in made.record["dropped"])
    figures = f"dropped {dropped} of {written + dropped}, {made.record['bytes'] / 1e6:.0f} MB"
    report.rows.append(Row("log entries kept", written / (written + dropped), 1.0, True, figures))
    for stage in ROWS:
        row = stages[stage]
        tail = " ".join(
            f"{key.replace('_', '.')} {row[key] / 1e3:.1f}" for key in ("p50", "p99", "p99_9", "max")
        )
        report.rows.append(Row(f"{stage}, p99.9 / period", row["p99_9"] * HZ / 1e9, figures=f"{tail} µs"))
    report.notes.append(f"ended: {made.ended}; level {made.level}; {len(made.faults)} reports to the gate")
    report.notes.append(f"granted: {made.rt['policy']} {made.rt['priority']}; levels {counters['levels']}")
    for monitor in made.monitors:
        decided = f"{monitor['closed']} instants, {monitor['violated']} violated, {monitor['trips']} trips"
        report.notes.append(f"monitor {monitor['name']}: {decided}")
    return report


if __name__ == "__main__":
    common.main(measure, __doc__)
