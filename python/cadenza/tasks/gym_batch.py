"""gymnasium's MuJoCo locomotion tasks on `mujoco.batch`: the same numbers, bit for bit, many at a time.

Model, constants and spaces are taken from gymnasium's own environment. What a step computes is repeated here
for n simulations at once; a test compares a thousand steps of each task with gymnasium's.
"""

# MuJoCo comes without type stubs
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.utils.seeding import np_random
from mujoco.batch import Batch

from cadenza.tasks.task import Transition

_NORMAL_SPEED = ("HalfCheetah-v5", "Ant-v5")
"""Tasks that draw the velocities of a start from a normal distribution; the others from a uniform one."""
_CONTACTS = ("Humanoid-v5", "Ant-v5")
"""Tasks that read contact forces."""

BATCHED = ("Humanoid-v5", "HalfCheetah-v5", "Walker2d-v5", "Hopper-v5", "Ant-v5")


class BatchedGym:
    """n copies of a gymnasium task (an `Environment`); see `GymEnvironment`, which it equals.

    Args:
        gym_id: one of `BATCHED`.
        n: number of copies.
        seed: seeds their starts.
        threads: threads of the simulation; more change the speed, never a number.
    """

    def __init__(
        self, gym_id: str, n: int, *, seed: int | np.random.SeedSequence = 0, threads: int = 1
    ) -> None:
        env = gymnasium.make(gym_id)
        base: Any = env.unwrapped
        self._id, self._base = gym_id, base
        self.name, self.n = f"gym:{gym_id}", n
        action: Any = env.action_space
        self.obs_size = int(base.observation_space.shape[0])
        self.action_low, self.action_high = np.array(action.low), np.array(action.high)
        self.action_names: tuple[str, ...] = ()
        self.episode_steps = env.spec.max_episode_steps if env.spec else None
        self.dt = float(base.dt)
        self._contacts = gym_id in _CONTACTS
        self.model = base.model
        # contact forces are asked for after a step, of the data that it left: the batch has to keep them
        self._batch = Batch(self.model, n, threads, persistent=self._contacts)
        self._scratch = mujoco.MjData(self.model)
        self._force = np.zeros((n, self.model.nbody, 6))
        self._qpos, self._qvel = self._batch.bind("qpos"), self._batch.bind("qvel")
        self._control = self._batch.bind("ctrl")
        fields = {"Humanoid-v5": ("xipos", "cinert", "cvel", "qfrc_actuator"), "Ant-v5": ("xpos",)}
        self._fields = {name: self._batch.bind(name) for name in fields.get(gym_id, ())}
        self._rngs: list[np.random.Generator] = [np.random.default_rng(0)] * n
        self._elapsed = np.zeros(n, np.int64)
        self._before = np.zeros((n, 2))
        self._obs = np.zeros((n, self.obs_size), np.float32)
        self.reset(seed)

    def reset(self, seed: int | np.random.SeedSequence | None = None) -> np.ndarray:
        """Start n new episodes, reseeded when a seed is given; observations [n, S]."""
        if seed is not None:
            sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
            self._rngs = [np_random(int(x))[0] for x in sequence.generate_state(self.n)]
        everyone = np.arange(self.n)
        self._begin(everyone)
        self._obs = self._observe(everyone)
        return self._obs.copy()

    def step(self, action: np.ndarray) -> Transition:
        """Take one step with actions [n, A], clipped to the bounds. ValueError for one that is not finite."""
        action = np.asarray(action, np.float32)
        if not np.isfinite(action).all():
            env, i = (int(x) for x in np.argwhere(~np.isfinite(action))[0])
            raise ValueError(f"action {action[env, i]} of component {i} in environment {env} is not finite")
        # np.clip costs three times as much
        action = np.minimum(np.maximum(action, self.action_low), self.action_high)
        self._control[:] = action
        self._batch.step(nstep=self._base.frame_skip)
        self._elapsed += 1
        if self._contacts:
            self._feel()
        after = self._place(slice(None))
        velocity = (after - self._before) / self.dt
        self._before = after
        next_obs = self._observe(slice(None))
        reward, healthy = self._value(velocity[:, 0], action)
        terminated = ~healthy
        late = self._elapsed >= (self.episode_steps or np.iinfo(np.int64).max)
        truncated = late & ~terminated
        self._obs = next_obs
        ended = np.flatnonzero(terminated | truncated)
        if len(ended):
            self._begin(ended)
            self._obs = next_obs.copy()
            self._obs[ended] = self._observe(ended)
        return Transition(self._obs.copy(), next_obs, reward, terminated, truncated, None)

    def scene(self) -> tuple[Any, np.ndarray]:
        """MuJoCo model and positions [nq] of the first copy."""
        return self.model, self._qpos[0].copy()

    def state_dict(self) -> dict[str, Any]:
        """All that an exact resume needs."""
        return {
            "sim": self._batch.state.copy(),
            "elapsed": self._elapsed.copy(),
            "before": self._before.copy(),
            "obs": self._obs.copy(),
            "rngs": [rng.bit_generator.state for rng in self._rngs],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> np.ndarray:
        """Restore `state_dict`; returns the observations to act on next [n, S]. ValueError when it does not
        fit."""
        rows = np.asarray(state["sim"])
        if rows.shape != self._batch.state.shape:
            raise ValueError(f"state of {len(rows)} environments, expected {self.n}")
        self._batch.state[:] = rows
        self._elapsed[:], self._before[:] = state["elapsed"], state["before"]
        for rng, saved in zip(self._rngs, state["rngs"], strict=True):
            rng.bit_generator.state = saved
        self._obs = np.array(state["obs"], np.float32)
        return self._obs.copy()

    def close(self) -> None:
        """Nothing to free: MuJoCo's pool goes with the object."""

    def _begin(self, ids: np.ndarray) -> None:
        base = self._base
        noise = base._reset_noise_scale
        self._batch.reset(ids, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        for i in ids:
            rng = self._rngs[i]
            self._qpos[i] = base.init_qpos + rng.uniform(low=-noise, high=noise, size=self.model.nq)
            if self._id in _NORMAL_SPEED:
                self._qvel[i] = base.init_qvel + noise * rng.standard_normal(self.model.nv)
            else:
                self._qvel[i] = base.init_qvel + rng.uniform(low=-noise, high=noise, size=self.model.nv)
        self._batch.forward(ids)
        self._elapsed[ids], self._force[ids] = 0, 0.0
        self._before[ids] = self._place(ids)

    def _place(self, ids: np.ndarray | slice) -> np.ndarray:
        """What the forward reward follows, [n, 2]."""
        if self._id == "Humanoid-v5":
            mass = self.model.body_mass
            return np.einsum("b,nbj->nj", mass, self._fields["xipos"][ids])[:, :2] / mass.sum()
        if self._id == "Ant-v5":
            return self._fields["xpos"][ids, self._base._main_body, :2].copy()
        return self._qpos[ids, :2].copy()

    def _feel(self) -> None:
        """Contact forces of the last step; gymnasium asks for them in the same way."""
        for i in range(self.n):
            self._batch.get_data(i, self._scratch)
            mujoco.mj_rnePostConstraint(self.model, self._scratch)
            self._force[i] = self._scratch.cfrc_ext
        if self._id == "Ant-v5":
            np.clip(self._force, *self._base._contact_force_range, out=self._force)

    def _observe(self, ids: np.ndarray | slice) -> np.ndarray:
        qpos, qvel = self._qpos[ids], self._qvel[ids]
        n = len(qpos)
        if self._id in ("Hopper-v5", "Walker2d-v5"):
            qvel = np.minimum(np.maximum(qvel, -10.0), 10.0)
        parts = [qpos[:, 2 if self._contacts else 1 :], qvel]
        if self._id == "Humanoid-v5":
            parts += [self._fields[name][ids, 1:].reshape(n, -1) for name in ("cinert", "cvel")]
            parts.append(self._fields["qfrc_actuator"][ids][:, 6:])
        if self._contacts:
            parts.append(self._force[ids][:, 1:].reshape(n, -1))
        return np.concatenate(parts, 1, dtype=np.float32, casting="same_kind")

    def _value(self, speed: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rewards, and whether each is healthy; the order of the sums is gymnasium's."""
        base, task = self._base, self._id
        controls = action if task != "Humanoid-v5" else self._control
        cost: Any = base._ctrl_cost_weight * np.square(controls).sum(1)
        forward = base._forward_reward_weight * speed
        if task == "HalfCheetah-v5":
            return forward - cost, np.ones(self.n, bool)
        if self._contacts:
            squares = np.square(self._force).reshape(self.n, -1).sum(1)
            contact = base._contact_cost_weight * squares
            if task == "Humanoid-v5":
                contact = np.clip(contact, *base._contact_cost_range)
            cost = cost + contact
        healthy = self._healthy()
        return forward + healthy * base._healthy_reward - cost, healthy

    def _healthy(self) -> np.ndarray:
        base, q, v = self._base, self._qpos, self._qvel
        lo, hi = base._healthy_z_range
        if self._id == "Humanoid-v5":
            return (lo < q[:, 2]) & (q[:, 2] < hi)
        if self._id == "Ant-v5":
            finite = np.isfinite(q).all(1) & np.isfinite(v).all(1)
            return finite & (lo <= q[:, 2]) & (q[:, 2] <= hi)
        low, high = base._healthy_angle_range
        healthy = (lo < q[:, 1]) & (q[:, 1] < hi) & (low < q[:, 2]) & (q[:, 2] < high)
        if self._id == "Hopper-v5":
            least, most = base._healthy_state_range
            for rows in (q[:, 2:], v):
                healthy &= ((least < rows) & (rows < most)).all(1)
        return healthy
