"""Symphony: one actor, three node critics, one loss, one optimiser (spec/symphony.md; arXiv 2512.10477).

Reads top to bottom: storage, acting and observing, learning, state, deployment, checks. `symphony_config`
holds the settings, `symphony_acting` how it acts, `symphony_loss` the loss with its gradient, `cadenza.nn`
the networks, `cadenza.buffer` the replay.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cadenza.algos import EnvInfo, TrainingDiverged
from cadenza.algos.boundary import Transitions
from cadenza.algos.state import check_state
from cadenza.algos.symphony_acting import SymphonyActing, actor_shape, boundary
from cadenza.algos.symphony_config import SymphonyConfig
from cadenza.algos.symphony_loss import ALPHA, CRITICS, Losses, LossPass, node_weights, scalar
from cadenza.buffer import Batch, Draw, FadingReplay
from cadenza.nn import BlockShape, block

STATE_FORMAT = 1
BETA1, BETA2, ADAM_EPS, WEIGHT_DECAY = ALPHA, 0.995, 1e-8, 0.01
_STEP_CHUNK = (
    65_536  # parameters per optimiser slice: the slice of θ, m, v and g stays in the second-level cache
)


class Symphony:
    """The agent.

    Args:
        config: settings.
        obs_dim: observation size n_s.
        action_low: lower action bounds [n_a], environment units.
        action_high: upper action bounds [n_a].
        seed: seeds every random number of the agent.
        device: where the networks live.
        env_info: names and limits of the task, for messages and `final_fall_steps`.
        dtype: precision of the networks; the replay is always float32.

    Raises:
        ValueError: bounds that are infinite or empty, or `final_fall_steps` on hardware or without a step
            limit.
    """

    Acting = SymphonyActing

    def __init__(
        self,
        config: SymphonyConfig,
        obs_dim: int,
        action_low: np.ndarray,
        action_high: np.ndarray,
        *,
        seed: int,
        device: str | torch.device = "cpu",
        env_info: EnvInfo | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config = config
        self.env_info = env_info or EnvInfo()
        self.obs_dim = int(obs_dim)
        self.device, self.dtype = torch.device(device), dtype
        self.boundary = boundary(config, obs_dim, action_low, action_high, self.env_info)
        self.action_dim = self.boundary.action_dim
        self._check_final_fall()

        hidden, n_a = config.hidden, self.action_dim
        self._actor_shape = actor_shape(config, self.boundary)
        self._critic_shape = BlockShape(self.obs_dim + n_a, hidden, hidden // 4)
        # one flat vector: actor, online critics, target critics; trained are the first two
        critics = CRITICS * self._critic_shape.stride
        actor = self._actor_shape.stride
        self._flat = torch.zeros(actor + 2 * critics, dtype=dtype, device=self.device)
        self._trained = self._flat[: actor + critics]
        self._actor, self._critics = self._flat[:actor], self._flat[actor : actor + critics]
        self._targets = self._flat[actor + critics :]
        self.gradient = torch.zeros_like(self._trained)
        self._moment1, self._moment2 = torch.zeros_like(self._trained), torch.zeros_like(self._trained)
        self._denominator = torch.zeros_like(self._trained[:_STEP_CHUNK])
        self._slices = [
            (*part, self._denominator[: len(part[0])])
            for part in zip(
                *(t.split(_STEP_CHUNK) for t in (self._trained, self.gradient, self._moment1, self._moment2)),
                strict=True,
            )
        ]
        self._beta2 = scalar(BETA2, dtype, self.device)
        self._decay = scalar(1.0 - config.lr * WEIGHT_DECAY, dtype, self.device)

        # one CPU generator for everything; on another device the normals come from a generator that it seeds
        self._generator = torch.Generator().manual_seed(seed)
        self._actor_shape.initialise(self._actor, 0, self._generator)
        for i in range(CRITICS):
            self._critic_shape.initialise(self._critics, i, self._generator)
        self._targets.copy_(self._critics)
        self._noise_generator = self._generator
        if self.device.type != "cpu":
            device_seed = int(torch.randint(2**62, (), generator=self._generator))
            self._noise_generator = torch.Generator(self.device).manual_seed(device_seed)
        self.acting = SymphonyActing(config, self.boundary, self.env_info, self._actor, self._noise_generator)

        self._weights = node_weights(config.nodes, dtype).to(self.device)
        self._q_ema = torch.zeros((), dtype=dtype, device=self.device)
        self._q_floor = scalar(config.q_floor, dtype, self.device)
        self.buffer = FadingReplay(
            self.obs_dim, n_a, config.explore_steps, config.tiles, reward_floor=config.reward_floor,
            return_scale=config.return_scale,
            protect_forever=config.protect_terminals == "forever", task=self.env_info.task,
        )  # fmt: skip
        self.env_steps = 0
        self.updates = 0
        self._passes: dict[int, LossPass] = {}
        self._draw = Draw(config.nodes, self.obs_dim, n_a, dtype, self.device)
        self._noise = torch.empty((config.nodes, n_a), dtype=dtype, device=self.device)

    # ---- acting and observing --------------------------------------------------------------------

    @property
    def action_repeat(self) -> int:
        """Environment steps for which an action holds."""
        return 1

    @property
    def ready(self) -> bool:
        """Exploration is over and the replay is tiled."""
        return self.buffer.ready

    def updates_due(self, k: int) -> int:
        """Gradient steps that follow one step of k environments; 0 while exploring."""
        if not self.ready:
            return 0
        due = self.config.updates_per_vector_step
        return self.config.updates_per_step * k if due is None else due

    def act(self, obs: np.ndarray, *, explore: bool, active: bool | np.ndarray = True) -> np.ndarray:
        """Choose actions.

        Args:
            obs: observations, [n_s] or [k, n_s].
            explore: add the noise; without it the policy is deterministic.
            active: False removes the learned part (all rows, or per row), leaving noise or the centre.

        Returns:
            Actions in environment units, float32, [n_a] or [k, n_a].

        Raises:
            ValueError: wrong shape or a non-finite observation.
        """
        return self.acting.act(obs, explore=explore, active=active)

    def observe(
        self,
        obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray | float,
        next_obs: np.ndarray,
        terminated: np.ndarray | bool,
        truncated: np.ndarray | bool,
    ) -> None:
        """Store one step of k environments (or of one, without the leading dimension), in environment order.

        Args:
            obs: [k, n_s].
            action: [k, n_a], environment units, as `act` gave it.
            reward: [k].
            next_obs: [k, n_s], the true successor, also at the end of an episode.
            terminated: [k]; the value of the successor is 0.
            truncated: [k]; the episode ends, the value of the successor counts.

        Raises:
            ValueError: wrong shape, a non-finite number, an action outside the bounds, or a number of
                environments that does not divide `explore_steps`. Nothing is stored.
        """
        self.store(self.acting.follow(obs, action, reward, next_obs, terminated, truncated))

    def store(self, rows: Transitions) -> None:
        """Store what one step completed, as `acting.follow` gave it, here or in another process.

        Raises:
            ValueError: a number of rows that does not divide `explore_steps`. Nothing is stored.
        """
        k = len(rows.obs)
        if not self.ready and self.config.explore_steps % k:
            raise ValueError(
                f"explore_steps {self.config.explore_steps} is not a multiple of {k} environments"
            )
        discount = np.where(rows.terminated, np.float32(0.0), np.float32(self.config.gamma))
        self.buffer.add(rows.obs, rows.action, rows.reward, rows.next_obs, discount, rows.terminated)
        self.env_steps += 1
        self.acting.ready = self.ready

    # ---- learning --------------------------------------------------------------------------------

    @torch.inference_mode()
    def update(self) -> dict[str, float]:
        """Draw a batch and take one gradient step.

        Returns:
            loss, advantage, td, swaddling, q_mean, q_std_nodes, q_ema, scale_mean, beta_mean,
            clipped_q_fraction, reward_norm, grad_norm.

        Raises:
            TrainingDiverged: a loss term or the gradient is not finite; parameters, moments and m are
                unchanged, and `last_batch` holds what was drawn.
            RuntimeError: exploration is not over.
        """
        batch = self._draw.sample(self.buffer, self._generator)
        losses = self.loss(batch, self.acting.noise(self._noise), self._draw_masks(len(self._noise)))
        metrics = self._metrics(losses)
        for name in ("advantage", "td", "swaddling", "loss", "grad_norm"):
            if not math.isfinite(metrics[name]):
                raise TrainingDiverged(self.updates + 1, name, metrics[name])
        self._q_ema.copy_(losses.q_ema)
        self._step()
        self.updates += 1
        return metrics

    @property
    def last_batch(self) -> Batch:
        """The transitions that the last update drew, float32 NumPy arrays, overwritten by the next one."""
        return self._draw.staging

    @torch.inference_mode()
    def loss(self, batch: Batch, noise: Tensor, masks: Sequence[Tensor] = ()) -> Losses:
        """Evaluate the loss; its gradient is left in `gradient`. Parameters and m stay as they are.

        Args:
            batch: tensors with any number B of rows.
            noise: N, already clipped and scaled, [B, n_a]; zeros for none.
            masks: gradient dropout, 1 keeps and 0 drops: actor [B, 3n_a], then three online and three target
                critics [B, h/4] each; empty for none.
        """
        rows = len(noise)
        run = self._passes.get(rows)
        if run is None:
            run = self._passes[rows] = LossPass(
                self._actor_shape, self._critic_shape, self._flat, self.gradient, self._weights, rows,
                self.config.q_floor,
            )  # fmt: skip
        return run(batch, noise, masks, self._q_ema)

    @torch.inference_mode()
    def _step(self) -> None:
        """θ ← θ - lr·(m/(√v + 1e-8) + 0.01·θ), then target ← target + τ(online - target)."""
        lr = self.config.lr
        for theta, gradient, m, v, denominator in self._slices:
            m.lerp_(gradient, 1.0 - BETA1)
            v.mul_(self._beta2).addcmul_(gradient, gradient, value=1.0 - BETA2)
            torch.sqrt(v, out=denominator).add_(ADAM_EPS)
            theta.mul_(self._decay).addcdiv_(m, denominator, value=-lr)
        self._targets.lerp_(self._critics, self.config.tau)

    def _draw_masks(self, rows: int) -> list[Tensor]:
        p = self.config.gradient_dropout
        if p == 0.0:
            return []
        widths = [3 * self.action_dim] + 2 * CRITICS * [self.config.hidden // 4]
        uniforms = (self._flat.new_empty((rows, n)).uniform_(generator=self._noise_generator) for n in widths)
        return [u.gt_(p) for u in uniforms]

    def _metrics(self, losses: Losses) -> dict[str, float]:
        q, nodes = losses.q, losses.target_nodes
        centred = nodes - nodes.mean(1, keepdim=True)
        sums = torch.stack(
            (
                losses.advantage, losses.td, losses.swaddling, losses.q_ema, q.sum(),
                torch.linalg.vecdot(centred, centred).sqrt_().sum(), losses.scale.sum(), losses.beta.sum(),
                torch.lt(losses.q_t.abs(), self._q_floor).sum(), torch.linalg.vector_norm(self.gradient),
            )
        ).tolist()  # fmt: skip
        advantage, td, calm, q_ema, q_sum, spread, scale, beta, clipped, norm = sums
        rows, entries = len(nodes), losses.scale.numel()
        return {
            "loss": advantage + td + calm,
            "advantage": advantage,
            "td": td,
            "swaddling": calm,
            "q_mean": q_sum / q.numel(),
            "q_std_nodes": spread / (rows * math.sqrt(nodes.shape[1])),
            "q_ema": q_ema,
            "scale_mean": scale / entries,
            "beta_mean": beta / entries,
            "clipped_q_fraction": clipped / rows,
            "reward_norm": self.buffer.reward_norm,
            "grad_norm": norm,
        }

    # ---- parameters and state --------------------------------------------------------------------

    def get_blocks(self) -> dict[str, np.ndarray]:
        """Copies of all parameters by name, e.g. "critic0.linear1.weight" (weights [out, in])."""
        return {name: view.cpu().numpy().copy() for name, view in self._named(self._flat).items()}

    def set_blocks(self, blocks: dict[str, np.ndarray]) -> None:
        """Overwrite named parameters. Raises ValueError, changing nothing, for a wrong name or shape."""
        views = self._named(self._flat)
        for name, array in blocks.items():
            if name not in views:
                raise ValueError(f"unknown parameter {name!r}")
            if tuple(views[name].shape) != np.shape(array):
                raise ValueError(
                    f"{name} has shape {list(np.shape(array))}, expected {list(views[name].shape)}"
                )
        for name, array in blocks.items():
            views[name].copy_(torch.as_tensor(np.asarray(array)))

    def named_gradient(self) -> dict[str, Tensor]:
        """Views of the last gradient, under the names of `get_blocks` (actor and online critics)."""
        return self._named(self.gradient)

    def _named(self, flat: Tensor) -> dict[str, Tensor]:
        views = {f"actor.{name}": view for name, view in self._actor_shape.named(flat).items()}
        rest = flat[self._actor_shape.stride :]
        for i in range(len(rest) // self._critic_shape.stride):
            prefix = f"critic{i}" if i < CRITICS else f"target{i - CRITICS}"
            views |= {f"{prefix}.{name}": view for name, view in self._critic_shape.named(rest, i).items()}
        return views

    def state_dict(self, *, buffer: bool = True) -> dict[str, Any]:
        """Everything that an exact resume needs. Replay arrays are live: write them before the next step."""
        state: dict[str, Any] = {
            "format": STATE_FORMAT,
            "algorithm": "symphony",
            "config": asdict(self.config),
            "obs_dim": self.obs_dim,
            "action_low": self.boundary.low.copy(),
            "action_high": self.boundary.high.copy(),
            "parameters": self._flat.cpu().clone(),
            "moment1": self._moment1.cpu().clone(),
            "moment2": self._moment2.cpu().clone(),
            "q_ema": self._q_ema.cpu().clone(),
            "env_steps": self.env_steps,
            "updates": self.updates,
            **self.acting.progress(),
            "generator": self._generator.get_state(),
            "noise_generator": self._noise_generator.get_state(),
        }
        if buffer:
            state["buffer"] = self.buffer.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`. Without "buffer" in it the replay stays as it is.

        Raises:
            ValueError: a missing entry, another format, algorithm, configuration or size; nothing is changed.
        """
        generators = {"generator": self._generator, "noise_generator": self._noise_generator}
        check_state(state, self.state_dict(buffer=False), generators)
        if "buffer" in state:
            self.buffer.load_state_dict(state["buffer"])
        for name, mine in (
            ("parameters", self._flat), ("moment1", self._moment1), ("moment2", self._moment2),
            ("q_ema", self._q_ema),
        ):  # fmt: skip
            mine.copy_(state[name])
        self.env_steps, self.updates = int(state["env_steps"]), int(state["updates"])
        self.acting.load_progress(state)
        # without a replay, updates tell that exploration was over
        self.acting.env_steps, self.acting.ready = self.env_steps, self.ready or self.updates > 0
        self._generator.set_state(state["generator"])
        if self._noise_generator is not self._generator:
            self._noise_generator.set_state(state["noise_generator"])

    def deploy_module(self) -> nn.Module:
        """The noise-free policy u = tanh(|tanh(x_S/2)|·tanh(x_A/2)), [rows, n_s] to [rows, n_a]."""
        arrays = {name: view.cpu().clone() for name, view in self._actor_shape.named(self._actor).items()}
        for name in ("linear2.weight", "linear2.bias"):
            arrays[name] = arrays[name][: 2 * self.action_dim].clone()
        return DeployedActor(block(arrays, frozen=True), self.action_dim).eval()

    # ---- checks ----------------------------------------------------------------------------------

    def _check_final_fall(self) -> None:
        if not self.config.final_fall_steps:
            return
        if self.env_info.hardware:
            raise ValueError(
                f"final_fall_steps {self.config.final_fall_steps} would drop a real robot; set it to 0"
            )
        if self.env_info.max_episode_steps is None:
            raise ValueError(
                f"final_fall_steps {self.config.final_fall_steps} needs env_info.max_episode_steps"
            )


class DeployedActor(nn.Module):
    """What is exported: the actor block without its B head, and the action formula."""

    def __init__(self, actor: nn.Module, action_dim: int) -> None:
        super().__init__()
        self.actor = actor
        self.action_dim = action_dim

    def forward(self, obs: Tensor) -> Tensor:
        """Map observations [rows, n_s] to normalised actions [rows, n_a]."""
        x = self.actor(obs)
        a = torch.tanh(0.5 * x[:, : self.action_dim])
        s = torch.abs(torch.tanh(0.5 * x[:, self.action_dim :]))
        return torch.tanh(s * a)
