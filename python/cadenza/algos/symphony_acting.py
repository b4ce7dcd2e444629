"""How Symphony acts: u = tanh(S⊙A + N), and the fall at the end of an episode (spec/symphony.md §3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from cadenza.algos import EnvInfo
from cadenza.algos.acting import Acting
from cadenza.algos.boundary import Boundary, Transitions
from cadenza.algos.symphony_config import SymphonyConfig
from cadenza.algos.symphony_loss import PolicyPass
from cadenza.nn import BlockBatch, BlockShape


class SymphonyActing(Acting):
    """See `Acting`; `config` holds the settings."""

    def __init__(
        self,
        config: SymphonyConfig,
        boundary: Boundary,
        env_info: EnvInfo,
        parameters: Tensor,
        generator: torch.Generator,
    ) -> None:
        super().__init__(boundary, env_info, parameters, generator)
        self.config = config
        self._shape = actor_shape(config, boundary)
        self._episode_steps = np.zeros(0, np.int64)
        self._policies: dict[int, PolicyPass] = {}

    @classmethod
    def alone(
        cls,
        config: SymphonyConfig,
        obs_dim: int,
        action_low: np.ndarray,
        action_high: np.ndarray,
        *,
        seed: int,
        env_info: EnvInfo,
    ) -> Self:
        """See `Acting.alone`."""
        edges = boundary(config, obs_dim, action_low, action_high, env_info)
        parameters = torch.zeros(actor_shape(config, edges).stride)
        return cls(config, edges, env_info, parameters, torch.Generator().manual_seed(seed))

    @torch.inference_mode()
    def act(self, obs: np.ndarray, *, explore: bool, active: bool | np.ndarray = True) -> np.ndarray:
        """See `Symphony.act`."""
        rows = self.boundary.observations(obs, self.env_steps + 1)
        k, n_a = len(rows), self.boundary.action_dim
        policy = self._policies.get(k)
        if policy is None:
            u = self.parameters.new_zeros((k, n_a))
            policy = self._policies[k] = PolicyPass(BlockBatch(self._shape, self.parameters, 1, k), u)
        if explore and self.ready and self.config.final_fall_steps:
            active = np.logical_and(active, ~self._falling(k))
        share = None
        if active is not True:
            share = torch.as_tensor(np.broadcast_to(active, (k,)).astype(np.float32)).to(policy.u)[:, None]
        noise = self.noise(torch.empty_like(policy.u)) if explore else None
        u = policy.forward(torch.from_numpy(rows), noise, share)
        return self.boundary.actions(u.cpu().numpy()).reshape((*np.shape(obs)[:-1], n_a))

    def noise(self, out: Tensor) -> Tensor:
        """Fill `out` with N = noise_std·clip(n, ±noise_clip), n standard normal."""
        clip = self.config.noise_clip
        return out.normal_(generator=self.generator).clamp_(-clip, clip).mul_(self.config.noise_std)

    def _complete(self, t: Transitions) -> Transitions:
        """Every step completes its transitions."""
        if len(self._episode_steps) != len(t.obs):
            self._episode_steps = np.zeros(len(t.obs), np.int64)
        self._episode_steps += 1
        self._episode_steps[t.terminated | t.truncated] = 0
        return t

    def progress(self) -> dict[str, Any]:
        """See `Acting.progress`."""
        return {"episode_steps": self._episode_steps.copy()}

    def load_progress(self, progress: Mapping[str, Any]) -> None:
        """See `Acting.load_progress`."""
        self._episode_steps = np.array(progress["episode_steps"], np.int64)

    def _falling(self, k: int) -> np.ndarray:
        """Rows near the end of their episode: t >= T - final_fall_steps, t from 1, T the limit."""
        limit = self.env_info.max_episode_steps
        assert limit is not None
        steps = self._episode_steps if len(self._episode_steps) == k else np.zeros(k, np.int64)
        return steps + 1 >= limit - self.config.final_fall_steps


def boundary(
    config: SymphonyConfig,
    obs_dim: int,
    action_low: np.ndarray,
    action_high: np.ndarray,
    env_info: EnvInfo,
) -> Boundary:
    """Sizes and bounds of an agent with these settings."""
    return Boundary(
        obs_dim, action_low, action_high, joints=env_info.joints,
        unit=config.action_bounds == "unit", authority=config.authority,
    )  # fmt: skip


def actor_shape(config: SymphonyConfig, boundary: Boundary) -> BlockShape:
    """The actor block: A, S and B for each action."""
    return BlockShape(boundary.obs_dim, config.hidden, 3 * boundary.action_dim)
