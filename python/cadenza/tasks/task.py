"""What a task is, and what the training loop sees of it.

A `Task` declares a robot problem: observation terms, action, rates and gains (the manifest that training,
export and the real-time loop share), where episodes start, and what they are worth. It holds no state;
everything is vectorised over n simulations. An `Environment` is n running copies of a task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from cadenza.robot import Robot
from cadenza.sim.domain import Domain


@dataclass(frozen=True)
class Start:
    """Where k episodes start.

    Attributes:
        q: joint positions [k, J].
        user: operator commands [k, U], in the order of the manifest's `commands`.
        base: pose of the floating base [k, 7], quaternion last; the model's own when None.
        objects: poses of the scene's objects [k, O, 7]; the scene's own when None.
    """

    q: np.ndarray
    user: np.ndarray
    base: np.ndarray | None = None
    objects: np.ndarray | None = None


@dataclass(frozen=True)
class Moment:
    """n simulations after one policy step.

    Attributes:
        q: joint positions [n, J].
        dq: joint velocities [n, J].
        tau: joint efforts [n, J].
        user: operator commands [n, U].
        action: the action of this step, graph units [n, A].
        previous: the action before it, zeros in the first step of an episode [n, A].
        frames: world position of each named frame [n, 3].
        imu: quaternion, gyro, accelerometer [n, 10], as simulated; None for a robot without an IMU.
        base: position, quaternion, linear velocity (world) and angular velocity (body) of the floating base
            [n, 13]; None for a robot that is bolted down.
        objects: world position of each object of the scene [n, 3].
    """

    q: np.ndarray
    dq: np.ndarray
    tau: np.ndarray
    user: np.ndarray
    action: np.ndarray
    previous: np.ndarray
    frames: Mapping[str, np.ndarray]
    imu: np.ndarray | None = None
    base: np.ndarray | None = None
    objects: Mapping[str, np.ndarray] = field(default_factory=dict)


class Task(Protocol):
    """A robot problem, without state.

    Attributes:
        name: id without version and prefix, e.g. "ReachArm6".
        robot: the robot.
        episode_steps: policy steps of an episode, after which it is truncated.
        action_size: components of the action, each in [-1, 1].
        scene: MJCF of what stands around the robot (`cadenza.sim.scene`); None for nothing.
        domain: how simulations differ from the model, if a run does not say otherwise.
    """

    name: str
    robot: Robot
    episode_steps: int
    action_size: int
    scene: str | None
    domain: Domain

    def manifest(self) -> dict[str, Any]:
        """The bundle's manifest without networks; batched training and deployment are both built from it."""
        ...

    def spec(self) -> str:
        """Text of the bundle's spec.stl: one `spec NAME: formula;` for each monitor of the manifest."""
        ...

    def start(self, rng: np.random.Generator, k: int) -> Start:
        """Draw the starts of k episodes."""
        ...

    def reward(self, now: Moment) -> np.ndarray:
        """Reward of this step [n]."""
        ...

    def terminated(self, now: Moment) -> np.ndarray:
        """Whether the episode is over for good [n]; the value of the state is then 0."""
        ...

    def success(self, now: Moment) -> np.ndarray:
        """Whether the task is fulfilled at this moment [n]."""
        ...


@dataclass(frozen=True)
class Transition:
    """One step of n environments.

    Attributes:
        obs: observations to act on next [n, S] float32; the first of a new episode where one ended.
        next_obs: true successors [n, S] float32, also where an episode ended.
        reward: [n] float64.
        terminated: [n] bool.
        truncated: [n] bool.
        success: [n] bool at this moment; None when the task does not define it.
    """

    obs: np.ndarray
    next_obs: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray | None

    @property
    def done(self) -> np.ndarray:
        """Whether an episode ended [n]."""
        return self.terminated | self.truncated


class Environment(Protocol):
    """n copies of a task that run together and restart by themselves.

    Attributes:
        name: the task's id.
        n: number of copies.
        obs_size: S.
        action_low: lower bounds [A], environment units.
        action_high: upper bounds [A].
        action_names: names of the components; empty when they have none.
        episode_steps: step limit of an episode; None when there is none.
        dt: seconds of one step.
    """

    name: str
    n: int
    obs_size: int
    action_low: np.ndarray
    action_high: np.ndarray
    action_names: tuple[str, ...]
    episode_steps: int | None
    dt: float

    def reset(self, seed: int | np.random.SeedSequence | None = None) -> np.ndarray:
        """Start n new episodes, reseeded when a seed is given; observations [n, S]."""
        ...

    def step(self, action: np.ndarray) -> Transition:
        """Take one step with actions [n, A]."""
        ...

    def scene(self) -> tuple[Any, np.ndarray]:
        """MuJoCo model and positions [nq] of the first copy, to be drawn; ValueError when there is none."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that an exact resume needs."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> np.ndarray:
        """Restore `state_dict`; returns the observations to act on next [n, S]."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...
