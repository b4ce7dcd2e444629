"""Rest-to-rest moves of the limiter against ruckig 0.19.4 with the same limits (spec/runtime.md §7.5).

    python benches/ruckig_moves.py [--quick] [--json FILE]

300 random moves under random limits of velocity, acceleration and jerk, 1 kHz. Ruckig computes the
time-optimal trajectory of each and forgets the range of the joint; ours is the limiter of the loop, which
looks at no more than the next target and never leaves the range. Exact figures, no clock.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import common
import peers
from cadenza import _native
from common import Report, Row

JOINTS, ROBOTS, DT, STEP = 60, 5, 1e-3, 0.1
RANGE = 3.0
MEDIAN_BAR, P95_BAR = 1.15, 1.6

# In ruckig's own environment: limits and distances in, durations out.
WORKER = """
import json, sys
from ruckig import InputParameter, Result, Ruckig, Trajectory
out = []
for distance, v, a, j in json.load(sys.stdin):
    move, found = InputParameter(1), Trajectory(1)
    move.current_position, move.current_velocity, move.current_acceleration = [0.0], [0.0], [0.0]
    move.target_position, move.target_velocity, move.target_acceleration = [distance], [0.0], [0.0]
    move.max_velocity, move.max_acceleration, move.max_jerk = [v], [a], [j]
    assert Ruckig(1).calculate(move, found) == Result.Working
    out.append(found.duration)
print(json.dumps(out))
"""


def moves(count: int) -> np.ndarray:
    """Distance, velocity, acceleration, jerk of each move `[count, 4]`."""
    rng = np.random.default_rng(0)
    acceleration = rng.uniform(5.0, 60.0, count)
    far, near = rng.uniform(-2.5, 2.5, count), 10.0 ** rng.uniform(-2.5, -0.5, count)
    return np.column_stack([
        # half of them short; the runtime takes its targets in 32 bits
        np.where(np.arange(count) % 2, far, near * np.sign(far)).astype(np.float32),
        rng.uniform(0.5, 4.0, count),
        acceleration,
        acceleration * rng.uniform(50.0, 200.0, count),
    ])  # fmt: skip


def ours(asked: np.ndarray, folder: Path) -> np.ndarray:
    """Time of each move until the command stands on its target for good, s; one joint for each move."""
    import nets

    n = len(asked)
    head, text = nets.robot_toml(0, 1.0 / DT), ""
    for i, (_, v, a, j) in enumerate(asked.tolist()):
        limits = f"position = [-{RANGE}, {RANGE}], velocity = {v!r}, acceleration = {a!r}, jerk = {j!r}"
        text += f'[[joint]]\nname = "joint_{i}"\nhome = 0.0\nlimits = {{ {limits}, effort = 50.0 }}\n'
        text += "gains = { kp_max = 50.0, kd_max = 2.0, kd_damp = 1.0 }\n"
    path = folder / "robot.toml"
    path.write_text(head.replace("robot_0", f"robot_{n}") + text)
    document = nets.manifest("moves", n, [nets.term("joint_pos", n)], 1.0 / DT)
    document["rates"]["policy_dt"] = STEP
    document["action"] |= {"kind": "position", "scale": {"*": 1.0}, "offset": {"*": 0.0}}
    document |= {"format": 1, "functions": {}}
    batch = _native.ActionBatch(json.dumps(document), _native.Robot(path), 1)
    q = np.zeros((1, n))
    batch.reset(np.zeros(1, np.int64), q)
    ticks = round(STEP / DT)
    out_q, out_dq = np.zeros((1, ticks, n)), np.zeros((1, ticks, n))
    target = np.float32(asked[:, 0])[None]
    away = np.zeros(n, np.int64)
    for k in range(200):
        batch.step(target, q, out_q, out_dq)
        q = out_q[:, -1].copy()
        off = np.abs(out_q[0] - target) > 1e-9
        last = ticks - np.argmax(off[::-1], axis=0)
        away = np.where(off.any(0), k * ticks + last, away)
        if not off.any():
            return (away + 1) * DT
    raise RuntimeError(f"a move has not ended after {200 * STEP:g} s")


def measure(quick: bool) -> Report:
    """Median and 95th percentile of the ratios of the durations."""
    report = Report("ruckig_moves", "rest-to-rest time, ours / theirs, over random moves and limits")
    asked = moves(JOINTS * (1 if quick else ROBOTS))
    with tempfile.TemporaryDirectory() as name:
        mine = np.concatenate([ours(part, Path(name)) for part in np.split(asked, len(asked) // JOINTS)])
    seconds = f"{np.median(mine):.3f} s"
    rows = (("median", 50, MEDIAN_BAR), ("p95", 95, P95_BAR))
    try:
        python = peers.environment("ruckig")
        done = subprocess.run(
            [str(python), "-c", WORKER], input=json.dumps(asked.tolist()), capture_output=True, text=True,
            env={"PATH": ""}, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"ruckig: {done.stderr.strip().splitlines()[-1]}")
    except (RuntimeError, OSError) as error:
        for what, _, bar in rows:
            report.missing(f"{what}, {peers.named('ruckig')}", str(error), bar)
        return report
    theirs = np.array(json.loads(done.stdout))
    ratios = mine / theirs
    for what, percent, bar in rows:
        value = float(np.percentile(ratios, percent))
        figures = f"median move {seconds} / {np.median(theirs):.3f} s"
        report.rows.append(Row(f"{what}, {peers.named('ruckig')}", value, bar, figures=figures))
    report.notes.append(f"{len(asked)} moves, worst ratio {ratios.max():.2f}, best {ratios.min():.2f}")
    return report


if __name__ == "__main__":
    common.main(measure, __doc__)
