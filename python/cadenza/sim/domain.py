"""What differs between simulation and robot, drawn at random: masses, friction, gains, delays, noise, pushes.

Every number comes from one generator of its own, so a run is reproducible and resumes exactly, and a domain
without any of these draws nothing: the numbers are then those of a run that has never heard of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from cadenza.sim.batch import BatchSim

_FACTORS = ("mass", "friction", "gains")


@dataclass(frozen=True)
class Domain:
    """How far simulations may differ from the model. Ranges are `(lo, hi)`, drawn for each episode.

    Attributes:
        mass: factor of each body's mass and inertia.
        friction: factor of the sliding friction of all surfaces.
        gains: factor of each joint's kp and kd.
        action_delay: control ticks by which joint targets arrive late.
        observation_delay: policy steps by which everything measured arrives late.
        joint_pos_noise: standard deviation of measured joint positions, rad.
        joint_vel_noise: standard deviation of measured joint velocities, rad/s.
        gyro_noise: standard deviation of the gyro, rad/s.
        tilt_noise: standard deviation of the measured orientation about each axis, rad.
        push_every: mean time between two pushes of the floating base, s; 0 for none.
        push_speed: largest change of the base's horizontal velocity by a push, m/s.
    """

    mass: tuple[float, float] = (1.0, 1.0)
    friction: tuple[float, float] = (1.0, 1.0)
    gains: tuple[float, float] = (1.0, 1.0)
    action_delay: tuple[int, int] = (0, 0)
    observation_delay: tuple[int, int] = (0, 0)
    joint_pos_noise: float = 0.0
    joint_vel_noise: float = 0.0
    gyro_noise: float = 0.0
    tilt_noise: float = 0.0
    push_every: float = 0.0
    push_speed: float = 0.0

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(f.default, tuple):
                kind = type(f.default[0])
                if len(value) != 2 or any(kind is int and v != int(v) for v in value):
                    raise ValueError(f"{f.name} {value!r}: two numbers wanted, whole ones for delays")
                lo, hi = (kind(v) for v in value)
                object.__setattr__(self, f.name, (lo, hi))
                least = 0 if kind is int else 1e-3
                if not least <= lo <= hi < np.inf:
                    raise ValueError(f"{f.name} {(lo, hi)} is no range from {least} on")
            elif not 0.0 <= value < np.inf:
                raise ValueError(f"{f.name} {value} must be 0 or more, and finite")

    @property
    def active(self) -> bool:
        """Whether anything differs from the model."""
        return self != Domain() and not self._only_half_a_push()

    @property
    def pushes(self) -> bool:
        """Whether the base is pushed."""
        return self.push_every > 0.0 and self.push_speed > 0.0

    def _only_half_a_push(self) -> bool:
        return not self.pushes and all(
            getattr(self, f.name) == f.default for f in fields(self) if not f.name.startswith("push_")
        )


class Randomiser:
    """The domain of n simulations: what was drawn for each, and what is still on its way.

    Args:
        domain: how far they differ.
        sim: the simulations; their model fields are expanded as far as the domain needs.
        ticks: control ticks of a policy step.
        policy_dt: seconds of a policy step.
        seed: seeds everything drawn here.
    """

    def __init__(
        self, domain: Domain, sim: BatchSim, ticks: int, policy_dt: float, seed: np.random.SeedSequence
    ) -> None:
        if domain.pushes and sim.base is None:
            raise ValueError(f"push_every: {sim.robot.name} has no floating base that could be pushed")
        self.domain, self._sim = domain, sim
        self._rng = np.random.default_rng(seed)
        self._push_chance = min(1.0, policy_dt / domain.push_every) if domain.pushes else 0.0
        model, n, joints = sim.model, sim.n, len(sim.robot.joints)
        sizes = {"mass": model.nbody, "friction": 1, "gains": joints}
        varied = {name: getattr(domain, name) != (1.0, 1.0) for name in _FACTORS}
        self._factors = {name: np.ones((n, sizes[name])) for name in _FACTORS if varied[name]}
        self._fields: dict[str, np.ndarray] = {}
        for name, wanted in (
            ("mass", ("body_mass", "body_inertia")),
            ("friction", ("geom_friction",)),
            ("gains", ("actuator_biasprm",)),
        ):
            if varied[name]:
                self._fields |= {field: sim.expand(field) for field in wanted}
        self._motor = np.array([model.actuator(name).id for name in sim.robot.joint_names])
        self._action_delay, self._observation_delay = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._late = np.zeros((n, domain.action_delay[1], joints))
        self._ticks = np.arange(ticks)
        self._seen = np.zeros((domain.observation_delay[1] + 1, n, self._row().shape[1]))
        self.measured = self._row()

    def reseed(self, seed: np.random.SeedSequence) -> None:
        """Begin the random numbers anew."""
        self._rng = np.random.default_rng(seed)

    def draw(self, ids: np.ndarray) -> None:
        """Draw anew for simulations `ids`, which have just been put at their starts."""
        d, rng = self.domain, self._rng
        for name, factors in self._factors.items():
            lo, hi = getattr(d, name)
            factors[ids] = rng.uniform(lo, hi, (len(ids), factors.shape[1]))
        self._apply(ids)
        for delay, (lo, hi) in (
            (self._action_delay, d.action_delay), (self._observation_delay, d.observation_delay),
        ):  # fmt: skip
            delay[ids] = rng.integers(lo, hi + 1, len(ids)) if hi > 0 else 0
        self._late[ids] = self._sim.q[ids, None]
        self._seen[:, ids] = self._row()[ids]
        self.measure(ids)

    def delay(self, q: np.ndarray, dq: np.ndarray) -> None:
        """Let the targets [n, K, J] of this step arrive late, in place; at first the start is held."""
        late = self._late.shape[1]
        if late == 0:
            return
        at = self._ticks + late - self._action_delay[:, None]
        rows = np.concatenate((self._late, q), 1)
        self._late[:] = rows[:, -late:]
        q[:] = np.take_along_axis(rows, at[..., None], 1)
        # the velocity of a target that stands still is 0
        speeds = np.concatenate((np.zeros_like(self._late), dq), 1)
        dq[:] = np.take_along_axis(speeds, at[..., None], 1)

    def push(self) -> None:
        """Push some of the bases."""
        if self._push_chance == 0.0:
            return
        n = self._sim.n
        hit = self._rng.random(n) < self._push_chance
        change = np.zeros((n, 3))
        change[:, :2] = self._rng.uniform(-self.domain.push_speed, self.domain.push_speed, (n, 2))
        self._sim.push(change * hit[:, None])

    def remember(self) -> None:
        """Take in the state after a step; then `measure`."""
        if len(self._seen) > 1:
            self._seen[1:] = self._seen[:-1].copy()
        self._seen[0] = self._row()

    def measure(self, ids: np.ndarray) -> None:
        """What the sensors of simulations `ids` report now: late, and with noise."""
        d, joints = self.domain, len(self._sim.robot.joints)
        rows = self._seen[self._observation_delay[ids], ids].copy()
        for at, width, noise in ((0, joints, d.joint_pos_noise), (joints, joints, d.joint_vel_noise)):
            if noise > 0.0:
                rows[:, at : at + width] += self._rng.normal(0.0, noise, (len(ids), width))
        if self._sim.imu is not None:
            at = 3 * joints
            if d.tilt_noise > 0.0:
                turn = self._rng.normal(0.0, d.tilt_noise, (len(ids), 3))
                rows[:, at : at + 4] = _turned(rows[:, at : at + 4], turn)
            if d.gyro_noise > 0.0:
                rows[:, at + 4 : at + 7] += self._rng.normal(0.0, d.gyro_noise, (len(ids), 3))
        self.measured[ids] = rows

    def split(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
        """What was measured: q, dq, tau [n, J], imu [n, 10] or None, object poses [n, O, 7]."""
        sim, joints = self._sim, len(self._sim.robot.joints)
        q, dq, tau, rest = np.split(self.measured, [joints, 2 * joints, 3 * joints], axis=1)
        imu = None
        if sim.imu is not None:
            imu, rest = rest[:, :10].copy(), rest[:, 10:]
        return q.copy(), dq.copy(), tau.copy(), imu, rest.reshape(sim.poses.shape).copy()

    def state_dict(self) -> dict[str, Any]:
        """All that an exact resume needs."""
        return {
            "rng": self._rng.bit_generator.state,
            "factors": {name: factors.copy() for name, factors in self._factors.items()},
            "delays": [self._action_delay.copy(), self._observation_delay.copy()],
            "late": self._late.copy(),
            "seen": self._seen.copy(),
            "measured": self.measured.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`. ValueError when it is another domain's."""
        mine = {name: f.shape for name, f in self._factors.items()}
        theirs = {name: np.shape(f) for name, f in state["factors"].items()}
        shapes = [np.shape(state[name]) for name in ("late", "seen", "measured")]
        if mine != theirs or shapes != [self._late.shape, self._seen.shape, self.measured.shape]:
            raise ValueError("the state belongs to another domain")
        for name, factors in self._factors.items():
            factors[:] = state["factors"][name]
        self._apply(np.arange(self._sim.n))
        self._action_delay[:], self._observation_delay[:] = state["delays"]
        self._late[:], self._seen[:], self.measured[:] = state["late"], state["seen"], state["measured"]
        self._rng.bit_generator.state = state["rng"]

    def _row(self) -> np.ndarray:
        sim = self._sim
        imu = [] if sim.imu is None else [sim.imu]
        return np.concatenate((sim.q, sim.dq, sim.tau, *imu, sim.poses.reshape(sim.n, -1)), 1)

    def _apply(self, ids: np.ndarray) -> None:
        model = self._sim.model
        for name, factors in self._factors.items():
            chosen = factors[ids]
            match name:
                case "mass":
                    self._fields["body_mass"][ids] = model.body_mass * chosen
                    self._fields["body_inertia"][ids] = model.body_inertia * chosen[..., None]
                case "friction":
                    self._fields["geom_friction"][ids, :, 0] = model.geom_friction[:, 0] * chosen
                case "gains":
                    bias = model.actuator_biasprm[self._motor, 1:3] * chosen[..., None]
                    self._fields["actuator_biasprm"][ids[:, None], self._motor, 1:3] = bias
        if "mass" in self._factors:
            self._sim.commit(ids)


def _turned(quat: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Quaternions [k, 4] turned by small rotation vectors [k, 3] in the body frame."""
    angle = np.linalg.norm(turn, axis=1, keepdims=True)
    half = np.concatenate((np.cos(angle / 2), np.sinc(angle / 2 / np.pi) * turn / 2), 1)
    w, v = quat[:, :1], quat[:, 1:]
    hw, hv = half[:, :1], half[:, 1:]
    return np.concatenate((w * hw - (v * hv).sum(1, keepdims=True), w * hv + hw * v + np.cross(v, hv)), 1)
