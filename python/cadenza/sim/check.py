"""Does robot.toml describe the model? The checks behind `Robot.check` (spec/devices.md §7)."""

# MuJoCo comes without type stubs
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import mujoco
import numpy as np

from cadenza.robot import Robot
from cadenza.sim.motor import joint_indices

POSES = 200
SECONDS = 2.0
PENETRATION = 1e-3


@dataclass(frozen=True)
class Finding:
    """Outcome of one check.

    Attributes:
        check: what was checked.
        status: how it went.
        text: the numbers.
    """

    check: str
    status: Literal["ok", "warning", "error"]
    text: str


def check_robot(robot: Robot) -> list[Finding]:
    """All findings; the list ends early when the model does not compile."""
    try:
        model = robot.model()
        qpos, qvel, motors = joint_indices(model, robot.joint_names)
    except ValueError as error:
        return [Finding("model", "error", str(error))]
    found = [
        Finding("model", "ok", f"{robot.model_path.name}: {len(robot.joints)} joints, {model.nbody} bodies")
    ]
    found.append(_names(robot, model))
    found.extend(_limits(robot, model))
    found.append(_masses(model))
    found.append(_frames(robot, model))
    found.append(_home(robot, model, qpos))
    found.append(_gravity(robot, model, qpos, qvel))
    found.extend(_motion(robot, qpos, motors))
    return found


def _finding(
    check: str, problems: list[str], fine: str, status: Literal["warning", "error"] = "error"
) -> Finding:
    return Finding(check, status, "; ".join(problems)) if problems else Finding(check, "ok", fine)


def _names(robot: Robot, model: mujoco.MjModel) -> Finding:
    in_model = [model.joint(i).name for i in range(model.njnt) if int(model.jnt_type[i]) != 0]
    problems = [
        f"joint {name!r} of the model is not in robot.toml"
        for name in in_model
        if name not in robot.joint_names
    ]
    if not problems and tuple(in_model) != robot.joint_names:
        return Finding("joints", "warning", f"order differs: model {', '.join(in_model)}")
    return _finding("joints", problems, ", ".join(robot.joint_names))


def _limits(robot: Robot, model: mujoco.MjModel) -> Iterator[Finding]:
    ranges = []
    for joint in robot.joints:
        of = model.joint(joint.name)
        lo, hi = of.range
        if of.limited[0] and (joint.position[0] < lo - 1e-6 or joint.position[1] > hi + 1e-6):
            ranges.append(
                f"{joint.name} [{joint.position[0]}, {joint.position[1]}] exceeds the model's [{lo}, {hi}]"
            )
    yield _finding("ranges", ranges, "inside the model's")
    plain = mujoco.MjModel.from_xml_path(str(robot.model_path))
    weak = []
    for joint in robot.joints:
        motor = plain.actuator(joint.name)
        if motor.forcelimited[0] and motor.forcerange[1] < joint.effort:
            weak.append(f"{joint.name} {joint.effort} N·m, the model's motor gives {motor.forcerange[1]}")
    yield _finding("effort", weak, "within the model's motors")


def _masses(model: mujoco.MjModel) -> Finding:
    problems = []
    for body in range(1, model.nbody):
        name, inertia = model.body(body).name, model.body_inertia[body]
        moves = int(model.body_weldid[body]) != 0
        if moves and (model.body_mass[body] <= 0.0 or (inertia <= 0.0).any()):
            problems.append(f"{name}: mass {model.body_mass[body]}, inertia {inertia}")
        elif inertia.sum() < 2.0 * inertia.max() * (1.0 - 1e-9):
            problems.append(f"{name}: inertia {inertia} breaks the triangle inequality")
    return _finding("masses", problems, f"{model.body_mass.sum():.3f} kg in all")


def _frames(robot: Robot, model: mujoco.MjModel) -> Finding:
    missing = [f"{name}: no site {site!r}" for name, site in robot.frames if _site(model, site) < 0]
    return _finding("frames", missing, ", ".join(name for name, _ in robot.frames) or "none")


def _site(model: mujoco.MjModel, site: str) -> int:
    return mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, site)


def _home(robot: Robot, model: mujoco.MjModel, qpos: np.ndarray) -> Finding:
    data = _at(model, qpos, robot.home)
    deep = [c for c in data.contact[: data.ncon] if c.dist < -PENETRATION]
    problems = [f"{_pair(model, c)} penetrate {-1e3 * c.dist:.1f} mm" for c in deep]
    lo, hi = robot.position.T
    problems += [
        f"{robot.joint_names[j]} at {robot.home[j]}"
        for j in np.flatnonzero((robot.home < lo) | (robot.home > hi))
    ]
    key = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_KEY, "home")
    if key >= 0 and not np.allclose(model.key_qpos[key][qpos], robot.home, atol=1e-9):
        problems.append(f"keyframe home is {model.key_qpos[key][qpos]}, robot.toml's is {robot.home}")
    return _finding("home", problems, "inside the limits, free of contact")


def _pair(model: mujoco.MjModel, contact: mujoco._structs.MjContact) -> str:
    return " and ".join(repr(model.geom(int(g)).name) for g in contact.geom)


def _at(model: mujoco.MjModel, qpos: np.ndarray, q: np.ndarray) -> mujoco.MjData:
    data = mujoco.MjData(model)
    data.qpos[qpos] = q
    mujoco.mj_forward(model, data)
    return data


def _gravity(robot: Robot, model: mujoco.MjModel, qpos: np.ndarray, qvel: np.ndarray) -> Finding:
    """Effort that holds the robot still, at random poses, against its limits."""
    rng = np.random.default_rng(0)
    worst = np.zeros(len(robot.joints))
    lo, hi = robot.position.T
    for q in rng.uniform(lo, hi, (POSES, len(robot.joints))):
        worst = np.maximum(worst, np.abs(_at(model, qpos, q).qfrc_bias[qvel]))
    share = worst / robot.effort
    problems = [
        f"{robot.joint_names[j]} needs {worst[j]:.1f} of {robot.effort[j]} N·m"
        for j in np.flatnonzero(share >= 1.0)
    ]
    j = int(share.argmax())
    return _finding("gravity", problems, f"at most {share[j]:.0%} of the effort ({robot.joint_names[j]})")


def _motion(robot: Robot, qpos: np.ndarray, motors: np.ndarray) -> Iterator[Finding]:
    kp = robot.gains()[:, 0]
    lo, hi = robot.position.T
    for check, hold in (("passive", False), ("hold", True)):
        trial = robot.model()
        if not hold:
            trial.actuator_biasprm[motors, :3] = 0.0
        data = _at(trial, qpos, robot.home)
        data.ctrl[motors] = kp * robot.home if hold else 0.0
        for _ in range(round(SECONDS / trial.opt.timestep)):
            mujoco.mj_step(trial, data)
        q = data.qpos[qpos]
        problems = (
            [] if np.isfinite(q).all() and not data.warning.number.any() else ["the state is not finite"]
        )
        slack = 0.05  # MuJoCo's limits are soft
        beyond = np.flatnonzero((q < lo - slack) | (q > hi + slack))
        if hold:
            problems += [f"{robot.joint_names[j]} at {q[j]:.3f} is beyond its limits" for j in beyond]
        sag = float(np.abs(q - robot.home).max())
        yield _finding(check, problems, f"{SECONDS} s, " + (f"sag {sag:.3f} rad" if hold else "finite"))
