"""Reach: bring the tool to a random point in front of the arm."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cadenza.robot import Robot, load_robot
from cadenza.sim.domain import Domain
from cadenza.tasks.manifest import blank_manifest, term
from cadenza.tasks.task import Moment, Start

GAINS = {
    "shoulder_pan": (200.0, 14.0),
    "shoulder_lift": (300.0, 20.0),
    "elbow_flex": (200.0, 12.0),
    "forearm_roll": (60.0, 4.0),
    "wrist_flex": (60.0, 4.0),
    "wrist_roll": (30.0, 2.0),
}
ARM = tuple(GAINS)
GOAL = ("goal_x", "goal_y", "goal_z")


@dataclass(frozen=True)
class ReachConfig:
    """Settings of the reach task.

    Attributes:
        policy_hz: rate of the policy; divides the robot's control rate.
        episode_steps: policy steps of an episode; it ends by truncation only.
        increment: change of a joint target for action 1, rad per policy step.
        leash: largest distance of a joint target from the measured joint, rad.
        start_spread: half-width of the uniform start about home, rad.
        radius: distance of the goal from the turning axis, m.
        azimuth: half-width of the goal's direction, rad.
        height: height of the goal, m.
        tolerance: distance that counts as reached, m.
        soft: softening length of the direction to the goal, m.
        smooth: weight of the mean squared change of action in the reward.
        domain: how simulations differ from the model.
    """

    policy_hz: float = 25.0
    episode_steps: int = 50
    increment: float = 0.1
    leash: float = 0.2
    start_spread: float = 0.3
    radius: tuple[float, float] = (0.25, 0.45)
    azimuth: float = math.radians(60.0)
    height: tuple[float, float] = (0.05, 0.35)
    tolerance: float = 0.03
    soft: float = 0.06
    smooth: float = 0.1
    domain: Domain = field(default_factory=Domain)


class ReachArm6:
    """The six joints of arm6 bring its tool to a goal, given as three operator commands.

    The reward of a step is −(√(d² + 0.02²) − 0.02)/0.3 − smooth·mean(Δu²), with d the distance of tool and
    goal: the root is round at the goal, where a pure distance would make the policy chatter.
    """

    name = "ReachArm6"
    action_size = len(ARM)
    scene: str | None = None

    def __init__(self, config: ReachConfig | None = None, robot: Robot | None = None) -> None:
        self.config = config or ReachConfig()
        self.robot = robot or load_robot("arm6")
        self.episode_steps, self.domain = self.config.episode_steps, self.config.domain
        self._arm = np.array([self.robot.joint_names.index(name) for name in ARM])

    def manifest(self) -> dict[str, Any]:
        """See `Task.manifest`."""
        c = self.config
        manifest = blank_manifest(self.robot, "reach", policy_hz=c.policy_hz, gains=GAINS)
        joints, goal = list(ARM), list(GOAL)
        error = {"frame": "tool", "in": "turret", "target": goal}
        centre = [0.35, 0.2]
        terms = [
            term("joint_pos", "joint_pos", 6, joints=joints),
            term("joint_vel", "joint_vel", 6, joints=joints, scale=0.3),
            term("target_error", "joint_target_error", 6, joints=joints, scale=5.0),
            term("tool_error", "frame_pos_error", 3, scale=5.0, params=error),
            term("tool_direction", "frame_pos_error", 3, params={**error, "soft": c.soft}),
            term("goal", "target_cylindrical", 2, offset=centre, scale=1 / 0.15, params={"target": goal}),
            term("last_action", "last_action", 6),
        ]
        reach = max(c.radius)
        side = math.ceil(reach * math.sin(min(c.azimuth, math.pi / 2)) * 1e3) / 1e3
        front = [round(min(c.radius) * math.cos(c.azimuth), 6), reach]
        manifest |= {
            "observation": {"size": sum(t["size"] for t in terms), "interleave": "term", "terms": terms},
            "action": {
                "kind": "position_increment",
                "joints": joints,
                "raw_clip": [-1.0, 1.0],
                "scale": {"*": c.increment},
                "leash": c.leash,
                "previous": "raw",
                "reset": [0.0] * len(joints),
            },
            "commands": [
                {"name": GOAL[0], "range": front, "default": centre[0]},
                {"name": GOAL[1], "range": [-side, side], "default": 0.0},
                {"name": GOAL[2], "range": list(c.height), "default": centre[1]},
            ],
            "monitors": [
                {"name": "workspace", "dt": 1 / c.policy_hz, "trip": "violated", "action": "soft_stop"},
                {"name": "reached", "dt": 1 / c.policy_hz, "trip": "satisfied", "action": "log"},
            ],
        }
        return manifest

    def spec(self) -> str:
        """See `Task.spec`: a fence above the table, and the goal itself."""
        c = self.config
        error = ", ".join(f"tool.{axis} - user.{name}" for axis, name in zip("xyz", GOAL, strict=True))
        return (
            f"spec workspace: G[0,{c.episode_steps}] (tool.z > 0.02);\n"
            f"spec reached: F[0,{c.episode_steps}] (norm({error}) < {c.tolerance});\n"
        )

    def start(self, rng: np.random.Generator, k: int) -> Start:
        """See `Task.start`: home ± spread, a goal in a sector of a cylinder."""
        c = self.config
        q = np.tile(self.robot.home, (k, 1))
        q[:, self._arm] += rng.uniform(-c.start_spread, c.start_spread, (k, len(ARM)))
        lo, hi = self.robot.position.T
        radius, azimuth, height = (rng.uniform(*r, k) for r in (c.radius, (-c.azimuth, c.azimuth), c.height))
        goal = np.stack((radius * np.cos(azimuth), radius * np.sin(azimuth), height), 1)
        return Start(np.clip(q, lo, hi), goal)

    def distance(self, now: Moment) -> np.ndarray:
        """Distance of tool and goal [n], m."""
        return np.linalg.norm(now.frames["tool"] - now.user, axis=1)

    def reward(self, now: Moment) -> np.ndarray:
        """See the class."""
        change = np.square(now.action - now.previous, dtype=np.float64).mean(1)
        return -(np.sqrt(self.distance(now) ** 2 + 0.02**2) - 0.02) / 0.3 - self.config.smooth * change

    def terminated(self, now: Moment) -> np.ndarray:
        """Never: a reach has no point of no return."""
        return np.zeros(len(now.q), bool)

    def success(self, now: Moment) -> np.ndarray:
        """See `Task.success`: the tool is within the tolerance."""
        return self.distance(now) < self.config.tolerance
