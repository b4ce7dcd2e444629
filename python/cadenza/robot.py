"""A robot by name: its limits from robot.toml, its mechanics from the MuJoCo model (spec/training.md §2).

robot.toml is read by the Rust reader, so training and the real-time loop agree on every number. The model
gets the motor law of DESIGN §7: each `<motor>` becomes `tau + kp·(q* − q) + kd·(dq* − dq)`, cut at the
joint's effort. MuJoCo is imported only by the methods that need a model.
"""

# MuJoCo comes without type stubs
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cadenza import _native

if TYPE_CHECKING:
    import mujoco

    from cadenza.sim.check import Finding


@dataclass(frozen=True)
class Joint:
    """One joint as robot.toml describes it.

    Attributes:
        name: the same in robot.toml, model and bundle.
        position: range, rad or m.
        velocity: largest speed, rad/s.
        acceleration: largest acceleration, rad/s².
        jerk: largest jerk, rad/s³.
        effort: largest effort, N·m.
        kp_max: cap of the position gain, N·m/rad.
        kd_max: cap of the velocity gain, N·m·s/rad.
        kd_damp: velocity gain while damping, N·m·s/rad.
        home: home position, inside `position`.
        motor_id: id of its motor on the bus, None when robot.toml gives none.
    """

    name: str
    position: tuple[float, float]
    velocity: float
    acceleration: float
    jerk: float
    effort: float
    kp_max: float
    kd_max: float
    kd_damp: float
    home: float
    motor_id: int | None = None


@dataclass(frozen=True)
class Robot:
    """A robot of J joints; every array over joints follows the order of robot.toml.

    Attributes:
        native: the Rust reader's object, which the batched runtime pieces take.
        name: its name.
        path: where robot.toml lies.
        model_path: its MuJoCo model.
        control_hz: control rate.
        joints: its joints.
        frames: named frames and the model's sites that they are.
    """

    native: _native.Robot
    name: str
    path: Path
    model_path: Path
    control_hz: float
    joints: tuple[Joint, ...]
    frames: tuple[tuple[str, str], ...]

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names in robot order."""
        return tuple(j.name for j in self.joints)

    @property
    def control_dt(self) -> float:
        """Control period, s."""
        return 1.0 / self.control_hz

    @cached_property
    def home(self) -> np.ndarray:
        """Home position [J]."""
        return np.array([j.home for j in self.joints])

    @cached_property
    def position(self) -> np.ndarray:
        """Position ranges [J, 2]."""
        return np.array([j.position for j in self.joints])

    @cached_property
    def effort(self) -> np.ndarray:
        """Effort limits [J]."""
        return np.array([j.effort for j in self.joints])

    def gains(self, gains: Mapping[str, tuple[float, float]] | None = None) -> np.ndarray:
        """Position and velocity gains [J, 2].

        Args:
            gains: `(kp, kd)` by joint name; a joint that is not named gets its caps from robot.toml.

        Raises:
            ValueError: an unknown joint, or a gain that is negative or above its cap.
        """
        out = np.array([(j.kp_max, j.kd_max) for j in self.joints])
        for name, pair in (gains or {}).items():
            if name not in self.joint_names:
                raise ValueError(f"{self.name} has no joint {name!r}; it has {', '.join(self.joint_names)}")
            j = self.joint_names.index(name)
            for label, value, cap in zip(("kp", "kd"), pair, out[j], strict=True):
                if not 0.0 <= value <= cap:
                    raise ValueError(f"{label} {value} of {name} is outside [0, {cap}]")
            out[j] = pair
        return out

    def model(
        self,
        gains: Mapping[str, tuple[float, float]] | None = None,
        *,
        physics_dt: float | None = None,
        scene: str | None = None,
    ) -> mujoco.MjModel:
        """The MuJoCo model with the motor law.

        Args:
            gains: as in `gains()`.
            physics_dt: replaces the model's timestep, s.
            scene: MJCF of what stands around it (`cadenza.sim.scene`).

        Raises:
            ValueError: the model and robot.toml disagree, the timestep does not divide the control period, or
                the scene cannot be added.
        """
        from cadenza.sim.motor import motor_spec

        return motor_spec(self, self.gains(gains), physics_dt, scene).compile()

    def mjcf(self, gains: Mapping[str, tuple[float, float]] | None = None) -> str:
        """MJCF text of `model()`."""
        from cadenza.sim.motor import motor_spec

        spec = motor_spec(self, self.gains(gains), None)
        spec.compile()
        return spec.to_xml()

    def home_qpos(self, model: mujoco.MjModel) -> np.ndarray:
        """The model's qpos [nq] with every joint of the robot at home and the rest as the model has it."""
        from cadenza.sim.motor import joint_indices

        qpos = model.qpos0.copy()
        qpos[joint_indices(model, self.joint_names)[0]] = self.home
        return qpos

    def frames_json(self) -> list[dict[str, Any]]:
        """The manifest's `frames`: each named frame's chain of fixed transforms and joint axes."""
        from cadenza.sim.frames import frame_chain

        model = self.model()
        return [frame_chain(model, self.joint_names, name, site) for name, site in self.frames]

    def check(self) -> list[Finding]:
        """Compare robot.toml with the model and try it out; one finding per check, good or bad."""
        from cadenza.sim.check import check_robot

        return check_robot(self)


def robots_dir() -> Path:
    """Folder of the shipped robots."""
    return Path(__file__).parent / "robots"


def robot_names() -> list[str]:
    """Names of the shipped robots."""
    return sorted(p.parent.name for p in robots_dir().glob("*/robot.toml"))


def find_robot(robot: str | Path) -> Path:
    """The robot.toml of a shipped robot's name, of a folder, or of its own path.

    Raises:
        ValueError: nothing of that name; the text gives the nearest one.
    """
    path = Path(robot)
    if str(robot) in robot_names():
        return robots_dir() / str(robot) / "robot.toml"
    if path.is_dir() and (path / "robot.toml").is_file():
        return path / "robot.toml"
    if path.is_file():
        return path
    raise ValueError(f"no robot {str(robot)!r}{suggest(str(robot), robot_names())}")


def load_robot(robot: str | Path) -> Robot:
    """Load a robot.

    Args:
        robot: as in `find_robot`.

    Raises:
        ValueError: no such robot, one without a model, or a wrong robot.toml (`_native.RobotError`).
    """
    path = find_robot(robot)
    native = _native.Robot(str(path))
    if native.model is None:
        raise ValueError(f"{path}: no model, which training and simulation need")
    return Robot(
        native=native,
        name=native.name,
        path=Path(native.path),
        model_path=Path(native.model),
        control_hz=float(native.control_hz),
        joints=tuple(Joint(**{**j, "position": tuple(j["position"])}) for j in native.joints),
        frames=tuple((name, site) for name, site in native.frames),
    )


def suggest(name: str, known: list[str]) -> str:
    """`"; did you mean …?"` when a known name is near, else the list of them."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
