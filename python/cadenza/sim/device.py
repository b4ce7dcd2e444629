"""Where a MuJoCo model and its data lie in memory, for the Rust sim device.

The device steps the physics through the library that Python loaded, without the GIL, so it needs addresses
instead of objects. Whoever hands them over keeps model and data alive and does not touch them while the
device runs. Fields and meaning are those of `SimHandles` in `rust/runtime/src/device/sim/handles.rs`.
"""

# MuJoCo comes without type stubs
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import mujoco
import numpy as np

IMU_SENSORS = {
    "quat": ("imu_quat", mujoco.mjtSensor.mjSENS_FRAMEQUAT),
    "gyro": ("imu_gyro", mujoco.mjtSensor.mjSENS_GYRO),
    "acc": ("imu_accel", mujoco.mjtSensor.mjSENS_ACCELEROMETER),
}
"""Names and types of the inertial sensors."""

_BEYOND_REPAIR = ("mjWARN_BADQPOS", "mjWARN_BADQVEL", "mjWARN_BADQACC", "mjWARN_BADCTRL")
_CALLBACKS = ("control", "passive", "sensor", "act_bias", "act_dyn", "act_gain", "contactfilter", "time")


class NamedJoint(Protocol):
    """A joint of the robot."""

    @property
    def name(self) -> str:
        """The same in robot.toml, model and bundle."""
        ...


class JointsByName(Protocol):
    """A robot, as far as this module needs it: joints in robot order."""

    @property
    def joints(self) -> Sequence[NamedJoint]:
        """In the order of robot.toml."""
        ...


def sim_handles(
    model: mujoco.MjModel, data: mujoco.MjData, robot: JointsByName, objects: Sequence[str] = ()
) -> dict[str, Any]:
    """Addresses and indices for the Rust sim device.

    Runs `mj_forward`, so that efforts, sensors and object poses are those of the current state.

    Args:
        model: the robot's model with the motor law: each joint has one actuator of its own name with gain 1,
            affine bias and a symmetric force limit.
        data: its data, at the state from which the device starts.
        robot: its joints' names, in robot order.
        objects: names of bodies to report as objects.

    Returns:
        One entry for each field of `SimHandles`. `imu` is a dict of three indices in `sensordata` (or None),
        `base` the pair of indices of the base's free joint in qpos and qvel (or None), `objects` a list of
        (name, address of its position, address of its quaternion).

    Raises:
        ValueError: a joint, body or actuator is missing or is not what the device expects, with its name;
            data were made for another model; a Python callback is installed in MuJoCo.
    """
    _check_world(model, data)
    joints = [_joint(model, j.name) for j in robot.joints]
    actuators = [_actuator(model, j) for j in joints]
    mujoco.mj_forward(model, data)
    return {
        "library": _library(),
        "version": mujoco.mj_version(),
        "model": model._address,
        "data": data._address,
        "qpos": _address("qpos", data.qpos),
        "nq": model.nq,
        "qvel": _address("qvel", data.qvel),
        "qfrc_actuator": _address("qfrc_actuator", data.qfrc_actuator),
        "nv": model.nv,
        "ctrl": _address("ctrl", data.ctrl),
        "nu": data.ctrl.size,
        "sensordata": _address("sensordata", data.sensordata),
        "nsensordata": data.sensordata.size,
        "gainprm": _address("actuator_gainprm", model.actuator_gainprm),
        "biasprm": _address("actuator_biasprm", model.actuator_biasprm),
        "nactuator": model.actuator_biasprm.shape[0],
        "prm_row": model.actuator_biasprm.shape[1],
        "joint_qpos": [int(model.jnt_qposadr[j]) for j in joints],
        "joint_qvel": [int(model.jnt_dofadr[j]) for j in joints],
        "actuator": actuators,
        "actuator_ctrl": [_control(model, a) for a in actuators],
        "effort": [float(model.actuator_forcerange[a, 1]) for a in actuators],
        "warnings": _warnings(data),
        "imu": {key: _sensor(model, name, kind) for key, (name, kind) in IMU_SENSORS.items()},
        "base": _base(model, joints),
        "objects": [_object(model, data, name) for name in objects],
        "timestep": float(model.opt.timestep),
    }


def _check_world(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """Refuses data of another model, and anything by which MuJoCo would call back into Python."""
    sizes = (data.qpos.size, data.qvel.size, data.sensordata.size, data.xpos.shape[0])
    if sizes != (model.nq, model.nv, model.nsensordata, model.nbody):
        raise ValueError(
            f"data have nq, nv, nsensordata, nbody = {sizes}, "
            f"the model {(model.nq, model.nv, model.nsensordata, model.nbody)}"
        )
    for name in _CALLBACKS:
        if getattr(mujoco, f"get_mjcb_{name}")() is not None:
            raise ValueError(f"mjcb_{name} is set: the real-time loop cannot call Python")


def _joint(model: mujoco.MjModel, name: str) -> int:
    joint = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name)
    if joint < 0:
        known = ", ".join(model.joint(i).name for i in range(model.njnt))
        raise ValueError(f"the model has no joint {name!r}; it has {known or 'none'}")
    kind = int(model.jnt_type[joint])
    if kind not in (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)):
        raise ValueError(f"joint {name!r} is a {mujoco.mjtJoint(kind).name}, not hinge or slide")
    return joint


def _actuator(model: mujoco.MjModel, joint: int) -> int:
    """The one actuator of a joint, which must be the motor law."""
    name = model.joint(joint).name
    on_joint = model.actuator_trntype == int(mujoco.mjtTrn.mjTRN_JOINT)
    found = np.flatnonzero(on_joint & (model.actuator_trnid[:, 0] == joint))
    if found.size != 1:
        raise ValueError(f"joint {name!r} has {found.size} actuators, must have one")
    actuator = int(found[0])
    if (called := model.actuator(actuator).name) != name:
        raise ValueError(f"the actuator of joint {name!r} is called {called!r}, must be called as the joint")
    lo, hi = (float(x) for x in model.actuator_forcerange[actuator])
    gear = model.actuator_gear[actuator]
    problems = {
        f"gain type {int(model.actuator_gaintype[actuator])}, not fixed": (
            int(model.actuator_gaintype[actuator]) != int(mujoco.mjtGain.mjGAIN_FIXED)
        ),
        f"gain {model.actuator_gainprm[actuator, 0]}, not 1": model.actuator_gainprm[actuator, 0] != 1.0,
        f"bias type {int(model.actuator_biastype[actuator])}, not affine": (
            int(model.actuator_biastype[actuator]) != int(mujoco.mjtBias.mjBIAS_AFFINE)
        ),
        f"dynamics type {int(model.actuator_dyntype[actuator])}, not none": (
            int(model.actuator_dyntype[actuator]) != int(mujoco.mjtDyn.mjDYN_NONE)
        ),
        f"gear {gear[0]}, not 1": gear[0] != 1.0,
        "a limited control range": bool(model.actuator_ctrllimited[actuator]),
        "no force limit": not model.actuator_forcelimited[actuator],
        f"the force range [{lo}, {hi}], not symmetric": lo != -hi,
        "a delay": _delayed(model, actuator),
    }
    if wrong := [text for text, bad in problems.items() if bad]:
        raise ValueError(f"the actuator of joint {name!r} is not the motor law: it has {'; '.join(wrong)}")
    return actuator


def _delayed(model: mujoco.MjModel, actuator: int) -> bool:
    """Whether controls take effect later (MuJoCo 4)."""
    delay = getattr(model, "actuator_delay", None)
    return delay is not None and bool(delay[actuator] != 0.0)


def _control(model: mujoco.MjModel, actuator: int) -> int:
    """Index of the actuator's control: from MuJoCo 4 on, an actuator may have several."""
    addresses = getattr(model, "actuator_ctrladr", None)
    return actuator if addresses is None else int(addresses[actuator])


def _sensor(model: mujoco.MjModel, name: str, kind: mujoco.mjtSensor) -> int | None:
    sensor = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SENSOR, name)
    if sensor < 0:
        return None
    found = int(model.sensor_type[sensor])
    if found != int(kind):
        raise ValueError(f"sensor {name!r} is a {mujoco.mjtSensor(found).name}, must be a {kind.name}")
    return int(model.sensor_adr[sensor])


def _base(model: mujoco.MjModel, joints: Sequence[int]) -> tuple[int, int] | None:
    """The free joint at the root of the tree that the robot's joints belong to."""
    roots = {int(model.body_rootid[model.jnt_bodyid[j]]) for j in joints}
    free = [
        (int(model.jnt_qposadr[j]), int(model.jnt_dofadr[j]))
        for j in range(model.njnt)
        if int(model.jnt_type[j]) == int(mujoco.mjtJoint.mjJNT_FREE) and int(model.jnt_bodyid[j]) in roots
    ]
    if len(free) > 1:
        raise ValueError(f"the robot's joints hang on {len(free)} free joints, must be one at most")
    return free[0] if free else None


def _object(model: mujoco.MjModel, data: mujoco.MjData, name: str) -> tuple[str, int, int]:
    body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name)
    if body < 0:
        known = ", ".join(model.body(i).name for i in range(1, model.nbody))
        raise ValueError(f"the model has no body {name!r}; it has {known or 'none'}")
    return name, _address("xpos", data.xpos[body]), _address("xquat", data.xquat[body])


def _warnings(data: mujoco.MjData) -> list[int]:
    """Addresses of the counters that grow when MuJoCo finds its state beyond repair and resets it."""
    numbers = data.warning.number
    if numbers.dtype != np.int32 or numbers.flags.owndata:
        raise ValueError(f"data.warning.number is no view of int32: {numbers.dtype}")
    start, step = numbers.ctypes.data, numbers.strides[0]
    return [start + step * int(getattr(mujoco.mjtWarning, name)) for name in _BEYOND_REPAIR]


def _address(name: str, array: np.ndarray) -> int:
    if array.size == 0:
        return 0  # an empty array is no view of anything, and nothing is read from it
    if array.dtype != np.float64 or not array.flags.c_contiguous or array.flags.owndata:
        raise ValueError(f"{name} is no contiguous view of float64: {array.dtype}")
    return array.ctypes.data


def _library() -> str:
    """The MuJoCo library of this process."""
    paths = {
        line.split(maxsplit=5)[5].rstrip("\n")
        for line in Path("/proc/self/maps").read_text().splitlines()
        if "/libmujoco.so" in line
    }
    if len(paths) != 1:
        raise ValueError(f"{len(paths)} MuJoCo libraries are loaded: {', '.join(sorted(paths)) or 'none'}")
    return paths.pop()
