"""The part of an agent that acts: what a collector holds, in the learner's process or in another one.

It knows the policy's parameters, the noise, and what each environment is in the middle of; nothing of
critics, optimisers or the replay. An agent has one on its own parameters; a collector elsewhere has one by
itself and gets weights from time to time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch

from cadenza.algos import EnvInfo
from cadenza.algos.boundary import Boundary, Transitions


class Acting(ABC):
    """Acts in k environments and says what is to be stored.

    Args:
        boundary: sizes and action bounds.
        env_info: names and limits of the task.
        parameters: the policy's flat vector; weights are written into it.
        generator: where the noise comes from, on the parameters' device.

    Attributes:
        ready: exploration is over; the agent says so.
        env_steps: steps of all environments together so far.
    """

    def __init__(
        self, boundary: Boundary, env_info: EnvInfo, parameters: torch.Tensor, generator: torch.Generator
    ) -> None:
        self.boundary, self.env_info = boundary, env_info
        self.parameters, self.generator = parameters, generator
        self.ready, self.env_steps = False, 0

    @classmethod
    @abstractmethod
    def alone(
        cls,
        config: Any,
        obs_dim: int,
        action_low: np.ndarray,
        action_high: np.ndarray,
        *,
        seed: int,
        env_info: EnvInfo,
    ) -> Self:
        """One that waits for weights, float32 on the CPU; arguments as of the agent."""

    @abstractmethod
    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Actions [k, n_a] float32 in environment units for observations [k, n_s]."""

    def follow(
        self,
        obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray | float,
        next_obs: np.ndarray,
        terminated: np.ndarray | bool,
        truncated: np.ndarray | bool,
    ) -> Transitions:
        """Take one step of k environments; arguments as of `Algorithm.observe`.

        Returns:
            What it completed, to be stored, with normalised actions; as many rows as environments, or fewer.

        Raises:
            ValueError: a wrong shape, a non-finite number, or an action outside the bounds.
        """
        t = self.boundary.transitions(
            obs, action, reward, next_obs, terminated, truncated, self.env_steps + 1
        )
        self.env_steps += 1
        return self._complete(t._replace(action=self.boundary.normalised(t.action)))

    @abstractmethod
    def _complete(self, t: Transitions) -> Transitions:
        """What this step, with normalised actions, completed."""

    def weights(self) -> np.ndarray:
        """A copy of the policy's parameters."""
        return self.parameters.cpu().numpy().copy()

    def load_weights(self, weights: np.ndarray) -> None:
        """Take `weights`. ValueError for another number of them."""
        if np.shape(weights) != tuple(self.parameters.shape):
            raise ValueError(f"{np.size(weights)} weights for a policy of {len(self.parameters)}")
        self.parameters.copy_(torch.from_numpy(np.asarray(weights)))

    @abstractmethod
    def progress(self) -> dict[str, Any]:
        """Arrays of what the environments are in the middle of."""

    @abstractmethod
    def load_progress(self, progress: Mapping[str, Any]) -> None:
        """Restore `progress`."""

    def state_dict(self) -> dict[str, Any]:
        """All of a collector's own, without weights."""
        return {"env_steps": self.env_steps, "generator": self.generator.get_state(), **self.progress()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`."""
        self.env_steps = int(state["env_steps"])
        self.generator.set_state(torch.as_tensor(state["generator"]))
        self.load_progress(state)
