"""A bundle without a robot: its action sequences in any gymnasium task, on the virtual clock.

Trigger, delay, seam, hold and hand-back are the runtime's own code; nothing of it is repeated here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cadenza import _native

if TYPE_CHECKING:
    import gymnasium

    from cadenza.runtime import Bundle, RunConfig

Decode = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Played:
    """One step of a :class:`SequencePlayer`.

    Attributes:
        action: the action in graph units `[A]`.
        flow: `"run"`, `"hold"` (no action for this step: the last one again) or `"exhausted"` (for longer
            than the hold time; a robot would brake here).
    """

    action: np.ndarray
    flow: str


@dataclass(frozen=True)
class Episode:
    """One episode of :meth:`SequencePlayer.play`.

    Attributes:
        observations: what the policy could see, before each step `[T, S]`.
        actions: what the sequence gave, graph units `[T, A]`.
        rewards: of each step `[T]`.
        flows: `"run"`, `"hold"` or `"exhausted"` of each step.
        terminated: whether the task ended it.
        truncated: whether a time limit did.
        counts: questions `asked`, answers `accepted`, `expired` and `refused`, `expired_actions`.
        info: the last step's `info`.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    flows: list[str]
    terminated: bool
    truncated: bool
    counts: dict[str, int]
    info: dict[str, Any]

    @property
    def total(self) -> float:
        """Sum of the rewards."""
        return float(self.rewards.sum())


class SequencePlayer:
    """Plays a bundle of any mode (single actions, open sequences, sequences decoded step by step).

    One tick is one policy step and time moves by exactly that: `inject="const:5ticks"` delays an answer by
    five steps. With no answer the last action is held, before the first one the bundle's reset action.

    Args:
        bundle: path of a `.cadenza` file, or an open `Bundle`.
        config: its `trigger`, `inject`, `seam`, `freeze` and `late` hold; what concerns a robot has no
            meaning here.
        hold_steps: steps without an action after which the flow is `"exhausted"`.

    Raises:
        _native.RunError: a sequence that cannot be played so; the text names key and value.

    Source: DESIGN §7, spec/runtime.md §6.
    """

    def __init__(
        self, bundle: str | Path | Bundle, *, config: RunConfig | None = None, hold_steps: int = 25
    ) -> None:
        from cadenza.runtime import RunConfig

        if hold_steps < 0:
            raise ValueError(f"hold_steps {hold_steps}: 0 or more")
        self.bundle = bundle if isinstance(bundle, _native.Bundle) else _native.Bundle(str(bundle))
        self.config = config or RunConfig()
        self._native = _native.Player(self.bundle, json.dumps(asdict(self.config)), hold_steps)

    @property
    def counts(self) -> dict[str, int]:
        """Questions and answers since the last reset; see :class:`Episode`."""
        return self._native.counts()

    def reset(self) -> None:
        """A new episode: no plan, no memory, no answer under way."""
        self._native.reset()

    def step(self, obs: np.ndarray) -> Played:
        """The action of this policy step.

        Args:
            obs: observation `[S]`; the policy sees it if it is asked in this step.

        Raises:
            _native.RunError: a length that does not fit, a number that is not finite.
        """
        action, flow = self._native.step(np.ascontiguousarray(obs, np.float32).ravel())
        return Played(action, flow)

    def play(
        self,
        env: gymnasium.Env,
        *,
        seed: int | None = None,
        steps: int | None = None,
        decode: Decode | None = None,
    ) -> Episode:
        """Plays one episode.

        Args:
            env: a task with a flat Box of observations and a bounded Box of actions, stepped at the policy
                rate.
            seed: of the episode's start.
            steps: most steps; until the task ends when `None`.
            decode: action of the environment for one in graph units; when `None`, −1 … 1 spans the Box of
                actions, and what lies outside is clipped to it.

        Raises:
            ValueError: the task's observations or actions do not fit the bundle; the text has both sizes.
            _native.RunError: as for :meth:`step`.
        """
        if steps is not None and steps < 1:
            raise ValueError(f"steps {steps}: at least 1")
        to_env = decode or _spanning(env, self._native.sizes[1])
        seen, sent, rewards, flows = [], [], [], []
        obs, info = env.reset(seed=seed)
        self.reset()
        terminated = truncated = False
        while not (terminated or truncated) and (steps is None or len(rewards) < steps):
            row = np.asarray(obs, np.float32).ravel()
            if row.size != self._native.sizes[0]:
                raise ValueError(
                    f"the task's observation has {row.size} numbers, the bundle's {self._native.sizes[0]}"
                )
            played = self.step(row)
            obs, reward, terminated, truncated, info = env.step(to_env(played.action))
            seen.append(row)
            sent.append(played.action)
            rewards.append(float(reward))
            flows.append(played.flow)
        return Episode(
            np.array(seen), np.array(sent), np.array(rewards), flows, bool(terminated), bool(truncated),
            self.counts, dict(info),
        )  # fmt: skip


def _spanning(env: gymnasium.Env, actions: int) -> Decode:
    """−1 … 1 over the bounds of the task's actions."""
    space = env.action_space
    low, high = (np.asarray(getattr(space, side, np.nan), np.float64) for side in ("low", "high"))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(f"the task's actions are {space}: give decode, or a Box with finite bounds")
    if low.size != actions:
        raise ValueError(f"the task's action has {low.size} numbers, the bundle's {actions}")
    centre, span, dtype = (high + low) / 2.0, (high - low) / 2.0, space.dtype
    return lambda u: np.clip(centre + span * u.reshape(low.shape), low, high).astype(dtype)
