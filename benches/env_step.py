"""Environment stepping against a raw `mj_step` loop and against gymnasium (spec/training.md §7).

    python benches/env_step.py [--quick] [--json FILE]

Process CPU time, one thread, blocks that alternate. Raw is a Python loop over n `MjData` that steps physics
with controls made before, and does nothing else: no observation, no action, no reward, and a plain reset only
where a body has fallen. Ours is a whole step of the task; for our robots that is with observations, limiter,
motor law and domain. Ratios are speeds, ours / theirs. The bar against raw holds for humanoid-size models;
arms are reported.
"""

# MuJoCo comes without type stubs
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import gymnasium
import mujoco
import numpy as np

import common
from cadenza.sim.env import RobotEnvironment
from cadenza.tasks import make, make_task
from common import Report

SIZES = (8, 16, 32)
GYM = ("Humanoid-v5", "HalfCheetah-v5")
# where gymnasium ends an episode
HEIGHT = {"Humanoid-v5": (1.0, 2.0)}
RAW_BAR, GYM_BAR = 0.90, 1.4
# where our task ends an episode, and the bar
ROBOTS = {"ReachArm6": (None, None), "StandHumanoid29": ((0.5, 2.0), RAW_BAR)}


def raw(
    model: mujoco.MjModel,
    n: int,
    substeps: int,
    controls: np.ndarray,
    qpos: np.ndarray,
    height: tuple[float, float] | None = None,
) -> Callable[[], object]:
    """n simulations, `substeps` physics steps each; controls [K, n, nu] are gone round.

    A base that leaves the range `height` starts anew: a heap on the floor has more contacts, which would
    make the raw loop look slow.
    """
    data = [mujoco.MjData(model) for _ in range(n)]
    for d in data:
        d.qpos[:] = qpos
    turn = 0

    def step() -> None:
        nonlocal turn
        for d, control in zip(data, controls[turn % len(controls)], strict=True):
            d.ctrl[:] = control
            mujoco.mj_step(model, d, substeps)
            if height is not None and not height[0] < d.qpos[2] < height[1]:
                mujoco.mj_resetData(model, d)
                d.qpos[:] = qpos
        turn += 1

    return step


def robot_task(report: Report, name: str, n: int, quick: bool) -> None:
    """A robot, control law included: up-sampling, limiter and motor law at the control rate.

    The arm goes anywhere; the humanoid gets no action, so that it stands as long as the raw one.
    """
    env = RobotEnvironment(make_task(f"cadenza/{name}-v0"), n, seed=0)
    height, bar = ROBOTS[name]
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (64, n, len(env.action_low))).astype(np.float32) * (height is None)
    model = env.sim.model
    substeps = round(env.dt / model.opt.timestep)
    # what holds it at home: the motor law's feed-forward is its control
    home = np.array(env.sim.robot.home_qpos(model))
    joints = [model.joint(int(j)).qposadr[0] for j in model.actuator_trnid[:, 0]]
    hold = np.zeros((64, n, model.nu)) - model.actuator_biasprm[:, 1] * home[joints]
    turn = 0

    def ours() -> None:
        nonlocal turn
        env.step(actions[turn % len(actions)])
        turn += 1

    contenders = {"cadenza": ours, "raw": raw(model, n, substeps, hold, home, height)}
    row(report, f"{name}, n = {n}, raw mj_step", contenders, "raw", bar, n, quick)


def gym_task(report: Report, name: str, n: int, quick: bool) -> None:
    """A gymnasium task through our interface, against its physics alone and against gymnasium's vector."""
    env = make(f"gym:{name}", n, seed=0)
    vector = gymnasium.make_vec(name, num_envs=n, vectorization_mode="sync")
    vector.reset(seed=0)
    base = gymnasium.make(name).unwrapped
    model = base.model
    rng = np.random.default_rng(0)
    actions = rng.uniform(env.action_low, env.action_high, (64, n, len(env.action_low))).astype(np.float32)
    turns = {"cadenza": 0, "gymnasium": 0}

    def stepped(key: str, step: Callable[[np.ndarray], object]) -> Callable[[], object]:
        def run() -> None:
            step(actions[turns[key] % len(actions)])
            turns[key] += 1

        return run

    contenders = {
        "cadenza": stepped("cadenza", env.step),
        "raw": raw(model, n, base.frame_skip, actions.astype(float), model.qpos0, HEIGHT.get(name)),  # pyright: ignore
        "gymnasium": stepped("gymnasium", vector.step),
    }
    row(report, f"{name}, n = {n}, raw mj_step", contenders, "raw", RAW_BAR, n, quick)
    row(report, f"{name}, n = {n}, gymnasium", contenders, "gymnasium", GYM_BAR, n, quick)


def row(
    report: Report,
    what: str,
    contenders: dict[str, Callable[[], object]],
    peer: str,
    bar: float | None,
    n: int,
    quick: bool,
) -> None:
    """Times ours and one peer in turn."""
    count, rounds = (2, 3) if quick else (max(2, 1024 // n), 9)
    pair = {key: contenders[key] for key in ("cadenza", peer)}
    for run in pair.values():
        common.cpu_seconds(run, count)
    times = common.interleave({k: partial(common.cpu_seconds, run, count) for k, run in pair.items()}, rounds)
    speed = {key: n / t for key, t in times.items()}
    figures = " / ".join(f"{np.median(s) / 1e3:.2f}" for s in speed.values()) + " k steps/s"
    report.ratio(what, speed["cadenza"], speed[peer], bar, at_least=True, figures=figures)


def warn(text: str) -> None:
    """MuJoCo's warnings, but for the one that each of gymnasium's humanoids gives; no log file either."""
    if "settotalmass" not in text:
        print(text, file=sys.stderr)


def measure(quick: bool) -> Report:
    """Our robots, then gymnasium's tasks."""
    mujoco.set_mju_user_warning(warn)
    report = Report(
        "env_step", "speed, ours / theirs, medians of alternating blocks, process CPU time, one thread"
    )
    sizes = SIZES[:1] if quick else SIZES
    for name in ROBOTS:
        for n in sizes:
            robot_task(report, name, n, quick)
    for name in GYM:
        for n in sizes:
            gym_task(report, name, n, quick)
    return report


if __name__ == "__main__":
    common.main(measure, __doc__)
