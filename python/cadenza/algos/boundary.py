"""Where an agent meets its task: bounds of the actions, and checks of everything that comes in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Transitions(NamedTuple):
    """Transitions, one row each: as `Boundary.transitions` checked them, with actions in environment units,
    or as `Acting.follow` completed them, with normalised ones."""

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_obs: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class Boundary:
    """Sizes and action bounds of a task. Errors name row, step, joint and value.

    Args:
        obs_dim: observation size n_s.
        low: lower action bounds [n_a], environment units.
        high: upper action bounds [n_a].
        joints: action names for messages; may be empty.
        unit: ±1 in place of the bounds.
        authority: normalised actions reach that multiple of the half-range before they are clipped.

    Attributes:
        action_dim: n_a.
        low, high: the bounds in use, float32.
        centre, span: action = centre + span·u.

    Raises:
        ValueError: bounds that are infinite, empty, or of unequal shapes.
    """

    def __init__(
        self,
        obs_dim: int,
        low: np.ndarray,
        high: np.ndarray,
        *,
        joints: tuple[str, ...] = (),
        unit: bool = False,
        authority: float = 1.0,
    ) -> None:
        self.obs_dim, self._joints = int(obs_dim), joints
        low, high = np.array(low, np.float64), np.array(high, np.float64)
        if low.ndim != 1 or low.shape != high.shape or not len(low):
            raise ValueError(
                f"action bounds have shapes {list(low.shape)} and {list(high.shape)}, expected equal [n_a]"
            )
        self.action_dim = len(low)
        for i in range(self.action_dim):
            if not (np.isfinite(low[i]) and np.isfinite(high[i]) and low[i] < high[i]):
                raise ValueError(
                    f"action bounds [{low[i]}, {high[i]}] of {self._joint(i)} are infinite or empty"
                )
        if unit:
            low, high = -np.ones_like(low), np.ones_like(high)
        self.low, self.high = low.astype(np.float32), high.astype(np.float32)
        self.centre = ((low + high) / 2.0).astype(np.float32)
        self.span = (authority * (high - low) / 2.0).astype(np.float32)
        self._clips = authority > 1.0
        self._slack = (1e-6 * (high - low) / 2.0).astype(np.float32)

    def observations(self, obs: np.ndarray, step: int) -> np.ndarray:
        """Observations [k, n_s] float32 of [n_s] or [k, n_s]; ValueError for a wrong shape or number."""
        rows = self._rows("obs", obs, self.obs_dim)
        self._finite("obs", rows, step)
        return rows

    def actions(self, u: np.ndarray) -> np.ndarray:
        """Actions in environment units, float32, within the bounds, of normalised ones."""
        action = u * self.span + self.centre
        if self._clips:
            np.clip(action, self.low, self.high, out=action)
        return action.astype(np.float32, copy=False)

    def normalised(self, action: np.ndarray) -> np.ndarray:
        """The inverse of `actions` (what was clipped stays clipped)."""
        return (action - self.centre) / self.span

    def transitions(
        self,
        obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray | float,
        next_obs: np.ndarray,
        terminated: np.ndarray | bool,
        truncated: np.ndarray | bool,
        step: int,
    ) -> Transitions:
        """Check step number `step` of k environments (or of one, without the leading dimension).

        Raises:
            ValueError: a wrong shape, a non-finite number, or an action outside the bounds.
        """
        obs = self._rows("obs", obs, self.obs_dim)
        action = self._rows("action", action, self.action_dim)
        next_obs = self._rows("next_obs", next_obs, self.obs_dim)
        reward = np.atleast_1d(np.asarray(reward, np.float32))
        terminated = np.atleast_1d(np.asarray(terminated, np.bool_))
        truncated = np.atleast_1d(np.asarray(truncated, np.bool_))
        k = len(obs)
        for name, value, shape in (
            ("action", action, (k, self.action_dim)),
            ("reward", reward, (k,)),
            ("next_obs", next_obs, obs.shape),
            ("terminated", terminated, (k,)),
            ("truncated", truncated, (k,)),
        ):
            if value.shape != shape:
                raise ValueError(f"{name} has shape {list(value.shape)}, expected {list(shape)}")
        for name, value in (("obs", obs), ("action", action), ("reward", reward), ("next_obs", next_obs)):
            self._finite(name, value, step)
        outside = (action < self.low - self._slack) | (action > self.high + self._slack)
        if outside.any():
            env, joint = (int(i) for i in np.argwhere(outside)[0])
            raise ValueError(
                f"action {action[env, joint]} of {self._joint(joint)} at env {env}, step {step}"
                f" is outside [{self.low[joint]}, {self.high[joint]}]"
            )
        return Transitions(obs, action, reward, next_obs, terminated, truncated)

    def _joint(self, index: int) -> str:
        return self._joints[index] if index < len(self._joints) else f"joint {index}"

    def _rows(self, name: str, value: np.ndarray, columns: int) -> np.ndarray:
        rows = np.asarray(value, np.float32)
        if rows.ndim not in (1, 2) or rows.shape[-1] != columns:
            raise ValueError(f"{name} has shape {list(rows.shape)}, expected [{columns}] or [k, {columns}]")
        return np.ascontiguousarray(rows.reshape(-1, columns))

    def _finite(self, name: str, value: np.ndarray, step: int) -> None:
        if not np.isfinite(value).all():
            where = np.argwhere(~np.isfinite(value))[0]
            bad = value[tuple(where)]
            column = f" (column {where[1]})" if len(where) > 1 else ""
            raise ValueError(f"{name} {bad} at env {where[0]}, step {step}{column}")
