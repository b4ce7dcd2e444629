"""Stand: a humanoid keeps its balance while it is pushed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cadenza.robot import Robot, load_robot
from cadenza.sim.domain import Domain
from cadenza.tasks.manifest import blank_manifest, term
from cadenza.tasks.task import Moment, Start

GAINS = {
    "hip": (100.0, 4.0),
    "knee": (150.0, 6.0),
    "ankle": (60.0, 3.0),
    "waist": (80.0, 4.0),
    "shoulder": (40.0, 2.0),
    "elbow": (40.0, 2.0),
    "wrist": (20.0, 1.0),
}
"""`(kp, kd)` by the part of a joint's name."""


@dataclass(frozen=True)
class StandConfig:
    """Settings of the stand task.

    Attributes:
        policy_hz: rate of the policy; divides the robot's control rate.
        episode_steps: policy steps of an episode.
        offset: joint target of action 1, rad from home.
        start_spread: half-width of the uniform start about home, rad.
        start_tilt: standard deviation of the base's tilt at the start, rad.
        fallen_tilt: angle between base and vertical from which the robot has fallen, rad.
        fallen_height: height of the base below which it has fallen, m.
        effort: weight of the mean squared share of the effort in the reward.
        still: weight of the mean squared joint velocity, per (rad/s)².
        smooth: weight of the mean squared change of action.
        domain: how simulations differ from the model; the pushes are here.
    """

    policy_hz: float = 50.0
    episode_steps: int = 500
    offset: float = 0.3
    start_spread: float = 0.05
    start_tilt: float = 0.03
    fallen_tilt: float = 0.8
    fallen_height: float = 0.5
    effort: float = 0.2
    still: float = 0.005
    smooth: float = 0.1
    domain: Domain = field(default_factory=lambda: Domain(push_every=3.0, push_speed=0.3))


class StandHumanoid29:
    """All joints of humanoid29 keep it upright, by targets about home.

    The reward of a step is 0.5·exp(−|g_xy|²/0.05) + 0.5·exp(−(Δz/0.1)²) less what effort, motion and change
    of action cost; g_xy is gravity's horizontal part in the base's axes, Δz the base's height above home's.
    """

    name = "StandHumanoid29"
    scene: str | None = None

    def __init__(self, config: StandConfig | None = None, robot: Robot | None = None) -> None:
        self.config = config or StandConfig()
        self.robot = robot or load_robot("humanoid29")
        self.episode_steps, self.domain = self.config.episode_steps, self.config.domain
        self.action_size = len(self.robot.joints)
        model = self.robot.model()
        self._base = model.body("pelvis").pos.copy()

    def gains(self) -> dict[str, tuple[float, float]]:
        """Gains of every joint."""
        return {
            name: next(pair for part, pair in GAINS.items() if part in name)
            for name in self.robot.joint_names
        }

    def manifest(self) -> dict[str, Any]:
        """See `Task.manifest`."""
        c, n = self.config, self.action_size
        manifest = blank_manifest(self.robot, "stand", policy_hz=c.policy_hz, gains=self.gains())
        joints = list(self.robot.joint_names)
        terms = [
            term("gravity", "projected_gravity", 3),
            term("gyro", "gyro", 3, scale=0.25),
            term("joint_pos", "joint_pos", n, joints=joints),
            term("joint_vel", "joint_vel", n, joints=joints, scale=0.05),
            term("last_action", "last_action", n),
        ]
        manifest |= {
            "observation": {"size": sum(t["size"] for t in terms), "interleave": "term", "terms": terms},
            "action": {
                "kind": "position_offset",
                "joints": joints,
                "raw_clip": [-1.0, 1.0],
                "scale": {"*": c.offset},
                "previous": "raw",
                "reset": [0.0] * n,
            },
            "monitors": [
                {"name": "upright", "dt": 1 / c.policy_hz, "trip": "violated", "action": "log"},
            ],
        }
        return manifest

    def spec(self) -> str:
        """See `Task.spec`: the base stays upright for as long as an episode lasts."""
        return f"spec upright: G[0,{self.episode_steps}] (tilt < {self.config.fallen_tilt});\n"

    def start(self, rng: np.random.Generator, k: int) -> Start:
        """See `Task.start`: about home, a little tilted, the feet just above the floor."""
        c = self.config
        q = self.robot.home + rng.uniform(-c.start_spread, c.start_spread, (k, self.action_size))
        lo, hi = self.robot.position.T
        base = np.zeros((k, 7))
        base[:, :3] = self._base
        base[:, 2] += 0.01
        tilt = rng.normal(0.0, c.start_tilt, (k, 2))
        base[:, 3] = 1.0
        base[:, 4:6] = tilt / 2
        base[:, 3:] /= np.linalg.norm(base[:, 3:], axis=1, keepdims=True)
        return Start(np.clip(q, lo, hi), np.zeros((k, 0)), base)

    def reward(self, now: Moment) -> np.ndarray:
        """See the class."""
        c = self.config
        gravity, height = self._pose(now)
        upright = np.exp(-np.square(gravity[:, :2]).sum(1) / 0.05)
        high = np.exp(-np.square((height - self._base[2]) / 0.1))
        effort = np.square(now.tau / self.robot.effort).mean(1)
        change = np.square(now.action - now.previous, dtype=np.float64).mean(1)
        costs = c.effort * effort + c.still * np.square(now.dq).mean(1) + c.smooth * change
        return 0.5 * upright + 0.5 * high - costs

    def terminated(self, now: Moment) -> np.ndarray:
        """The robot has fallen."""
        gravity, height = self._pose(now)
        return (gravity[:, 2] > -np.cos(self.config.fallen_tilt)) | (height < self.config.fallen_height)

    def success(self, now: Moment) -> np.ndarray:
        """See `Task.success`: it stands."""
        return ~self.terminated(now)

    @staticmethod
    def _pose(now: Moment) -> tuple[np.ndarray, np.ndarray]:
        """Gravity's direction in the base's axes [n, 3] and the base's height [n], m."""
        if now.base is None:
            raise ValueError("stand needs a floating base")
        w, x, y, z = now.base[:, 3:7].T
        gravity = np.stack((2 * (w * y - x * z), -2 * (y * z + w * x), -(1 - 2 * (x * x + y * y))), 1)
        return gravity, now.base[:, 2]
