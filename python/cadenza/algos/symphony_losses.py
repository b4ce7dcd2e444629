"""The terms of Symphony's loss, each with its derivative (spec/symphony.md §3.3)."""

import math

import numpy as np
import torch
from torch import Tensor

from cadenza.nn import tanh_

CLAMP = 1e-3  # S and B are held in [CLAMP, 1 - CLAMP] inside the losses


def rehse(e: Tensor) -> tuple[Tensor, Tensor]:
    """Rectified Huber symmetric error e·tanh(e/2) and its derivative, elementwise."""
    t = tanh_(e * 0.5)
    value = e * t
    # t + (e/2)(1 - t²) = t + (e - t·value)/2
    slope = torch.addcmul(e, t, value, value=-1.0).mul_(0.5).add_(t)
    return value, slope


def rehae(e: Tensor) -> tuple[Tensor, Tensor]:
    """Rectified Huber asymmetric error |e|·tanh(e/2) and its derivative, elementwise."""
    t = tanh_(e * 0.5)
    magnitude = e.abs()
    value = magnitude * t
    slope = torch.addcmul(magnitude, t, value, value=-1.0).mul_(0.5).add_(t.abs_())
    return value, slope


def swaddling(scale: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ω(S^{1/B*}) + B·ω(S) + Ω(B²) with its derivatives in S and B, elementwise; S and B in (0, 1).

    Ω(x) = ln((1+x)/(1-x)) = 2·artanh(x), ω(x) = x·ln x; B* is held constant.
    """
    log_s = scale.log()
    s_log_s = scale * log_s
    power = (log_s / beta).exp_()
    beta2 = beta * beta
    value = torch.addcmul(power.atanh().add_(beta2.atanh()).mul_(2.0), beta, s_log_s)
    # dΩ(P)/dP = 2/(1-P²), dP/dS = P/(B·S)
    d_scale = power.mul(2.0).div_(torch.addcmul(_one(power), power, power, value=-1.0).mul_(beta).mul_(scale))
    d_scale.addcmul_(log_s.add_(1.0), beta)
    d_beta = s_log_s.addcdiv_(beta, torch.addcmul(_one(beta2), beta2, beta2, value=-1.0), value=4.0)
    return value, d_scale, d_beta


def node_weights(nodes: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """v_j ∝ tanh((π(1 - j/N))^e), j = 0 … N-1, summing to 1: the weight of the j-th lowest node."""
    weights = np.tanh((np.pi * (1.0 - np.arange(nodes) / nodes)) ** np.e)
    return torch.from_numpy(weights / weights.sum()).to(dtype)


def ascending(nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Ranks of the nodes of each row: (indices, sorted values), ties in stable order. No gradient."""
    if not nodes.is_cpu:
        values, order = torch.sort(nodes, dim=1, stable=True)
        return order, values
    # NumPy's vectorised argsort is several times faster than a stable one; ties, which are rare, are redone
    order = torch.from_numpy(np.argsort(nodes.numpy(), axis=1))
    values = nodes.gather(1, order)
    if torch.eq(values[:, 1:], values[:, :-1]).any():
        order = torch.from_numpy(np.argsort(nodes.numpy(), axis=1, kind="stable"))
    return order, values


def clipped_gaussian_(noise: Tensor, std: float, clip: float, generator: torch.Generator) -> Tensor:
    """Fill `noise` with std·clip(n, ±clip), n standard normal."""
    return noise.normal_(generator=generator).clamp_(-clip, clip).mul_(std)


def _one(like: Tensor) -> Tensor:
    return torch.ones((), dtype=like.dtype, device=like.device)


GOLDEN_ALPHA = (math.sqrt(5.0) - 1.0) / 2.0
