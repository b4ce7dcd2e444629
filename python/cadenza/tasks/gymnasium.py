"""gymnasium's own tasks as an `Environment`: `gym:Reacher-v5` and the like, stepped one after the other (the
tasks of `cadenza.tasks.gym_batch` are stepped together).

Actions are clipped to the task's bounds before they reach it. State is saved from the outside: gymnasium has
no way to save an environment, so the plain attributes of every wrapper, the generator and MuJoCo's data are
copied.
"""

# MuJoCo comes without type stubs
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from cadenza.robot import suggest
from cadenza.tasks.task import Transition

_PLAIN = (bool, int, float, str, np.ndarray, np.generic, type(None))


class GymEnvironment:
    """n copies of a gymnasium task (an `Environment`).

    Args:
        gym_id: gymnasium id, e.g. "Hopper-v5".
        n: number of copies.
        seed: seeds their starts.

    Raises:
        ValueError: an unknown id (with the nearest one), or observation or action spaces that are no flat
            boxes.
    """

    def __init__(self, gym_id: str, n: int, *, seed: int | np.random.SeedSequence = 0) -> None:
        if gym_id not in gymnasium.registry:
            near = suggest(f"gym:{gym_id}", [f"gym:{name}" for name in gymnasium.registry])
            raise ValueError(f"no task 'gym:{gym_id}'{near}")
        self._vector = SyncVectorEnv(
            [lambda: gymnasium.make(gym_id) for _ in range(n)], autoreset_mode=AutoresetMode.DISABLED
        )
        obs, action = self._vector.single_observation_space, self._vector.single_action_space
        for what, space in (("observation", obs), ("action", action)):
            if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
                raise ValueError(f"gym:{gym_id}: {what} space {space} is no flat box")
        self.name, self.n = f"gym:{gym_id}", n
        self.obs_size = int(obs.shape[0])  # pyright: ignore[reportOptionalSubscript]
        self.action_low = np.asarray(action.low, np.float32)  # pyright: ignore[reportAttributeAccessIssue]
        self.action_high = np.asarray(action.high, np.float32)  # pyright: ignore[reportAttributeAccessIssue]
        self.action_names: tuple[str, ...] = ()
        spec = self._vector.envs[0].spec
        self.episode_steps = spec.max_episode_steps if spec else None
        base = self._vector.envs[0].unwrapped
        rate = base.metadata.get("render_fps")
        self.dt = float(getattr(base, "dt", 1.0 / rate if rate else 1.0))
        self.reset(seed)

    def reset(self, seed: int | np.random.SeedSequence | None = None) -> np.ndarray:
        """Start n new episodes, reseeded when a seed is given; observations [n, S]."""
        seeds: list[int | None] | None = None
        if seed is not None:
            sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
            seeds = [int(x) for x in sequence.generate_state(self.n)]
        self._obs = self._rows(self._vector.reset(seed=seeds)[0])
        return self._obs.copy()

    def step(self, action: np.ndarray) -> Transition:
        """Take one step with actions [n, A], clipped to the bounds. ValueError for one that is not finite."""
        action = np.asarray(action, np.float32)
        if not np.isfinite(action).all():
            env, i = (int(x) for x in np.argwhere(~np.isfinite(action))[0])
            raise ValueError(f"action {action[env, i]} of component {i} in environment {env} is not finite")
        clipped = np.clip(action, self.action_low, self.action_high)
        raw, reward, terminated, truncated, _ = self._vector.step(clipped)
        next_obs = self._rows(raw)
        self._obs = next_obs
        done = terminated | truncated
        if done.any():
            # rows of environments that go on are returned as they are
            self._obs = self._rows(self._vector.reset(options={"reset_mask": done})[0])
        return Transition(self._obs.copy(), next_obs, reward, terminated, truncated & ~terminated, None)

    def scene(self) -> tuple[Any, np.ndarray]:
        """MuJoCo model and positions [nq] of the first copy. ValueError for a task without MuJoCo."""
        base: Any = self._vector.envs[0].unwrapped
        if not hasattr(base, "data"):
            raise ValueError(f"{self.name} has no MuJoCo model that could be drawn")
        return base.model, base.data.qpos.copy()

    def state_dict(self) -> dict[str, Any]:
        """All that an exact resume needs."""
        return {"obs": self._obs.copy(), "envs": [_save(env) for env in self._vector.envs]}

    def load_state_dict(self, state: Mapping[str, Any]) -> np.ndarray:
        """Restore `state_dict`; returns the observations to act on next [n, S]. ValueError when it does not
        fit."""
        if len(state["envs"]) != self.n:
            raise ValueError(f"state of {len(state['envs'])} environments, expected {self.n}")
        for env, saved in zip(self._vector.envs, state["envs"], strict=True):
            _load(env, saved)
        self._obs = np.array(state["obs"], np.float32)
        return self._obs.copy()

    def close(self) -> None:
        """Close the environments."""
        self._vector.close()

    @staticmethod
    def _rows(obs: np.ndarray) -> np.ndarray:
        return np.array(obs, np.float32)


def _layers(env: gymnasium.Env) -> Iterator[gymnasium.Env]:
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = env.env
    yield env


def _save(env: gymnasium.Env) -> dict[str, Any]:
    plain = [
        {
            key: np.copy(v) if isinstance(v, np.ndarray) else v
            for key, v in vars(layer).items()
            if isinstance(v, _PLAIN)
        }
        for layer in _layers(env)
    ]
    saved: dict[str, Any] = {"plain": plain, "rng": env.unwrapped.np_random.bit_generator.state}
    if hasattr(env.unwrapped, "data"):
        saved["mujoco"] = _save_mujoco(env.unwrapped.model, env.unwrapped.data)  # pyright: ignore
    return saved


def _load(env: gymnasium.Env, saved: Mapping[str, Any]) -> None:
    layers = list(_layers(env))
    if len(layers) != len(saved["plain"]):
        raise ValueError(f"state has {len(saved['plain'])} wrappers, expected {len(layers)}")
    for layer, plain in zip(layers, saved["plain"], strict=True):
        for key, value in plain.items():
            setattr(layer, key, np.copy(value) if isinstance(value, np.ndarray) else value)
    env.unwrapped.np_random.bit_generator.state = saved["rng"]
    if "mujoco" in saved:
        _load_mujoco(env.unwrapped.model, env.unwrapped.data, saved["mujoco"])  # pyright: ignore


def _save_mujoco(model: Any, data: Any) -> dict[str, Any]:
    import mujoco

    spec = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.zeros(mujoco.mj_stateSize(model, spec))
    mujoco.mj_getState(model, data, state, spec)
    # rewards and observations read derived arrays of the last step, which a forward pass would not give back
    derived = {name: np.copy(getattr(data, name)) for name in _derived_fields(data)}
    return {"state": state, "derived": derived}


def _load_mujoco(model: Any, data: Any, saved: Mapping[str, Any]) -> None:
    import mujoco

    spec = mujoco.mjtState.mjSTATE_INTEGRATION
    mujoco.mj_setState(model, data, np.asarray(saved["state"]), spec)
    for name, value in saved["derived"].items():
        getattr(data, name)[...] = value


def _derived_fields(data: Any) -> list[str]:
    from mujoco.batch import DATA_FIELDS

    return sorted(
        name
        for name in DATA_FIELDS
        if isinstance(field := getattr(data, name, None), np.ndarray) and field.size and field.flags.writeable
    )
