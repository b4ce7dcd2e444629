"""Symphony's loss and its gradient (spec/symphony.md §3.2, §3.3).

First the terms, each with its derivative; then `LossPass`, which puts them together with the networks.
Scalars that enter an operation are tensors made once: torch converts a Python float on every call, which
doubles its cost.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cadenza.buffer import Batch
from cadenza.nn import BlockBatch, BlockShape, tanh_

CRITICS = 3
ALPHA = (math.sqrt(5.0) - 1.0) / 2.0
CLAMP = 1e-3  # S and B are held in [CLAMP, 1 - CLAMP] inside the losses


@lru_cache(maxsize=256)
def scalar(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A shared 0-d tensor; never write to it."""
    return torch.tensor(value, dtype=dtype, device=device)


def rehse(e: Tensor) -> tuple[Tensor, Tensor]:
    """Rectified Huber symmetric error e·tanh(e/2) and its derivative, elementwise."""
    half = scalar(0.5, e.dtype, e.device)
    t = tanh_(e * half)
    value = e * t
    # t + (e/2)(1 - t²) = t + (e - t·value)/2
    slope = torch.addcmul(e, t, value, value=-1.0)
    return value, torch.addcmul(t, slope, half, out=slope)


def rehae(e: Tensor) -> tuple[Tensor, Tensor]:
    """Rectified Huber asymmetric error |e|·tanh(e/2) and its derivative, elementwise."""
    half = scalar(0.5, e.dtype, e.device)
    t = tanh_(e * half)
    magnitude = e.abs()
    value = magnitude * t
    slope = torch.addcmul(magnitude, t, value, value=-1.0)
    return value, torch.addcmul(t.abs_(), slope, half, out=slope)


def swaddling(scale: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ω(S^{1/B*}) + B·ω(S) + Ω(B²) with its derivatives in S and B, elementwise; S and B in (0, 1).

    Ω(x) = ln((1+x)/(1-x)) = 2·artanh(x), ω(x) = x·ln x; B* is held constant.
    """
    one, two = scalar(1.0, scale.dtype, scale.device), scalar(2.0, scale.dtype, scale.device)
    log_s = scale.log()
    exponent = log_s / beta
    s_log_s = scale * log_s
    beta2 = beta * beta
    # 2·artanh(x) of both arguments
    value = torch.addcmul(beta * s_log_s, exponent.exp().atanh_().add_(beta2.atanh()), two)
    # with P = e^r: dΩ(P)/dS = 2P/(1-P²)/(B·S) = -1/(sinh(r)·B·S), exact also where P underflows
    d_scale = torch.addcdiv(beta, one, exponent.sinh_().mul_(beta).mul_(scale), value=-1.0).addcmul_(
        beta, log_s
    )
    d_beta = torch.addcdiv(s_log_s, beta, torch.addcmul(one, beta2, beta2, value=-1.0), value=4.0)
    return value, d_scale, d_beta


def node_weights(nodes: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """v_j ∝ tanh((π(1 - j/N))^e), j = 0 … N-1, summing to 1: the weight of the j-th lowest node."""
    weights = np.tanh((np.pi * (1.0 - np.arange(nodes) / nodes)) ** np.e)
    return torch.from_numpy(weights / weights.sum()).to(dtype)


def ascending(nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Indices that sort each row, ties in stable order, and the sorted values."""
    if not nodes.is_cpu:
        values, order = torch.sort(nodes, dim=1, stable=True)
        return order, values
    # NumPy's vectorised argsort is several times faster than a stable one; ties, which are rare, are redone
    native = nodes.numpy()
    order = torch.from_numpy(np.argsort(native, axis=1))
    values = nodes.gather(1, order)
    native_values = values.numpy()
    if np.equal(native_values[:, 1:], native_values[:, :-1]).any():
        order = torch.from_numpy(np.argsort(native, axis=1, kind="stable"))
    return order, values


class Losses(NamedTuple):
    """One evaluation of the loss on B rows. The tensors are scratch, valid until the next evaluation.

    Attributes:
        advantage: ReHAE term (with its minus), scalar.
        td: ReHSE term, scalar.
        swaddling: swaddling term, scalar.
        q: nodes of the online critics, [3, B, N_q/3].
        target_nodes: nodes of the target critics on the successors, [B, N_q].
        q_next: Q′, [B].
        q_t: Q_T, [B].
        y: regression target, [B].
        scale: S′ as it enters the swaddling term, [B, n_a].
        beta: B′ as it enters the swaddling term, [B, n_a].
        action: ũ′, [B, n_a].
        q_ema: the new m, scalar.
    """

    advantage: Tensor
    td: Tensor
    swaddling: Tensor
    q: Tensor
    target_nodes: Tensor
    q_next: Tensor
    q_t: Tensor
    y: Tensor
    scale: Tensor
    beta: Tensor
    action: Tensor
    q_ema: Tensor

    @property
    def total(self) -> Tensor:
        """The loss: the sum of the three terms."""
        return self.advantage + self.td + self.swaddling


class PolicyPass:
    """The action formula u = tanh(S⊙A + N) on a fixed number of rows.

    Args:
        net: the actor block on those rows.
        u: where the action goes, [B, n_a].

    Attributes:
        half: tanh(x/2) of the block's output x, [B, 3·n_a]: A, then signed S and B.
        a: its A part.
        signed: its S and B part.
        magnitude: |signed|, [B, 2·n_a].
        s: the S part of `magnitude`.
    """

    def __init__(self, net: BlockBatch, u: Tensor) -> None:
        n = u.shape[1]
        self.net, self.u = net, u
        self._x = net.output[0]
        self._half_scalar = scalar(0.5, u.dtype, u.device)
        self.half = torch.zeros_like(self._x)
        self.a, self.signed = self.half[:, :n], self.half[:, n:]
        self.magnitude = torch.zeros_like(self.signed, memory_format=torch.contiguous_format)
        self.s = self.magnitude[:, :n]

    def forward(self, obs: Tensor, noise: Tensor | None, active: Tensor | None = None) -> Tensor:
        """Actions for observations [B, n_s]; `active` [B, 1] scales the learned part. Returns `u`."""
        self.net.inputs[0].copy_(obs)
        self.net.forward()
        tanh_(torch.mul(self._x, self._half_scalar, out=self.half))
        torch.abs(self.signed, out=self.magnitude)
        torch.mul(self.s, self.a, out=self.u)
        if active is not None:
            self.u.mul_(active)
        if noise is not None:
            self.u.add_(noise)
        return tanh_(self.u)


class LossPass:
    """Forward and backward of the whole loss for a fixed number of rows B.

    Args:
        actor: sizes of the actor block.
        critic: sizes of one critic block.
        flat: all parameters: actor, three online critics, three target critics, `stride` apart.
        gradient: gradients of the trained part, same layout, written by every call.
        weights: node weights, [N_q].
        rows: B.
        q_floor: least denominator of the advantage.
    """

    def __init__(
        self,
        actor: BlockShape,
        critic: BlockShape,
        flat: Tensor,
        gradient: Tensor,
        weights: Tensor,
        rows: int,
        q_floor: float,
    ) -> None:
        n_s, n = actor.f_in, critic.f_in - actor.f_in
        # online and target critics lie one after the other in `flat`, so all six run as one batch
        self._critics = BlockBatch(
            critic, flat[actor.stride :], 2 * CRITICS, rows, gradient[actor.stride :],
            groups=2, input_columns=slice(n_s, None),
        )  # fmt: skip

        def new(*size: int) -> Tensor:
            return torch.zeros(size, dtype=flat.dtype, device=flat.device)

        def constant(value: float) -> Tensor:
            return scalar(value, flat.dtype, flat.device)

        # all slices are taken here, once
        now, following = self._critics.inputs
        self._obs, self._action = now[:, :n_s], now[:, n_s:]
        self._next_obs, self._u = following[:, :n_s], following[:, n_s:]
        self._actor = BlockBatch(actor, flat, 1, rows, gradient[: actor.stride])
        self._policy = PolicyPass(self._actor, self._u)
        self._clamped = new(rows, 2 * n)
        self._scale, self._beta = self._clamped[:, :n], self._clamped[:, n:]
        self._d_magnitude, self._sign = new(rows, 2 * n), new(rows, 2 * n)
        self._d_s, self._d_b = self._d_magnitude[:, :n], self._d_magnitude[:, n:]
        self._d_half, self._square = self._actor.output_gradient[0], new(rows, 3 * n)
        self._d_a, self._d_signed = self._d_half[:, :n], self._d_half[:, n:]
        self._d_u, self._u_square = new(rows, n), new(rows, n)
        self._nodes, self._node_weight = new(rows, len(weights)), new(rows, len(weights))
        self._nodes_by_critic = self._nodes.view(rows, CRITICS, -1).transpose(0, 1)
        self._node_weight_by_critic = self._node_weight.view(rows, CRITICS, -1).transpose(0, 1)
        self._q, self._target_q = self._critics.output[:CRITICS], self._critics.output[CRITICS:]
        self._d_q = self._critics.output_gradient[:CRITICS]
        self._d_target_q = self._critics.output_gradient[CRITICS:]
        self._error = new(CRITICS, rows, critic.f_out)
        self._weights, self._weight_rows = weights, weights.expand(rows, -1)
        self._q_next, self._q_t, self._y, self._floor, self._x = (new(rows) for _ in range(5))
        self._y_column, self._d_q_next = self._y[None, :, None], new(rows)
        self._d_q_next_column = self._d_q_next[None, :, None]
        self._one, self._half_scalar = constant(1.0), constant(0.5)
        self._alpha, self._q_floor = constant(ALPHA), constant(q_floor)
        self._per_row, self._per_node = constant(-1.0 / rows), constant(1.0 / self._error.numel())
        self._per_action = constant(1.0 / (rows * n))
        self._low, self._high = constant(CLAMP), constant(1.0 - CLAMP)

    def __call__(self, batch: Batch, noise: Tensor, masks: Sequence[Tensor], q_ema: Tensor) -> Losses:
        """Evaluate on `batch` with the additive noise N; `masks` as in `Symphony.loss`; `q_ema` is m."""
        policy, critics, one = self._policy, self._critics, self._one
        self._obs.copy_(batch.obs)
        self._action.copy_(batch.action)
        self._next_obs.copy_(batch.next_obs)
        u = policy.forward(batch.next_obs, noise)  # ũ′, written where the target critics read it
        critics.forward()

        # Q′: low nodes weigh most
        self._nodes_by_critic.copy_(self._target_q)
        order, ascending_nodes = ascending(self._nodes)
        self._node_weight.scatter_(1, order, self._weight_rows)
        q_next, q_t, floor = self._q_next, self._q_t, self._floor
        torch.mv(ascending_nodes, self._weights, out=q_next)
        torch.addcmul(batch.reward, batch.discount, q_next, out=self._y)
        torch.lerp(q_next, q_ema, self._alpha, out=q_t)
        torch.maximum(torch.abs(q_t, out=floor), self._q_floor, out=floor)

        # the three terms and their gradients
        value, slope = rehae(torch.sub(q_next, q_t, out=self._x).div_(floor))
        advantage = value.sum().mul_(self._per_row)
        torch.mul(slope.div_(floor), self._per_row, out=self._d_q_next)
        value, slope = rehse(torch.sub(self._q, self._y_column, out=self._error))
        td = value.sum().mul_(self._per_node)
        torch.mul(slope, self._per_node, out=self._d_q)
        torch.mul(self._node_weight_by_critic, self._d_q_next_column, out=self._d_target_q)
        clamped, magnitude = self._clamped, policy.magnitude
        torch.minimum(torch.maximum(magnitude, self._low, out=clamped), self._high, out=clamped)
        value, d_scale, d_beta = swaddling(self._scale, self._beta)
        calm = value.sum().mul_(self._per_action)

        # back through the critics into ũ′, then through the action into the actor
        if masks:
            critics.output_gradient.mul_(torch.stack(tuple(masks[1:])))
        critics.backward()
        d_u = torch.sum(critics.input_gradient, 0, out=self._d_u)
        d_u.mul_(torch.addcmul(one, u, u, value=-1.0, out=self._u_square))
        torch.mul(d_u, policy.s, out=self._d_a)
        torch.mul(d_scale, self._per_action, out=self._d_s)
        torch.mul(d_beta, self._per_action, out=self._d_b)
        self._d_magnitude.mul_(torch.eq(clamped, magnitude))  # the clamp passes no gradient where it acts
        self._d_s.addcmul_(d_u, policy.a)
        torch.mul(self._d_magnitude, torch.sign(policy.signed, out=self._sign), out=self._d_signed)
        d_half = self._d_half.mul_(torch.addcmul(one, policy.half, policy.half, value=-1.0, out=self._square))
        d_half.mul_(self._half_scalar)
        if masks:
            d_half.mul_(masks[0])
        self._actor.backward()

        return Losses(
            advantage=advantage, td=td, swaddling=calm, q=self._q,
            target_nodes=self._nodes, q_next=q_next, q_t=q_t, y=self._y, scale=self._scale, beta=self._beta,
            action=u, q_ema=q_t.mean(),
        )  # fmt: skip
