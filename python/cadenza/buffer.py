"""Fading replay: a ring whose oldest third fades out of the draws (spec/symphony.md §3.5).

The first `explore_steps` transitions are collected, rewards are divided once by their mean magnitude, and
the block is tiled to fill the capacity. From then on each new transition overwrites the oldest one, except
that a terminal transition survives one extra cycle.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

_ARRAYS = ("obs", "action", "reward", "next_obs", "discount", "protect")


@dataclass(frozen=True)
class Batch:
    """Sampled transitions: NumPy arrays or torch tensors, one row per transition.

    Attributes:
        obs: [B, n_s].
        action: [B, n_a], normalised to (-1, 1).
        reward: [B], divided by the reward norm.
        next_obs: [B, n_s].
        discount: [B], γ where the episode may go on, 0 after a terminal.
    """

    obs: Any
    action: Any
    reward: Any
    next_obs: Any
    discount: Any


def fading_weight(x: np.ndarray) -> np.ndarray:
    """w(x) = tanh((πx)^e) for age x in [0, 1), 0 the oldest."""
    return np.tanh((np.pi * np.asarray(x, dtype=np.float64)) ** np.e)


def fading_cdf(capacity: int) -> np.ndarray:
    """Cumulative probabilities of the logical indices 0 (oldest) … capacity - 1; the last entry is exactly 1.

    With capacity 1 the only weight is 0; the entry 1 still makes it the one that is drawn.
    """
    weights = fading_weight(np.arange(capacity) / capacity)
    cdf = np.cumsum(weights)
    if cdf[-1] > 0.0:
        cdf /= cdf[-1]
    cdf[-1] = 1.0
    return cdf


class FadingReplay:
    """Ring of `explore_steps * tiles` transitions in contiguous float32 arrays.

    Args:
        obs_dim: observation size n_s.
        action_dim: action size n_a.
        explore_steps: transitions collected before tiling.
        tiles: how often the explored block is repeated.
        reward_floor: least reward norm.
        protect_forever: the official code's rule: test one slot only and keep the flag. Otherwise a terminal
            survives exactly one extra cycle.
        task: name used in the warning about zero rewards.

    Attributes:
        count: transitions stored.
        head: slot of the oldest transition.
        reward_norm: r̄, by which stored rewards are divided; 1 before tiling.
        ready: tiling is done.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        explore_steps: int,
        tiles: int,
        *,
        reward_floor: float = 0.0,
        protect_forever: bool = False,
        task: str = "",
    ) -> None:
        if explore_steps < 1 or tiles < 1:
            raise ValueError(f"explore_steps {explore_steps} and tiles {tiles} must be at least 1")
        self.explore_steps = explore_steps
        self.capacity = explore_steps * tiles
        self.reward_floor = reward_floor
        self.protect_forever = protect_forever
        self.task = task
        self.count = 0
        self.head = 0
        self.reward_norm = 1.0
        # np.empty: pages are touched when they are first written
        self.obs = np.empty((self.capacity, obs_dim), np.float32)
        self.action = np.empty((self.capacity, action_dim), np.float32)
        self.reward = np.empty(self.capacity, np.float32)
        self.next_obs = np.empty((self.capacity, obs_dim), np.float32)
        self.discount = np.empty(self.capacity, np.float32)
        self.protect = np.empty(self.capacity, np.bool_)
        self._cdf: np.ndarray | None = None

    @property
    def ready(self) -> bool:
        """Whether the explored block was tiled, so that batches can be drawn."""
        return self._cdf is not None

    def add(
        self,
        obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        next_obs: np.ndarray,
        discount: np.ndarray,
        terminated: np.ndarray,
    ) -> None:
        """Store k transitions in row order; tiles when `explore_steps` are reached.

        Raises:
            ValueError: k transitions would run past `explore_steps` while exploring.
        """
        k = len(reward)
        if not self.ready:
            end = self.count + k
            if end > self.explore_steps:
                raise ValueError(
                    f"{k} transitions do not fit: {self.count} of {self.explore_steps} exploration steps done"
                )
            self._write(slice(self.count, end), obs, action, reward, next_obs, discount, terminated)
            self.count = end
            if end == self.explore_steps:
                self._tile()
            return
        reward = reward / self.reward_norm
        end = self.head + k
        if end <= self.capacity and not self.protect[self.head : end].any():
            self._write(slice(self.head, end), obs, action, reward, next_obs, discount, terminated)
            self.head = end % self.capacity
            return
        for i in range(k):
            self._pass_protected()
            self._write(self.head, obs[i], action[i], reward[i], next_obs[i], discount[i], terminated[i])
            self.head = (self.head + 1) % self.capacity

    def sample(self, uniforms: np.ndarray, out: Batch) -> None:
        """Draw one transition per uniform in [0, 1) with replacement into the float32 arrays of `out`.

        Raises:
            RuntimeError: the explored block is not complete.
        """
        if self._cdf is None:
            raise RuntimeError(
                f"nothing to draw: {self.count} of {self.explore_steps} exploration steps done"
            )
        slots = np.searchsorted(self._cdf, uniforms, side="right")
        slots += self.head
        slots %= self.capacity
        # mode="wrap" never wraps here: it lets take write into `out` without an intermediate copy
        for source, target in (
            (self.obs, out.obs),
            (self.action, out.action),
            (self.reward, out.reward),
            (self.next_obs, out.next_obs),
            (self.discount, out.discount),
        ):
            source.take(slots, 0, target, "wrap")

    def state_dict(self) -> dict[str, Any]:
        """Counters and arrays. The arrays are the live ones: write or copy them before the next `add`."""
        state: dict[str, Any] = {"count": self.count, "head": self.head, "reward_norm": self.reward_norm}
        state |= {name: getattr(self, name)[: self.count] for name in _ARRAYS}
        return state

    def check_state(self, state: dict[str, Any]) -> None:
        """Raise ValueError, naming the field, when `state` does not fit this buffer; changes nothing."""
        for name in ("count", "head", "reward_norm", *_ARRAYS):
            if name not in state:
                raise ValueError(f"checkpoint lacks buffer.{name}")
        count, head = int(state["count"]), int(state["head"])
        if not (0 <= count < self.explore_steps or count == self.capacity):
            raise ValueError(
                f"checkpoint holds {count} transitions, this buffer has capacity {self.capacity}"
            )
        if not 0 <= head < self.capacity:
            raise ValueError(f"checkpoint head {head} is outside the capacity {self.capacity}")
        for name in _ARRAYS:
            mine, theirs = getattr(self, name)[:count], np.asarray(state[name])
            if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
                raise ValueError(
                    f"checkpoint {name} is {theirs.dtype}{list(theirs.shape)}, "
                    f"expected {mine.dtype}{list(mine.shape)}"
                )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; checks first, so that a foreign state changes nothing."""
        self.check_state(state)
        self.count, self.head = int(state["count"]), int(state["head"])
        self.reward_norm = float(state["reward_norm"])
        for name in _ARRAYS:
            getattr(self, name)[: self.count] = state[name]
        self._cdf = fading_cdf(self.capacity) if self.count == self.capacity else None

    def _pass_protected(self) -> None:
        if self.protect_forever:
            if self.protect[self.head]:
                self.head = (self.head + 1) % self.capacity
            return
        # every flag that is passed is cleared, so this ends even if all slots are terminal
        while self.protect[self.head]:
            self.protect[self.head] = False
            self.head = (self.head + 1) % self.capacity

    def _write(self, at: int | slice, obs, action, reward, next_obs, discount, terminated) -> None:
        self.obs[at] = obs
        self.action[at] = action
        self.reward[at] = reward
        self.next_obs[at] = next_obs
        self.discount[at] = discount
        self.protect[at] = terminated

    def _tile(self) -> None:
        block = slice(0, self.explore_steps)
        mean = float(np.abs(self.reward[block], dtype=np.float64).mean())
        self.reward_norm = max(mean, self.reward_floor)
        if mean == 0.0:
            self.reward_norm = 1.0
            warnings.warn(
                f"{self.task or 'task'}: every exploration reward is 0; rewards stay as they are",
                stacklevel=2,
            )
        self.reward[block] /= self.reward_norm
        for name in _ARRAYS:
            array = getattr(self, name)
            array.reshape(-1, self.explore_steps, *array.shape[1:])[1:] = array[block]
        self.count = self.capacity
        self._cdf = fading_cdf(self.capacity)
