"""Algorithms, and what they share with the training loop (spec/training.md §4).

An algorithm acts, observes transitions and updates; it knows nothing of files, progress bars or environments.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

if TYPE_CHECKING:
    from cadenza.algos.acting import Acting
    from cadenza.algos.boundary import Transitions
    from cadenza.buffer import Batch


@dataclass(frozen=True)
class EnvInfo:
    """What an algorithm may know about its task.

    Attributes:
        task: name for messages.
        joints: action names in action order, for messages; empty if unnamed.
        max_episode_steps: step limit of an episode, None if there is none.
        hardware: the environment is a real robot.
    """

    task: str = ""
    joints: tuple[str, ...] = ()
    max_episode_steps: int | None = None
    hardware: bool = False


class TrainingDiverged(RuntimeError):
    """A loss term became non-finite; raised before the step that it would have spoilt.

    Attributes:
        step: number of the update that failed, from 1.
        term: which quantity.
        value: its value.
    """

    def __init__(self, step: int, term: str, value: float) -> None:
        super().__init__(f"training diverged at update {step}: {term} is {value}")
        self.step = step
        self.term = term
        self.value = value


class Algorithm(Protocol):
    """What the training loop needs. k is the number of parallel environments.

    Attributes:
        acting: the part that acts, on the agent's own parameters and generator.
        Acting: its class, to make one elsewhere.
        updates: gradient steps so far.
    """

    Acting: type["Acting"]
    acting: "Acting"
    updates: int

    @property
    def action_repeat(self) -> int:
        """Environment steps for which an action holds; `act` and `observe` are called at each of them."""
        ...

    @property
    def ready(self) -> bool:
        """Enough was observed for updates to begin."""
        ...

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions [k, n_a] float32 in environment units for observations [k, n_s]."""
        ...

    def observe(
        self,
        obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        next_obs: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
    ) -> None:
        """Store k transitions; `next_obs` is the true successor, also where the episode ended."""
        ...

    def store(self, rows: "Transitions") -> None:
        """The second half of `observe`: store what `Acting.follow` completed in one step."""
        ...

    def updates_due(self, k: int) -> int:
        """How many updates follow the step of k environments that was stored last."""
        ...

    @property
    def last_batch(self) -> "Batch":
        """What the last update drew, for the dump of one that failed."""
        ...

    def update(self) -> dict[str, float]:
        """One gradient step; returns its metrics. Raises TrainingDiverged."""
        ...

    def state_dict(self, *, buffer: bool = True) -> dict[str, Any]:
        """All that an exact resume needs: nested dicts of tensors, arrays, numbers, strings and None."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`; raises ValueError, changing nothing, when it does not fit."""
        ...

    def deploy_module(self) -> torch.nn.Module:
        """Noise-free policy, [1, n_s] to [1, n_a] in graph units, of plain torch layers."""
        ...
