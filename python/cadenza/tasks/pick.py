"""Pick: close the gripper about a cube on the table and lift it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cadenza.robot import Robot, load_robot
from cadenza.sim.domain import Domain
from cadenza.tasks.manifest import blank_manifest, term
from cadenza.tasks.reach import GAINS as ARM_GAINS
from cadenza.tasks.task import Moment, Start

GAINS = {**ARM_GAINS, "gripper": (10.0, 1.0)}
CUBE = "cube"


@dataclass(frozen=True)
class PickConfig:
    """Settings of the pick task.

    Attributes:
        policy_hz: rate of the policy; divides the robot's control rate.
        episode_steps: policy steps of an episode; it ends by truncation only.
        increment: change of a joint target for action 1, rad per policy step.
        leash: largest distance of a joint target from the measured joint, rad.
        start_spread: half-width of the uniform start of the arm about home, rad.
        open: gripper at the start, rad.
        side: side of the cube, m.
        mass: its mass, kg.
        radius: distance of the cube from the turning axis, m.
        azimuth: half-width of the cube's direction, rad.
        height: height of the cube's centre that counts as lifted, m.
        smooth: weight of the mean squared change of action in the reward.
        domain: how simulations differ from the model.
    """

    policy_hz: float = 25.0
    episode_steps: int = 100
    increment: float = 0.1
    leash: float = 0.3
    start_spread: float = 0.1
    open: float = 0.6
    side: float = 0.03
    mass: float = 0.02
    radius: tuple[float, float] = (0.30, 0.40)
    azimuth: float = math.radians(30.0)
    height: float = 0.10
    smooth: float = 0.05
    domain: Domain = field(default_factory=Domain)


class PickArm6:
    """All seven joints of arm6; the cube's position comes from the device as the object `cube`.

    The reward of a step is −tanh(5 d) + 2·min(lift/height, 1) − smooth·mean(Δu²): d is the distance of tool
    and cube, lift the height of the cube's centre above where it lies, height how far it must rise.
    """

    name = "PickArm6"

    def __init__(self, config: PickConfig | None = None, robot: Robot | None = None) -> None:
        self.config = c = config or PickConfig()
        self.robot = robot or load_robot("arm6")
        self.episode_steps, self.domain = c.episode_steps, c.domain
        self.action_size = len(GAINS)
        self._joints = np.array([self.robot.joint_names.index(name) for name in GAINS])
        half = c.side / 2
        self.scene: str | None = (
            f'<mujoco model="pick"><worldbody><body name="{CUBE}" pos="{sum(c.radius) / 2:g} 0 {half:g}">'
            f'<freejoint name="{CUBE}"/><geom name="{CUBE}" type="box" size="{half:g} {half:g} {half:g}" '
            f'mass="{c.mass:g}" friction="1.5 0.02 0.001" condim="4" priority="1" rgba="0.2 0.45 0.85 1"/>'
            "</body></worldbody></mujoco>"
        )

    def manifest(self) -> dict[str, Any]:
        """See `Task.manifest`."""
        c, n = self.config, self.action_size
        manifest = blank_manifest(self.robot, "pick", policy_hz=c.policy_hz, gains=GAINS)
        joints = list(GAINS)
        terms = [
            term("joint_pos", "joint_pos", n, joints=joints),
            term("joint_vel", "joint_vel", n, joints=joints, scale=0.3),
            term("target_error", "joint_target_error", n, joints=joints, scale=5.0),
            term("cube_error", "object_pos_error", 3, scale=5.0,
                 params={"object": CUBE, "frame": "tool", "in": "turret"}),
            term("cube", "object_pos", 3, offset=[0.35, 0.0, 0.05], scale=5.0, params={"object": CUBE}),
            term("last_action", "last_action", n),
        ]  # fmt: skip
        manifest |= {
            "observation": {"size": sum(t["size"] for t in terms), "interleave": "term", "terms": terms},
            "action": {
                "kind": "position_increment",
                "joints": joints,
                "raw_clip": [-1.0, 1.0],
                "scale": {"*": c.increment},
                "leash": c.leash,
                "previous": "raw",
                "reset": [0.0] * n,
            },
        }
        return manifest

    def spec(self) -> str:
        """See `Task.spec`: none; the tool has to come down to the table."""
        return ""

    def start(self, rng: np.random.Generator, k: int) -> Start:
        """See `Task.start`: the arm near home, the gripper open, the cube in a sector of the table."""
        c = self.config
        q = np.tile(self.robot.home, (k, 1))
        arm, gripper = self._joints[:-1], self._joints[-1]
        q[:, arm] += rng.uniform(-c.start_spread, c.start_spread, (k, len(arm)))
        q[:, gripper] = c.open
        lo, hi = self.robot.position.T
        radius, azimuth, yaw = (
            rng.uniform(*r, k) for r in (c.radius, (-c.azimuth, c.azimuth), (-math.pi / 4, math.pi / 4))
        )
        cube = np.zeros((k, 1, 7))
        cube[:, 0, :3] = np.stack(
            (radius * np.cos(azimuth), radius * np.sin(azimuth), np.full(k, c.side / 2)), 1
        )
        cube[:, 0, 3], cube[:, 0, 6] = np.cos(yaw / 2), np.sin(yaw / 2)
        return Start(np.clip(q, lo, hi), np.zeros((k, 0)), objects=cube)

    def reward(self, now: Moment) -> np.ndarray:
        """See the class."""
        c = self.config
        distance = np.linalg.norm(now.frames["tool"] - now.objects[CUBE], axis=1)
        rest = c.side / 2
        lift = np.clip((now.objects[CUBE][:, 2] - rest) / (c.height - rest), 0.0, 1.0)
        change = np.square(now.action - now.previous, dtype=np.float64).mean(1)
        return -np.tanh(5.0 * distance) + 2.0 * lift - c.smooth * change

    def terminated(self, now: Moment) -> np.ndarray:
        """Never: a cube that was dropped can be picked up again."""
        return np.zeros(len(now.q), bool)

    def success(self, now: Moment) -> np.ndarray:
        """See `Task.success`: the cube is high enough, and in the gripper."""
        near = np.linalg.norm(now.frames["tool"] - now.objects[CUBE], axis=1) < 0.06
        return (now.objects[CUBE][:, 2] > self.config.height) & near
