"""Replays: rings of transitions in contiguous arrays. `UniformReplay` draws every transition alike.

`FadingReplay` is Symphony's (spec/symphony.md §3.5): the first `explore_steps` transitions are collected,
rewards are divided once by their mean magnitude, and the block is tiled to fill the capacity. From then on
each new transition overwrites the oldest one, except that a terminal transition survives one extra cycle. The
oldest third fades out of the draws.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Batch:
    """Sampled transitions: NumPy arrays or torch tensors, one row per transition.

    Attributes:
        obs: [B, n_s].
        action: [B, n_a], normalised to (-1, 1).
        reward: [B]; `FadingReplay` has divided it by the reward norm.
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


class Replay:
    """What the replays share: arrays of `capacity` transitions, gathering, and their state.

    Args:
        obs_dim: observation size n_s.
        action_dim: action size n_a.
        capacity: transitions.

    Attributes:
        count: transitions stored.
        head: slot that is written next once the ring is full.
    """

    ARRAYS: tuple[str, ...] = ("obs", "action", "reward", "next_obs", "discount")
    COUNTERS: tuple[str, ...] = ("count", "head")

    def __init__(self, obs_dim: int, action_dim: int, capacity: int) -> None:
        self.capacity = capacity
        self.count = 0
        self.head = 0
        # np.empty: pages are touched when they are first written
        self.obs = np.empty((capacity, obs_dim), np.float32)
        self.action = np.empty((capacity, action_dim), np.float32)
        self.reward = np.empty(capacity, np.float32)
        self.next_obs = np.empty((capacity, obs_dim), np.float32)
        self.discount = np.empty(capacity, np.float32)

    def gather(self, slots: np.ndarray, out: Batch) -> None:
        """Copy the transitions of these slots, which exist, into the float32 arrays of `out`."""
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
        state: dict[str, Any] = {name: getattr(self, name) for name in self.COUNTERS}
        state |= {name: getattr(self, name)[: self.count] for name in self.ARRAYS}
        return state

    def check_state(self, state: dict[str, Any]) -> None:
        """Raise ValueError, naming the field, when `state` does not fit this buffer; changes nothing."""
        for name in (*self.COUNTERS, *self.ARRAYS):
            if name not in state:
                raise ValueError(f"checkpoint lacks buffer.{name}")
        count, head = int(state["count"]), int(state["head"])
        if not self._possible(count):
            raise ValueError(
                f"checkpoint holds {count} transitions, this buffer has capacity {self.capacity}"
            )
        if not 0 <= head < self.capacity:
            raise ValueError(f"checkpoint head {head} is outside the capacity {self.capacity}")
        for name in self.ARRAYS:
            mine, theirs = getattr(self, name)[:count], np.asarray(state[name])
            if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
                raise ValueError(
                    f"checkpoint {name} is {theirs.dtype}{list(theirs.shape)}, "
                    f"expected {mine.dtype}{list(mine.shape)}"
                )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; checks first, so that a foreign state changes nothing."""
        self.check_state(state)
        for name in self.COUNTERS:
            setattr(self, name, type(getattr(self, name))(state[name]))
        for name in self.ARRAYS:
            getattr(self, name)[: self.count] = state[name]

    def _possible(self, count: int) -> bool:
        return 0 <= count <= self.capacity

    def _write(self, at: int | slice, obs, action, reward, next_obs, discount) -> None:
        self.obs[at] = obs
        self.action[at] = action
        self.reward[at] = reward
        self.next_obs[at] = next_obs
        self.discount[at] = discount


class UniformReplay(Replay):
    """Ring whose draws are uniform over what is stored; the oldest transition is overwritten first."""

    def add(
        self,
        obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        next_obs: np.ndarray,
        discount: np.ndarray,
    ) -> None:
        """Store k transitions in row order.

        Raises:
            ValueError: more transitions than the capacity.
        """
        k = len(reward)
        if k > self.capacity:
            raise ValueError(f"{k} transitions do not fit into the capacity {self.capacity}")
        end = self.head + k
        if end < self.capacity:  # the common case, a few microseconds
            self._write(slice(self.head, end), obs, action, reward, next_obs, discount)
            self.head = end
        else:
            rows, first = (obs, action, reward, next_obs, discount), self.capacity - self.head
            self._write(slice(self.head, self.capacity), *(x[:first] for x in rows))
            self._write(slice(0, k - first), *(x[first:] for x in rows))
            self.head = end - self.capacity
        if self.count < self.capacity:
            self.count = min(self.count + k, self.capacity)

    def sample(self, uniforms: np.ndarray, out: Batch) -> None:
        """Draw one transition per uniform in [0, 1) with replacement into the float32 arrays of `out`.

        Raises:
            RuntimeError: nothing is stored.
        """
        if not self.count:
            raise RuntimeError("nothing to draw: the replay is empty")
        self.gather((uniforms * self.count).astype(np.intp), out)


class FadingReplay(Replay):
    """Ring of `explore_steps * tiles` transitions in contiguous float32 arrays.

    Args:
        obs_dim: observation size n_s.
        action_dim: action size n_a.
        explore_steps: transitions collected before tiling.
        tiles: how often the explored block is repeated.
        reward_floor: least mean magnitude of rewards that counts.
        return_scale: reward norm over that magnitude.
        protect_forever: the official code's rule: test one slot only and keep the flag. Otherwise a terminal
            survives exactly one extra cycle.
        task: name used in the warning about zero rewards.

    Attributes:
        head: slot of the oldest transition.
        reward_norm: r̄, by which stored rewards are divided; 1 before tiling.
        ready: tiling is done.
    """

    ARRAYS = (*Replay.ARRAYS, "protect")
    COUNTERS = (*Replay.COUNTERS, "reward_norm")

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        explore_steps: int,
        tiles: int,
        *,
        reward_floor: float = 0.0,
        return_scale: float = 1.0,
        protect_forever: bool = False,
        task: str = "",
    ) -> None:
        if explore_steps < 1 or tiles < 1:
            raise ValueError(f"explore_steps {explore_steps} and tiles {tiles} must be at least 1")
        super().__init__(obs_dim, action_dim, explore_steps * tiles)
        self.explore_steps = explore_steps
        self.reward_floor, self.return_scale = reward_floor, return_scale
        self.protect_forever = protect_forever
        self.task = task
        self.reward_norm = 1.0
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
            self._store(slice(self.count, end), obs, action, reward, next_obs, discount, terminated)
            self.count = end
            if end == self.explore_steps:
                self._tile()
            return
        reward = reward / self.reward_norm
        end = self.head + k
        if end <= self.capacity and not (
            self.protect[self.head] if k == 1 else self.protect[self.head : end].any()
        ):
            self._store(slice(self.head, end), obs, action, reward, next_obs, discount, terminated)
            self.head = end % self.capacity
            return
        for i in range(k):
            self._pass_protected()
            self._store(self.head, obs[i], action[i], reward[i], next_obs[i], discount[i], terminated[i])
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
        self.gather(slots, out)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Replay.load_state_dict`."""
        super().load_state_dict(state)
        self._cdf = fading_cdf(self.capacity) if self.count == self.capacity else None

    def _possible(self, count: int) -> bool:
        return 0 <= count < self.explore_steps or count == self.capacity

    def _pass_protected(self) -> None:
        if self.protect_forever:
            if self.protect[self.head]:
                self.head = (self.head + 1) % self.capacity
            return
        # every flag that is passed is cleared, so this ends even if all slots are terminal
        while self.protect[self.head]:
            self.protect[self.head] = False
            self.head = (self.head + 1) % self.capacity

    def _store(self, at: int | slice, obs, action, reward, next_obs, discount, terminated) -> None:
        self._write(at, obs, action, reward, next_obs, discount)
        self.protect[at] = terminated

    def _tile(self) -> None:
        block = slice(0, self.explore_steps)
        mean = float(np.abs(self.reward[block], dtype=np.float64).mean())
        self.reward_norm = max(mean, self.reward_floor) * self.return_scale
        if mean == 0.0:
            self.reward_norm = 1.0
            warnings.warn(
                f"{self.task or 'task'}: every exploration reward is 0; rewards stay as they are",
                stacklevel=2,
            )
        self.reward[block] /= self.reward_norm
        for name in self.ARRAYS:
            array = getattr(self, name)
            array.reshape(-1, self.explore_steps, *array.shape[1:])[1:] = array[block]
        self.count = self.capacity
        self._cdf = fading_cdf(self.capacity)


class Draw:
    """Reused storage of one sampled batch.

    Args:
        rows: B.
        obs_dim: observation size n_s.
        action_dim: action size n_a.
        dtype: precision of the networks.
        device: where they live.

    Attributes:
        staging: the transitions that were drawn last, float32 NumPy arrays.
    """

    def __init__(
        self, rows: int, obs_dim: int, action_dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._uniforms = torch.empty(rows, dtype=torch.float64)
        shapes = ((rows, obs_dim), (rows, action_dim), (rows,), (rows, obs_dim), (rows,))
        self._tensors = [torch.empty(shape) for shape in shapes]
        self.staging = Batch(*(t.numpy() for t in self._tensors))
        self._dtype, self._device = dtype, device
        self._as_is = Batch(*self._tensors) if dtype == torch.float32 and device.type == "cpu" else None

    def sample(self, replay: "UniformReplay | FadingReplay", generator: torch.Generator) -> Batch:
        """Draw from `replay`; the batch is in the agent's precision, on its device."""
        self._uniforms.uniform_(generator=generator)
        replay.sample(self._uniforms.numpy(), self.staging)
        if self._as_is is not None:
            return self._as_is
        return Batch(*(t.to(self._device, self._dtype) for t in self._tensors))
