"""Action sequences under slow inference against LeRobot 0.4.4's asynchronous queue (spec/runtime.md §17).

    python benches/queue_lerobot.py [--quick] [--json FILE]

Sequences of 50 actions, inference of 100–150 ms on another thread, the policy asked when 25 are left. Each
action is the number of its own tick, so that one that is played again, or after a later one, is seen.
LeRobot's `_aggregate_action_queues`, `control_loop_action` and `control_loop` run unchanged in a robot that
takes the named time to send (`lerobot_worker.py`); ours is the whole loop with a device that takes as long
(`src/bin/queue.rs`). The two run one after the other. Where two inferences take longer than a sequence, no
queue can cover the gap: ours holds, LeRobot sends nothing; a held tick is counted apart.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import nn

import common
import peers
from common import Report, Row

HERE = Path(__file__).resolve().parent
CHUNK, SECONDS = 50, 12.0
CASES = ((30.0, 0.2), (30.0, 5.0), (30.0, 10.0), (200.0, 0.2))
INFERENCE_MS = ("100", "150")


class Rows(nn.Module):
    """A network that is never asked: the loop needs a bundle to know the form of the answers."""

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return obs[:, None].expand(-1, CHUNK, -1) * 1.0


def bundle(folder: Path, hz: float) -> tuple[Path, Path]:
    """Robot and bundle of one joint at `hz`."""
    import nets

    document = nets.sequence("queue", 1, 1, CHUNK, hz)
    document["action"] |= {"scale": {"*": 1.0}}
    path, robot = folder / f"queue-{hz:g}.cadenza", folder / f"robot-{hz:g}.toml"
    nets.open_bundle(path, Rows(), document)
    text = nets.robot_toml(1, hz)
    # the policy's first answer takes its time, and a gap of a busy machine is a figure, not a fault
    robot.write_text(text.replace("[safety]\n", "[safety]\nhold_ticks = 2000\n").replace('"0.1s"', '"0s"'))
    return path, robot


def lerobot(hz: float, seconds: float, send_ms: float) -> dict:
    """LeRobot's figures; RuntimeError when it cannot be had."""
    python = peers.environment("lerobot")
    words = [str(python), str(HERE / "lerobot_worker.py"), str(hz), str(seconds), str(send_ms), *INFERENCE_MS]
    with tempfile.TemporaryDirectory() as folder:  # it writes its own log files into the working folder
        done = common.unpinned(*words, cwd=Path(folder))
    if done.returncode:
        raise RuntimeError(f"lerobot: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(quick: bool) -> Report:
    """A row for commands that are new and one for the rate, for each case."""
    report = Report(
        "queue_lerobot",
        f"{SECONDS:g} s each, one after the other; shares of commands that are new, and of the rate",
    )
    cases, seconds = (CASES[:1], 1.0) if quick else (CASES, SECONDS)
    try:
        program = common.program("queue", quick)
    except RuntimeError as error:
        report.missing("queue", str(error))
        return report
    with tempfile.TemporaryDirectory() as name:
        for hz, send_ms in cases:
            path, robot = bundle(Path(name), hz)
            words = ["--bundle", path, "--robot", robot, "--seconds", seconds, "--send-ms", send_ms]
            done = common.unpinned(*map(str, [program, *words, "--inference-ms", *INFERENCE_MS]))
            if done.returncode:
                raise RuntimeError(f"queue: {done.stderr.strip()}")
            ours = json.loads(done.stdout)
            try:
                theirs = None if quick else lerobot(hz, seconds, send_ms)
                why = "not measured: --quick"
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                theirs, why = None, str(error)
            what = f"{hz:g} Hz, {send_ms:g} ms to send"
            peer = (
                f"{theirs['repeated']} of {theirs['sent']}" if theirs else f"{peers.named('lerobot')} {why}"
            )
            figures = f"again or backwards: {ours['repeated']} / {peer}; {ours['held']} ticks held"
            fresh = 1.0 - ours["repeated"] / ours["sent"]
            report.rows.append(Row(f"new commands, {what}", fresh, 1.0, at_least=True, figures=figures))
            rate, other = ours["sent"] / ours["seconds"], ""
            if theirs:
                other = f" / {theirs['sent'] / theirs['seconds']:.1f}"
            figures = f"{rate:.1f}{other} of {hz:g} Hz"
            row = Row(f"rate / nominal, {what}", rate / hz, 0.99, at_least=True, figures=figures)
            report.rows.append(row)
    return report


if __name__ == "__main__":
    common.main(measure, __doc__)
