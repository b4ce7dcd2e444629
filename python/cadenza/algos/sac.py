"""Soft actor-critic, the baseline: squashed Gaussian actor, twin critics, learned temperature.

After Haarnoja et al., arXiv 1812.05905; the update's order is that of stable-baselines3: temperature from the
old policy, critics, then actor against the new critics, then targets. Reads top to bottom: storage, acting
and observing, learning, state, deployment. `sac_config` holds the settings, `sac_acting` how it acts,
`cadenza.mlp` the networks, `cadenza.buffer` the replay.
"""

import math
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cadenza.algos import EnvInfo, TrainingDiverged
from cadenza.algos.boundary import Boundary, Transitions
from cadenza.algos.sac_acting import SacActing, SquashedGaussian, actor_shape
from cadenza.algos.sac_config import SacConfig
from cadenza.algos.state import check_state
from cadenza.buffer import Batch, Draw, UniformReplay
from cadenza.mlp import MlpBatch, MlpShape, mlp
from cadenza.nn import ALIGN

STATE_FORMAT = 1
CRITICS = 2


class Losses(NamedTuple):
    """Scalars of one update.

    Attributes:
        critic: half the summed mean squared errors of both critics.
        actor: mean of temperature·log π - min Q.
        temperature: α before the update.
        entropy: -mean log π of the sampled actions.
        q_mean: mean of both critics on the batch.
    """

    critic: float
    actor: float
    temperature: float
    entropy: float
    q_mean: float


class Sac:
    """The agent; actions are normalised to (-1, 1) inside.

    Args:
        config: settings.
        obs_dim: observation size n_s.
        action_low: lower action bounds [n_a], environment units.
        action_high: upper action bounds [n_a].
        seed: seeds every random number of the agent.
        device: where the networks live.
        env_info: names of the task, for messages.
        dtype: precision of the networks; the replay is always float32.

    Raises:
        ValueError: bounds that are infinite or empty.
    """

    Acting = SacActing

    def __init__(
        self,
        config: SacConfig,
        obs_dim: int,
        action_low: np.ndarray,
        action_high: np.ndarray,
        *,
        seed: int,
        device: str | torch.device = "cpu",
        env_info: EnvInfo | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config, self.env_info = config, env_info or EnvInfo()
        self.boundary = Boundary(obs_dim, action_low, action_high, joints=self.env_info.joints)
        self.obs_dim, self.action_dim = self.boundary.obs_dim, self.boundary.action_dim
        self.device, self.dtype = torch.device(device), dtype
        n_s, n_a, rows = self.obs_dim, self.action_dim, config.batch

        # one flat vector: two critics | actor, log temperature | two target critics
        self._critic_shape = MlpShape(n_s + n_a, config.hidden, 1)
        self._actor_shape = actor_shape(config, self.boundary)
        critics, actor = CRITICS * self._critic_shape.stride, self._actor_shape.stride
        self._flat = torch.zeros(2 * critics + actor + ALIGN, dtype=dtype, device=self.device)
        self._trained = self._flat[: critics + actor + ALIGN]
        self._critics, self._policy = self._trained[:critics], self._trained[critics:]
        self._actor, self._log_temperature = self._policy[:actor], self._policy[actor]
        self._targets = self._flat[len(self._trained) :]
        self.gradient = torch.zeros_like(self._trained)
        self._moment1, self._moment2 = torch.zeros_like(self._trained), torch.zeros_like(self._trained)
        self._adam_steps = [torch.zeros((), device=self.device) for _ in range(2)]
        self._adam_critics = self._adam(slice(0, critics), self._adam_steps[0])
        self._adam_policy = self._adam(slice(critics, None), self._adam_steps[1])

        self._generator = torch.Generator().manual_seed(seed)
        self._actor_shape.initialise(self._actor, 0, self._generator)
        for i in range(CRITICS):
            self._critic_shape.initialise(self._critics, i, self._generator)
        self._targets.copy_(self._critics)
        self._log_temperature.fill_(math.log(config.initial_temperature))
        self._target_entropy = -float(n_a) if config.target_entropy is None else config.target_entropy

        self._now = SquashedGaussian(
            MlpBatch(self._actor_shape, self._actor, 1, rows, gradient=self.gradient[critics:])
        )
        self._next = SquashedGaussian(MlpBatch(self._actor_shape, self._actor, 1, rows))
        self._critic = MlpBatch(
            self._critic_shape, self._critics, CRITICS, rows, gradient=self.gradient[:critics]
        )
        self._judge = MlpBatch(
            self._critic_shape, self._critics, CRITICS, rows, input_columns=slice(n_s, None)
        )
        self._target = MlpBatch(self._critic_shape, self._targets, CRITICS, rows)
        self.acting = SacActing(config, self.boundary, self.env_info, self._actor, self._generator)
        self.buffer = UniformReplay(n_s, n_a, config.capacity)
        self._draw = Draw(rows, n_s, n_a, dtype, self.device)
        self.env_steps = self.updates = self._due = 0

    # ---- acting and observing --------------------------------------------------------------------

    @property
    def action_repeat(self) -> int:
        """Environment steps for which an action holds."""
        return self.config.action_repeat

    @property
    def ready(self) -> bool:
        """Exploration is over."""
        return self.buffer.count >= self.config.explore_steps

    def updates_due(self, k: int) -> int:
        """Gradient steps after the last step of k environments: for each transition that it completed."""
        return self._due * self.config.updates_per_step if self.ready else 0

    def act(self, obs: np.ndarray, *, explore: bool) -> np.ndarray:
        """Choose actions; with `explore` uniformly before training, then from the policy's distribution.

        Rows whose last exploring action still holds (`action_repeat`) keep it. Without `explore` every call
        decides anew.

        Args:
            obs: observations, [n_s] or [k, n_s].
            explore: sample; without it the policy is deterministic.

        Returns:
            Actions in environment units, float32, [n_a] or [k, n_a].

        Raises:
            ValueError: wrong shape or a non-finite observation.
        """
        return self.acting.act(obs, explore=explore)

    def observe(
        self,
        obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray | float,
        next_obs: np.ndarray,
        terminated: np.ndarray | bool,
        truncated: np.ndarray | bool,
    ) -> None:
        """Take one step of k environments; arguments and errors as in `Symphony.observe`.

        With `action_repeat` a transition is stored when its action has been held long enough or the episode
        ends.
        """
        self.store(self.acting.follow(obs, action, reward, next_obs, terminated, truncated))

    def store(self, rows: Transitions) -> None:
        """Store what one step completed, as `acting.follow` gave it, here or in another process."""
        self.env_steps += 1
        self._due = len(rows.obs)
        if self._due:
            discount = np.where(rows.terminated, np.float32(0.0), np.float32(self.config.gamma))
            self.buffer.add(rows.obs, rows.action, rows.reward, rows.next_obs, discount)
        self.acting.ready = self.ready

    # ---- learning --------------------------------------------------------------------------------

    @torch.inference_mode()
    def update(self) -> dict[str, float]:
        """Draw a batch and take one gradient step with critics, actor and temperature.

        Returns:
            critic, actor, temperature, entropy, q_mean; see `Losses`.

        Raises:
            TrainingDiverged: a term is not finite; nothing changed but, for the term actor, the critics.
            RuntimeError: nothing is stored.
        """
        batch, rows = self._draw.sample(self.buffer, self._generator), self.config.batch
        noise = self.acting.normal(2 * rows)
        return self.learn(batch, noise[:rows], noise[rows:])._asdict()

    @property
    def last_batch(self) -> Batch:
        """The transitions that the last update drew, float32 NumPy arrays, overwritten by the next one."""
        return self._draw.staging

    @torch.inference_mode()
    def learn(self, batch: Batch, noise: Tensor, next_noise: Tensor) -> Losses:
        """One gradient step on `batch` with the standard normals of both policy samples, [B, n_a] each."""
        n_s, rows = self.obs_dim, self.config.batch
        now, following = self._now, self._next
        now.forward(batch.obs, noise)
        following.forward(batch.next_obs, next_noise)
        temperature = self._log_temperature.exp()
        mean_log_prob = now.log_prob.mean()

        # critics: towards r + γ·(min Q′(s′, u′) - α·log π(u′|s′))
        target, critic = self._target, self._critic
        target.input[:, :n_s], target.input[:, n_s:] = batch.next_obs, following.action
        q_next = target.forward().amin(0)[:, 0]
        y = torch.addcmul(
            batch.reward, batch.discount, torch.addcmul(q_next, following.log_prob, temperature, value=-1.0)
        )
        critic.input[:, :n_s], critic.input[:, n_s:] = batch.obs, batch.action
        error = torch.sub(critic.forward(), y[None, :, None], out=critic.output_gradient)
        td, q_mean, entropy, alpha = torch.stack(
            (error.square().sum().mul_(0.5 / rows), critic.output.mean(), -mean_log_prob, temperature)
        ).tolist()
        self._require_finite(critic=td, entropy=entropy, temperature=alpha)
        error.mul_(1.0 / rows)
        critic.backward()
        self._adam_critics.step()

        # actor: down α·log π - min Q under the new critics; temperature: towards the target entropy
        judge = self._judge
        judge.input[:, :n_s], judge.input[:, n_s:] = batch.obs, now.action
        q_first, q_second = judge.forward()[:, :, 0]
        actor = (temperature * mean_log_prob - torch.minimum(q_first, q_second).mean()).item()
        self._require_finite(actor=actor)
        first_is_least = torch.le(q_first, q_second)
        judge.output_gradient[0, :, 0] = first_is_least * (-1.0 / rows)
        judge.output_gradient[1, :, 0] = ~first_is_least * (-1.0 / rows)
        judge.backward()
        now.backward(judge.input_gradient, temperature / rows)
        self.gradient[len(self._critics) + len(self._actor)] = -(mean_log_prob + self._target_entropy)
        self._adam_policy.step()

        self._targets.lerp_(self._critics, self.config.tau)
        self.updates += 1
        return Losses(td, actor, alpha, entropy, q_mean)

    def _require_finite(self, **terms: float) -> None:
        for name, value in terms.items():
            if not math.isfinite(value):
                raise TrainingDiverged(self.updates + 1, name, value)

    def _adam(self, part: slice, step: Tensor) -> torch.optim.Adam:
        """Adam on a part of the flat vector: one kernel call for all its parameters."""
        parameters = self._trained[part]
        parameters.grad = self.gradient[part]
        adam = torch.optim.Adam([parameters], lr=self.config.lr, fused=True)
        adam.state[parameters] = {
            "step": step, "exp_avg": self._moment1[part], "exp_avg_sq": self._moment2[part],
        }  # fmt: skip
        return adam

    # ---- parameters and state --------------------------------------------------------------------

    def named_parameters(self) -> dict[str, Tensor]:
        """Views of all parameters by name: actor, critic0, critic1, target0, target1, log_temperature."""
        views = {f"actor.{name}": view for name, view in self._actor_shape.named(self._actor).items()}
        for kind, flat in (("critic", self._critics), ("target", self._targets)):
            for i in range(CRITICS):
                for name, view in self._critic_shape.named(flat, i).items():
                    views[f"{kind}{i}.{name}"] = view
        return views | {"log_temperature": self._log_temperature}

    def state_dict(self, *, buffer: bool = True) -> dict[str, Any]:
        """Everything that an exact resume needs. Replay arrays are live: write them before the next step."""
        state: dict[str, Any] = {
            "format": STATE_FORMAT,
            "algorithm": "sac",
            "config": asdict(self.config),
            "obs_dim": self.obs_dim,
            "action_low": self.boundary.low.copy(),
            "action_high": self.boundary.high.copy(),
            "parameters": self._flat.cpu().clone(),
            "moment1": self._moment1.cpu().clone(),
            "moment2": self._moment2.cpu().clone(),
            "env_steps": self.env_steps,
            "updates": self.updates,
            "due": self._due,
            **self.acting.progress(),
            "generator": self._generator.get_state(),
        }
        if buffer:
            state["buffer"] = self.buffer.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`. Without "buffer" in it the replay stays as it is.

        Raises:
            ValueError: a missing entry, another format, algorithm, configuration or size; nothing is changed.
        """
        check_state(state, self.state_dict(buffer=False), {"generator": self._generator})
        if "buffer" in state:
            self.buffer.load_state_dict(state["buffer"])
        for name, mine in (
            ("parameters", self._flat), ("moment1", self._moment1), ("moment2", self._moment2)
        ):  # fmt: skip
            mine.copy_(state[name])
        self.acting.load_progress(state)
        self._due = int(state["due"])
        self.env_steps, self.updates = int(state["env_steps"]), int(state["updates"])
        # without a replay, updates tell that exploration was over
        self.acting.env_steps, self.acting.ready = self.env_steps, self.ready or self.updates > 0
        for step in self._adam_steps:
            step.fill_(self.updates)
        self._generator.set_state(state["generator"])

    def deploy_module(self) -> nn.Module:
        """The deterministic policy u = tanh(mean), [rows, n_s] to [rows, n_a]."""
        arrays = {name: view.cpu().clone() for name, view in self._actor_shape.named(self._actor).items()}
        for name in ("linear2.weight", "linear2.bias"):
            arrays[name] = arrays[name][: self.action_dim].clone()
        return nn.Sequential(*mlp(arrays), nn.Tanh()).requires_grad_(False).eval()
