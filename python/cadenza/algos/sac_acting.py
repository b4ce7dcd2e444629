"""How SAC acts: a squashed Gaussian, uniform before training, actions that may be held (SAC-J)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from cadenza.algos import EnvInfo
from cadenza.algos.acting import Acting
from cadenza.algos.boundary import Boundary, Transitions
from cadenza.algos.sac_config import SacConfig
from cadenza.mlp import MlpBatch, MlpShape
from cadenza.nn import tanh_

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
_LOG_2, _LOG_NORM = math.log(2.0), 0.5 * math.log(2.0 * math.pi)


class SacActing(Acting):
    """See `Acting`; `config` holds the settings."""

    def __init__(
        self,
        config: SacConfig,
        boundary: Boundary,
        env_info: EnvInfo,
        parameters: Tensor,
        generator: torch.Generator,
    ) -> None:
        super().__init__(boundary, env_info, parameters, generator)
        self.config = config
        self._shape = actor_shape(config, boundary)
        self._policies: dict[int, SquashedGaussian] = {}
        self._hold = Hold.empty(0, boundary.obs_dim, boundary.action_dim)

    @classmethod
    def alone(
        cls,
        config: SacConfig,
        obs_dim: int,
        action_low: np.ndarray,
        action_high: np.ndarray,
        *,
        seed: int,
        env_info: EnvInfo,
    ) -> Self:
        """See `Acting.alone`."""
        boundary = Boundary(obs_dim, action_low, action_high, joints=env_info.joints)
        parameters = torch.zeros(actor_shape(config, boundary).stride)
        return cls(config, boundary, env_info, parameters, torch.Generator().manual_seed(seed))

    @torch.inference_mode()
    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """See `Sac.act`."""
        rows = self.boundary.observations(obs, self.env_steps + 1)
        k, n_a = len(rows), self.boundary.action_dim
        if explore and not self.ready:
            u = torch.empty((k, n_a)).uniform_(-1.0, 1.0, generator=self.generator).numpy()
        else:
            policy = self._policies.get(k)
            if policy is None:
                policy = SquashedGaussian(MlpBatch(self._shape, self.parameters, 1, k))
                self._policies[k] = policy
            given = torch.from_numpy(rows)
            if explore:
                policy.forward(given, self.normal(k))
                u = policy.action.cpu().numpy()
            else:
                u = policy.mode(given).cpu().numpy()
        if explore and len(self._hold.age) == k and self._hold.age.any():
            u = np.where((self._hold.age > 0)[:, None], self._hold.action, u)
        return self.boundary.actions(u).reshape((*np.shape(obs)[:-1], n_a))

    def normal(self, rows: int) -> Tensor:
        """Standard normals [rows, n_a]."""
        noise = torch.empty((rows, self.boundary.action_dim), dtype=self.parameters.dtype)
        return noise.normal_(generator=self.generator).to(self.parameters.device)

    def _complete(self, t: Transitions) -> Transitions:
        """The transitions whose action has been held long enough, or whose episode ended."""
        hold = self._hold
        if len(hold.age) != len(t.obs):
            hold = self._hold = Hold.empty(len(t.obs), self.boundary.obs_dim, self.boundary.action_dim)
        first = hold.age == 0
        hold.obs[first], hold.action[first], hold.reward[first] = t.obs[first], t.action[first], 0.0
        hold.reward += t.reward
        hold.age += 1
        ended = (hold.age >= self.config.action_repeat) | t.terminated | t.truncated
        hold.age[ended] = 0
        return Transitions(
            hold.obs[ended], hold.action[ended], hold.reward[ended], t.next_obs[ended],
            t.terminated[ended], t.truncated[ended],
        )  # fmt: skip

    def progress(self) -> dict[str, Any]:
        """See `Acting.progress`."""
        return {"hold": asdict(self._hold)}

    def load_progress(self, progress: Mapping[str, Any]) -> None:
        """See `Acting.load_progress`."""
        self._hold = Hold(**{name: np.array(value) for name, value in progress["hold"].items()})


def actor_shape(config: SacConfig, boundary: Boundary) -> MlpShape:
    """The actor's network: mean and log std for each action."""
    return MlpShape(boundary.obs_dim, config.hidden, 2 * boundary.action_dim)


class SquashedGaussian:
    """u = tanh(mean + std·n) on the output of a network, its log-density, and the derivative of both.

    Args:
        net: the network on fixed rows; its output holds mean and log std, [B, 2·n_a].

    Attributes:
        action: u, [B, n_a].
        log_prob: [B].
    """

    def __init__(self, net: MlpBatch) -> None:
        out = net.output[0]
        n = out.shape[1] // 2
        self.net = net
        self._mean, self._raw = out[:, :n], out[:, n:]
        self.action = torch.zeros_like(self._mean, memory_format=torch.contiguous_format)
        self.log_prob = out.new_zeros(len(out))

    def forward(self, obs: Tensor, noise: Tensor) -> None:
        """Sample for observations [B, n_s] with standard normal `noise` [B, n_a]."""
        self.net.input.copy_(obs)
        self.net.forward()
        self._log_std = self._raw.clamp(LOG_STD_MIN, LOG_STD_MAX)
        self._spread = self._log_std.exp().mul_(noise)
        x = torch.add(self._mean, self._spread)
        # ln(1 - tanh² x) = 2·(ln 2 - x - softplus(-2x)), exact also where tanh x rounds to ±1
        squash = nn.functional.softplus(-2.0 * x).add_(x).sub_(_LOG_2)
        density = torch.addcmul(self._log_std, noise, noise, value=0.5).add_(_LOG_NORM)
        torch.sum(2.0 * squash - density, 1, out=self.log_prob)
        self.action.copy_(tanh_(x))

    def mode(self, obs: Tensor) -> Tensor:
        """tanh(mean) for observations [B, n_s]."""
        self.net.input.copy_(obs)
        self.net.forward()
        return tanh_(self._mean.clone())

    def backward(self, d_action: Tensor, d_log_prob: Tensor) -> None:
        """Write the network's gradients from those by u [B, n_a] and by log π (one for all rows)."""
        n, u = d_action.shape[1], self.action
        # d(log π)/dx = 2u through the squash; the Gaussian's own density depends on log std alone
        d_x = d_action.mul_(torch.addcmul(u.new_ones(()), u, u, value=-1.0)).add_(u * (2.0 * d_log_prob))
        out = self.net.output_gradient[0]
        out[:, :n] = d_x
        out[:, n:] = d_x.mul_(self._spread).sub_(d_log_prob).mul_(self._log_std == self._raw)
        self.net.backward()


@dataclass
class Hold:
    """The decision that each of k environments is carrying out.

    Attributes:
        age: steps that it has been held; 0: the next step begins a new one.
        obs: observation that it was taken on.
        action: normalised action.
        reward: sum of rewards so far.
    """

    age: np.ndarray
    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray

    @classmethod
    def empty(cls, k: int, obs_dim: int, action_dim: int) -> Hold:
        return cls(
            np.zeros(k, np.int64), np.zeros((k, obs_dim), np.float32), np.zeros((k, action_dim), np.float32),
            np.zeros(k, np.float32),
        )  # fmt: skip
