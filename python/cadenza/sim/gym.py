"""gymnasium views of our tasks, registered under their ids:
`gymnasium.make("cadenza.sim.gym:cadenza/ReachArm6-v0")`.

Rendering is not part of the views; they carry numbers only.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from cadenza.sim.env import RobotEnvironment
from cadenza.tasks import TASKS, make_task


def _spaces(env: RobotEnvironment) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
    return (
        gymnasium.spaces.Box(-np.inf, np.inf, (env.obs_size,), np.float32),
        gymnasium.spaces.Box(env.action_low, env.action_high, dtype=np.float32),
    )


class TaskEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One simulation of a task. `info` holds `success` when the task defines it.

    Truncation is the task's own, so the id is registered without a step limit.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self, task_id: str, render_mode: None = None) -> None:
        self.render_mode = render_mode
        self._env = RobotEnvironment(make_task(task_id), 1)
        self.observation_space, self.action_space = _spaces(self._env)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; see gymnasium."""
        super().reset(seed=seed)
        return self._env.reset(seed)[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one policy step; see gymnasium."""
        t = self._env.step(np.asarray(action)[None])
        info = {} if t.success is None else {"success": bool(t.success[0])}
        return t.next_obs[0], float(t.reward[0]), bool(t.terminated[0]), bool(t.truncated[0]), info


class TaskVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """n simulations of a task in one batch; a finished episode restarts in the same step.

    Where an episode ended, `info["final_obs"]` holds the true successor (rows that `info["_final_obs"]`
    marks).
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, task_id: str, num_envs: int = 1, threads: int = 1, render_mode: None = None) -> None:
        self.render_mode = render_mode
        self.num_envs = num_envs
        self._env = RobotEnvironment(make_task(task_id), num_envs, threads=threads)
        self.single_observation_space, self.single_action_space = _spaces(self._env)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start n episodes; one seed for all, since one generator draws all starts."""
        if isinstance(seed, list):
            raise ValueError("one seed for the whole batch, not one for each simulation")
        return self._env.reset(seed), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take one policy step; see gymnasium."""
        t = self._env.step(actions)
        info: dict[str, Any] = {} if t.success is None else {"success": t.success}
        if t.done.any():
            info |= {"final_obs": t.next_obs, "_final_obs": t.done}
        return t.obs, t.reward, t.terminated, t.truncated, info


for _id in TASKS:
    gymnasium.register(
        _id,
        entry_point="cadenza.sim.gym:TaskEnv",
        vector_entry_point="cadenza.sim.gym:TaskVectorEnv",
        kwargs={"task_id": _id},
    )
