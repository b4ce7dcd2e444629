"""n simulations of a robot task: the loop of training, made of the runtime's own parts.

Observation terms, action decoding, up-sampling and limiter are the Rust ones (`_native`), built from the
task's manifest, so a policy trains on what it will meet. NumPy only moves the rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cadenza import _native
from cadenza.sim.batch import BatchSim
from cadenza.sim.domain import Domain, Randomiser
from cadenza.tasks.task import Moment, Task, Transition

_DOMAIN_KEY = 0xD0
"""Separates the domain's generator from that of the starts."""


class RobotEnvironment:
    """n running copies of a robot task (an `Environment`).

    Args:
        task: the task.
        n: number of simulations.
        seed: seeds the starts of all episodes.
        threads: threads of the simulation; more change the speed, never a number.
        stagger: begin the first episodes at evenly spread elapsed steps, so that they do not end together.
        domain: how simulations differ from the model; the task's own when None.
    """

    def __init__(
        self,
        task: Task,
        n: int,
        *,
        seed: int | np.random.SeedSequence = 0,
        threads: int = 1,
        stagger: bool = False,
        domain: Domain | None = None,
    ) -> None:
        manifest = task.manifest()
        text = json.dumps(manifest)
        robot = task.robot
        rates = manifest["rates"]
        self.task, self.name, self.n = task, f"cadenza/{task.name}-v0", n
        self.dt = float(rates["policy_dt"])
        self.episode_steps: int | None = task.episode_steps
        self.action_low = -np.ones(task.action_size, np.float32)
        self.action_high = np.ones(task.action_size, np.float32)
        self.action_names = tuple(manifest["action"]["joints"])
        gains = {j["name"]: (j["kp"], j["kd"]) for j in manifest["joints"]}
        self.sim = BatchSim(
            robot, n, threads=threads, gains=gains, physics_dt=rates["physics_dt"], scene=task.scene
        )
        self._observation = _native.ObservationBatch(text, robot.native, n, list(self.sim.objects))
        self._actions = _native.ActionBatch(text, robot.native, n)
        self.obs_size = int(self._observation.size)
        self._sites = [(name, site) for name, site in robot.frames]
        ticks, joints = round(self.dt / rates["control_dt"]), len(robot.joints)
        self._q, self._dq = np.zeros((n, ticks, joints)), np.zeros((n, ticks, joints))
        self._user = np.zeros((n, len(manifest["commands"])))
        self._action = np.zeros((n, task.action_size), np.float32)
        self._elapsed = np.zeros(n, np.int64)
        self._stagger = stagger
        self._rng = np.random.default_rng(seed)
        domain = task.domain if domain is None else domain
        self._randomiser: Randomiser | None = None
        if domain.active:
            self._randomiser = Randomiser(domain, self.sim, ticks, self.dt, _domain_seed(seed))
        self._obs = np.zeros((n, self.obs_size), np.float32)
        self.reset()

    def reset(self, seed: int | np.random.SeedSequence | None = None) -> np.ndarray:
        """Start n new episodes, reseeded when a seed is given; observations [n, S]."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
            if self._randomiser is not None:
                self._randomiser.reseed(_domain_seed(seed))
        everyone = np.arange(self.n)
        self._begin(everyone)
        if self._stagger:
            self._elapsed[:] = everyone * self.task.episode_steps // self.n
        self._obs = self._observe()
        return self._obs.copy()

    def step(self, action: np.ndarray) -> Transition:
        """Take one policy step.

        Args:
            action: [n, A] in graph units, inside [-1, 1].

        Raises:
            ValueError: wrong shape, or an action that is not finite or outside the bounds.
            SimulationDiverged: see `BatchSim.step`.
        """
        action = self._checked(action)
        previous, self._action = self._action, action
        self._actions.step(action, self._measured()[0], self._q, self._dq)
        if self._randomiser is not None:
            self._randomiser.delay(self._q, self._dq)
            self._randomiser.push()
        self.sim.step(self._q, self._dq)
        self._elapsed += 1
        if self._randomiser is not None:
            self._randomiser.remember()
        next_obs = self._observe()

        now = self._moment(previous, _Frames(self.sim, dict(self._sites)))
        reward, terminated = self.task.reward(now), self.task.terminated(now)
        success = self.task.success(now)
        truncated = (self._elapsed >= self.task.episode_steps) & ~terminated
        ended = np.flatnonzero(terminated | truncated)
        self._obs = next_obs
        if len(ended):
            self._begin(ended)
            self._obs = self._observe(next_obs.copy(), ended)
        return Transition(self._obs.copy(), next_obs, reward, terminated, truncated, success)

    def moment(self, previous: np.ndarray | None = None) -> Moment:
        """The present as tasks see it; `previous` is the action before the last one."""
        frames = {name: self.sim.site(site).copy() for name, site in self._sites}
        return self._moment(self._action if previous is None else previous, frames)

    def _moment(self, before: np.ndarray, frames: Mapping[str, np.ndarray]) -> Moment:
        objects = {name: self.sim.poses[:, i, :3] for i, name in enumerate(self.sim.objects)}
        return Moment(
            self.sim.q, self.sim.dq, self.sim.tau, self._user, self._action, before, frames,
            self.sim.imu, self.sim.base, objects,
        )  # fmt: skip

    def sensors(self) -> dict[str, np.ndarray]:
        """What the newest observation was made of: `[n, ·]` by the names of a bundle's `frame.<name>`.

        Joints stand in robot order, as in the manifest of every robot task.
        """
        q, dq, tau, imu, poses = self._measured()
        now = {
            "joint_pos": q,
            "joint_vel": dq,
            "joint_effort": tau,
            "joint_target": self._actions.target,
            "command": self._user,
            "last_action": self._action,
            "time": self._elapsed[:, None] * self.dt,
        }
        if imu is not None:
            now |= {"base_quat": imu[:, :4], "gyro": imu[:, 4:7], "accelerometer": imu[:, 7:]}
        if self.sim.base is not None:
            now |= {"base_pos": self.sim.base[:, :3], "base_vel": self.sim.base[:, 7:10]}
        now |= {f"object.{name}": poses[:, i, :3] for i, name in enumerate(self.sim.objects)}
        return {name: np.array(values, np.float32) for name, values in now.items()}

    def scene(self) -> tuple[Any, np.ndarray]:
        """MuJoCo model and positions [nq] of simulation 0, to be drawn."""
        return self.sim.model, self.sim.positions(0)

    def state_dict(self) -> dict[str, Any]:
        """All that an exact resume needs."""
        return {
            "sim": self.sim.state_dict(),
            "actions": self._actions.state(),
            "observation": self._observation.state(),
            "user": self._user.copy(),
            "action": self._action.copy(),
            "elapsed": self._elapsed.copy(),
            "obs": self._obs.copy(),
            "rng": self._rng.bit_generator.state,
            "domain": None if self._randomiser is None else self._randomiser.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> np.ndarray:
        """Restore `state_dict` (ValueError when it does not fit); observations to act on next [n, S]."""
        if (state.get("domain") is None) != (self._randomiser is None):
            raise ValueError("the state belongs to another domain")
        self.sim.load_state_dict(state["sim"])
        if self._randomiser is not None:
            self._randomiser.load_state_dict(state["domain"])
        self._actions.set_state(state["actions"])
        self._observation.set_state(state["observation"])
        for mine, theirs in (
            (self._user, state["user"]), (self._elapsed, state["elapsed"]), (self._obs, state["obs"]),
        ):  # fmt: skip
            mine[:] = theirs
        self._action = np.array(state["action"], np.float32)
        self._rng.bit_generator.state = state["rng"]
        return self._obs.copy()

    def close(self) -> None:
        """Nothing to free: MuJoCo's pool goes with the object."""

    def _begin(self, ids: np.ndarray) -> None:
        start = self.task.start(self._rng, len(ids))
        self.sim.reset(ids, start.q, base=start.base, objects=start.objects)
        if self._randomiser is not None:
            self._randomiser.draw(ids)
        self._user[ids] = start.user
        self._action = self._action.copy()
        self._action[ids] = 0.0
        self._elapsed[ids] = 0
        self._actions.reset(ids, start.q)
        self._observation.reset(ids)

    def _observe(self, out: np.ndarray | None = None, ids: np.ndarray | None = None) -> np.ndarray:
        """Observe everyone, or only `ids`: it enters the histories, so nobody is observed twice."""
        out = np.zeros((self.n, self.obs_size), np.float32) if out is None else out
        if self._randomiser is not None and ids is None:
            self._randomiser.measure(np.arange(self.n))
        q, dq, tau, imu, poses = self._measured()
        base = self.sim.base
        self._observation.step(
            q, dq, tau, self._user, self._action, self._actions.target,
            np.multiply(self._elapsed, self.dt, dtype=np.float64), out, ids, imu=imu,
            base=None if base is None else base[:, [0, 1, 2, 7, 8, 9]],
            objects=poses if self.sim.objects else None,
        )  # fmt: skip
        return out

    def _measured(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
        """q, dq, tau, imu, object poses as the policy's side knows them."""
        if self._randomiser is not None:
            return self._randomiser.split()
        return self.sim.q, self.sim.dq, self.sim.tau, self.sim.imu, self.sim.poses

    def _checked(self, action: np.ndarray) -> np.ndarray:
        out = np.array(action, np.float32)
        if out.shape != (self.n, self.task.action_size):
            raise ValueError(
                f"action has shape {list(out.shape)}, expected {[self.n, self.task.action_size]}"
            )
        bad = ~(np.abs(out) <= 1.0)
        if bad.any():
            sim, i = (int(x) for x in np.argwhere(bad)[0])
            raise ValueError(
                f"action {out[sim, i]} of {self.action_names[i]} in simulation {sim} is outside [-1, 1]"
            )
        return out


class _Frames(Mapping[str, np.ndarray]):
    """Positions of the named frames [n, 3] while the moment lasts, computed for the task that asks."""

    def __init__(self, sim: BatchSim, sites: Mapping[str, str]) -> None:
        self._sim, self._sites = sim, sites

    def __getitem__(self, name: str) -> np.ndarray:
        return self._sim.site(self._sites[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)


def _domain_seed(seed: int | np.random.SeedSequence) -> np.random.SeedSequence:
    sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    return np.random.SeedSequence(sequence.entropy, spawn_key=(*sequence.spawn_key, _DOMAIN_KEY))
