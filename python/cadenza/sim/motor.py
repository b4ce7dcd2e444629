"""The motor law in MuJoCo (DESIGN §7): `<motor>` actuators become servos evaluated every physics step.

Each `<motor>` turns into a general actuator with gain 1, affine bias (0, −kp, −kd) and force range ± effort,
so `ctrl = tau + kp·q* + kd·dq*` gives `tau + kp·(q* − q) + kd·(dq* − dq)`, cut at the effort. Training and
the sim device use the same actuators.
"""

# MuJoCo comes without type stubs
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from typing import TYPE_CHECKING

import mujoco
import numpy as np

from cadenza.sim.scene import add_scene

if TYPE_CHECKING:
    from cadenza.robot import Robot


def motor_spec(
    robot: Robot, gains: np.ndarray, physics_dt: float | None, scene: str | None = None
) -> mujoco.MjSpec:
    """The robot's model with its motors as servos.

    Args:
        robot: its joints' efforts and its model's path.
        gains: kp and kd, [J, 2].
        physics_dt: replaces the model's timestep, s.
        scene: MJCF of what stands around it (`cadenza.sim.scene`).

    Raises:
        ValueError: the model does not compile, a joint has no motor or no joint of its name, a motor is
            geared, or the timestep does not divide the control period.
    """
    try:
        spec = mujoco.MjSpec.from_file(str(robot.model_path))
    except ValueError as error:
        raise ValueError(f"{robot.model_path}: {error}") from error
    if physics_dt is not None:
        spec.option.timestep = physics_dt
    substeps(robot.control_dt, spec.option.timestep)
    joints = {joint.name for joint in spec.joints}
    motors = {actuator.target: actuator for actuator in spec.actuators}
    for joint, (kp, kd) in zip(robot.joints, gains, strict=True):
        if joint.name not in joints:
            raise ValueError(f"{robot.model_path}: no joint {joint.name!r}, which {robot.path} names")
        motor = motors.get(joint.name)
        if motor is None:
            raise ValueError(f"{robot.model_path}: joint {joint.name!r} has no <motor>")
        _check_motor(motor, robot)
        motor.biastype = mujoco.mjtBias.mjBIAS_AFFINE
        motor.biasprm[:3] = 0.0, -kp, -kd
        motor.forcelimited = True
        motor.forcerange[:] = -joint.effort, joint.effort
        motor.ctrllimited = False
    if scene is not None:
        add_scene(spec, scene)
    return spec


def substeps(control_dt: float, physics_dt: float) -> int:
    """Physics steps in one control period; ValueError unless it is a whole number."""
    count = round(control_dt / physics_dt)
    if count < 1 or abs(count * physics_dt - control_dt) > 1e-9 * control_dt:
        raise ValueError(f"physics step {physics_dt} s does not divide the control period {control_dt} s")
    return count


def joint_indices(model: mujoco.MjModel, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Addresses of the named joints in qpos and qvel, and their actuators; [J] each.

    Raises:
        ValueError: a joint is missing, is no hinge or slide, or has no actuator of its name.
    """
    qpos, qvel, motors = [], [], []
    for name in names:
        joint = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name)
        motor = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_ACTUATOR, name)
        if joint < 0 or motor < 0:
            raise ValueError(f"the model has no {'joint' if joint < 0 else 'actuator'} {name!r}")
        if int(model.jnt_type[joint]) not in (
            int(mujoco.mjtJoint.mjJNT_HINGE),
            int(mujoco.mjtJoint.mjJNT_SLIDE),
        ):
            raise ValueError(f"joint {name!r} is neither hinge nor slide")
        qpos.append(int(model.jnt_qposadr[joint]))
        qvel.append(int(model.jnt_dofadr[joint]))
        motors.append(motor)
    return np.array(qpos), np.array(qvel), np.array(motors)


def _check_motor(motor: mujoco.MjsActuator, robot: Robot) -> None:
    where = f"{robot.model_path}: actuator {motor.name!r}"
    if motor.name != motor.target:
        raise ValueError(f"{where} drives joint {motor.target!r}; motors are named as their joint")
    plain = (
        int(motor.trntype) == int(mujoco.mjtTrn.mjTRN_JOINT)
        and int(motor.dyntype) == int(mujoco.mjtDyn.mjDYN_NONE)
        and int(motor.gaintype) == int(mujoco.mjtGain.mjGAIN_FIXED)
        and int(motor.biastype) == int(mujoco.mjtBias.mjBIAS_NONE)
        and motor.gainprm[0] == 1.0
        and motor.gear[0] == 1.0
    )
    if not plain:
        raise ValueError(f"{where} is not a plain <motor> with gear 1")
