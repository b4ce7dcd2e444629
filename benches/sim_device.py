"""The loop on the sim device against a raw `mj_step` loop (spec/runtime.md §15).

    python benches/sim_device.py [--quick] [--json FILE]

Process CPU time on the virtual clock, physics steps per CPU-second, blocks that alternate. The loop is all
of it: device, observation, a policy of one linear layer that holds the pose, limiter, gate, statistics. The
device alone is its commands and measurements without the loop, by a native program. Raw is Python setting the
controls of the same pose and calling `mj_step`, nothing else. The bars are for models of a humanoid's size;
an arm of seven joints, whose physics take a few microseconds, is reported.
"""

# MuJoCo comes without type stubs
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import mujoco
import numpy as np
from torch import nn

import common
from cadenza.export import ParityConfig, export
from cadenza.robot import Robot, load_robot
from cadenza.runtime import RunConfig, Runtime, SimDevice
from cadenza.tasks.manifest import blank_manifest
from common import Report

# robot: the bars of the loop and of the device alone
ROBOTS: dict[str, tuple[float | None, float | None]] = {"arm6": (None, None), "humanoid29": (0.90, 0.97)}
POLICY_HZ = 50.0


def bundle(path: Path, robot: Robot) -> None:
    """A policy that holds the home pose whatever it sees."""
    n = len(robot.joints)
    names = list(robot.joint_names)
    document = blank_manifest(robot, "hold", policy_hz=POLICY_HZ)
    term = {
        "name": "joint_pos",
        "source": "joint_pos",
        "size": n,
        "history": {"length": 1, "order": "oldest_first", "fill": "repeat"},
    }
    document["observation"] |= {"size": n, "terms": [term]}
    document["action"] = {
        "kind": "position_offset",
        "joints": names,
        "scale": {"*": 0.25},
        "offset": "default",
    }
    document["in_graph"]["squash"] = False
    network = nn.Linear(n, n)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    export(path, network, manifest=document, parity=ParityConfig(2, 4))


def ours(path: Path, robot: Robot, seconds: float) -> float:
    """Physics steps per CPU-second of the loop."""
    config = RunConfig(seconds=seconds, virtual_clock=True)
    device = SimDevice.of(robot)
    runtime = Runtime(path, robot=robot, device=device, config=config)
    start = time.process_time()
    report = runtime.run()
    spent = time.process_time() - start
    return report.ticks * robot.control_dt / device.model.opt.timestep / spent


def alone(program: Path, robot: Robot, seconds: float) -> float:
    """Physics steps per CPU-second of the device without the loop."""
    (library,) = Path(mujoco.__file__).parent.glob("libmujoco.so.*")
    ticks = round(seconds / robot.control_dt)
    command = [program, "--robot", robot.path, "--mujoco-lib", library, "--ticks", str(ticks)]
    substeps = robot.control_dt / robot.model().opt.timestep
    return ticks * substeps / common.answer(command)["cpu_s"]


def raw(robot: Robot, seconds: float) -> float:
    """Physics steps per CPU-second of `mj_step` with the controls of the same pose."""
    model = robot.model()
    data = mujoco.MjData(model)
    data.qpos[:] = robot.home_qpos(model)
    substeps = round(robot.control_dt / model.opt.timestep)
    hold = -model.actuator_biasprm[:, 1] * robot.home
    ticks = round(seconds / robot.control_dt)
    mujoco.mj_forward(model, data)
    start = time.process_time()
    for _ in range(ticks):
        data.ctrl[:] = hold
        mujoco.mj_step(model, data, substeps)
    return ticks * substeps / (time.process_time() - start)


def measure(quick: bool) -> Report:
    """A row for each robot that this checkout has."""
    report = Report("sim_device", "physics steps per CPU-second, ours / raw, medians of alternating blocks")
    # The humanoid falls after 2.4 s, which ends the loop but nothing else: all stop before that.
    seconds, rounds = (0.2, 3) if quick else (2.0, 15)
    try:
        program = common.program("sim_device", quick)
    except RuntimeError as error:
        report.notes.append(f"device alone not measured: {error}")
        program = None
    with tempfile.TemporaryDirectory() as name:
        for robot_name, bars in ROBOTS.items():
            robot = load_robot(robot_name)
            path = Path(name) / f"{robot_name}.cadenza"
            bundle(path, robot)
            blocks = {
                "loop": lambda p=path, r=robot: ours(p, r, seconds),
                "raw": lambda r=robot: raw(r, seconds),
            }
            if program is not None:
                blocks["device alone"] = lambda p=program, r=robot: alone(p, r, seconds)
            for run in blocks.values():
                run()
            speed = common.interleave(blocks, rounds)
            for what, bar in zip(("loop", "device alone"), bars, strict=True):
                if what in speed:
                    figures = " / ".join(f"{np.median(speed[s]) / 1e3:.1f}" for s in (what, "raw"))
                    row = f"{robot_name}, {what}, raw mj_step"
                    report.ratio(
                        row, speed[what], speed["raw"], bar, at_least=True, figures=f"{figures} k steps/s"
                    )
    return report


if __name__ == "__main__":
    common.main(measure, __doc__)
