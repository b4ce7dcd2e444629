"""One Symphony update in float64 NumPy, forward and hand-derived backward, without torch.

Written from the formulas of spec/symphony.md §3 alone, one network at a time: the oracle for
`cadenza.algos.symphony`.
"""

from dataclasses import dataclass, field

import numpy as np

ALPHA = (np.sqrt(5.0) - 1.0) / 2.0
NETS = ("actor", "critic0", "critic1", "critic2")
TARGETS = ("target0", "target1", "target2")
Params = dict[str, np.ndarray]


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def resine(x, s):
    """ReSine and its partial derivatives in x and in s."""
    sigma = sigmoid(s)
    q = np.sin(x / sigma)
    gate = sigmoid(1.5 * q)
    value = sigma * q * gate
    d_q = sigma * (gate + 1.5 * q * gate * (1.0 - gate))
    d_x = d_q * np.cos(x / sigma) / sigma
    d_sigma = q * gate + d_q * np.cos(x / sigma) * (-x / sigma**2)
    return value, d_x, d_sigma * sigma * (1.0 - sigma)


def block_forward(p: Params, net: str, x):
    """Output of one block and what its backward needs."""
    pre = x @ p[f"{net}.linear0.weight"].T + p[f"{net}.linear0.bias"]
    mean = pre.mean(1, keepdims=True)
    deviation = np.sqrt(((pre - mean) ** 2).mean(1, keepdims=True) + 1e-5)
    hat = (pre - mean) / deviation
    x1 = hat * p[f"{net}.norm.weight"] + p[f"{net}.norm.bias"]
    x2 = x1 @ p[f"{net}.linear1.weight"].T + p[f"{net}.linear1.bias"]
    x3, d_x2, d_s = resine(x2, p[f"{net}.resine.s"])
    out = x3 @ p[f"{net}.linear2.weight"].T + p[f"{net}.linear2.bias"]
    return out, (x, hat, deviation, x1, x3, d_x2, d_s)


def block_backward(p: Params, net: str, cache, d_out):
    """Gradients by parameter name, and the gradient of the input."""
    x, hat, deviation, x1, x3, d_x2, d_s = cache
    d_x3 = d_out @ p[f"{net}.linear2.weight"]
    d_2 = d_x3 * d_x2
    d_1 = d_2 @ p[f"{net}.linear1.weight"]
    d_hat = d_1 * p[f"{net}.norm.weight"]
    d_0 = (d_hat - d_hat.mean(1, keepdims=True) - hat * (d_hat * hat).mean(1, keepdims=True)) / deviation
    gradients = {
        f"{net}.linear2.weight": d_out.T @ x3,
        f"{net}.linear2.bias": d_out.sum(0),
        f"{net}.resine.s": (d_x3 * d_s).sum(0),
        f"{net}.linear1.weight": d_2.T @ x1,
        f"{net}.linear1.bias": d_2.sum(0),
        f"{net}.norm.weight": (d_1 * hat).sum(0),
        f"{net}.norm.bias": d_1.sum(0),
        f"{net}.linear0.weight": d_0.T @ x,
        f"{net}.linear0.bias": d_0.sum(0),
    }
    return gradients, d_0 @ p[f"{net}.linear0.weight"]


def rehse(e):
    t = np.tanh(e / 2)
    return e * t, t + e / 2 * (1 - t * t)


def rehae(e):
    t = np.tanh(e / 2)
    return np.abs(e) * t, np.abs(t) + np.abs(e) / 2 * (1 - t * t)


def swaddling(s, b):
    """Value and partial derivatives, B held constant in the exponent."""
    p = s ** (1.0 / b)
    value = np.log((1 + p) / (1 - p)) + b * s * np.log(s) + np.log((1 + b * b) / (1 - b * b))
    d_s = 2 / (1 - p * p) * p / (b * s) + b * (np.log(s) + 1)
    d_b = s * np.log(s) + 4 * b / (1 - b**4)
    return value, d_s, d_b


def node_weights(nodes: int):
    v = np.tanh((np.pi * (1 - np.arange(nodes) / nodes)) ** np.e)
    return v / v.sum()


@dataclass
class Reference:
    """Parameters, moments and m; `update` advances them by one step."""

    params: Params
    lr: float
    q_floor: float = 1e-2
    tau: float = 0.005
    q_ema: float = 0.0
    m: Params = field(default_factory=dict)
    v: Params = field(default_factory=dict)

    def loss(self, obs, action, reward, next_obs, discount, noise, masks=None):
        """Terms by name, gradients by parameter name, new m."""
        p, rows, n_a = self.params, len(noise), noise.shape[1]
        masks = [1.0] * 7 if masks is None else masks
        out, actor_cache = block_forward(p, "actor", next_obs)
        half = np.tanh(out / 2)
        a, s_signed, b_signed = half[:, :n_a], half[:, n_a : 2 * n_a], half[:, 2 * n_a :]
        s, b = np.abs(s_signed), np.abs(b_signed)
        u = np.tanh(s * a + noise)
        x_now, x_next = np.hstack([obs, action]), np.hstack([next_obs, u])
        q, q_caches = zip(*(block_forward(p, f"critic{i}", x_now) for i in range(3)), strict=True)
        t, t_caches = zip(*(block_forward(p, f"target{i}", x_next) for i in range(3)), strict=True)
        nodes = np.hstack(t)
        order = np.argsort(nodes, axis=1, kind="stable")
        v = node_weights(nodes.shape[1])
        weight = np.empty_like(nodes)
        for row in range(rows):
            weight[row, order[row]] = v
        q_next = (weight * nodes).sum(1)
        y = reward + discount * q_next
        q_t = ALPHA * self.q_ema + (1 - ALPHA) * q_next
        floor = np.maximum(np.abs(q_t), self.q_floor)
        advantage, d_advantage = rehae((q_next - q_t) / floor)
        td, d_td = rehse(np.hstack(q) - y[:, None])
        lo, hi = 1e-3, 1 - 1e-3
        sc, bc = np.clip(s, lo, hi), np.clip(b, lo, hi)
        calm, d_s, d_b = swaddling(sc, bc)

        gradients: Params = {}
        d_q = np.split(d_td / d_td.size, 3, axis=1)
        d_nodes = np.split((-d_advantage / floor / rows)[:, None] * weight, 3, axis=1)
        d_u = 0.0
        for i in range(3):
            gradients |= block_backward(p, f"critic{i}", q_caches[i], d_q[i] * masks[1 + i])[0]
            d_u = d_u + block_backward(p, f"target{i}", t_caches[i], d_nodes[i] * masks[4 + i])[1][:, -n_a:]
        d_z = d_u * (1 - u * u)
        d_s = d_s / d_s.size * ((s >= lo) & (s <= hi)) + d_z * a
        d_b = d_b / d_b.size * ((b >= lo) & (b <= hi))
        d_half = np.hstack([d_z * s, d_s * np.sign(s_signed), d_b * np.sign(b_signed)])
        gradients |= block_backward(p, "actor", actor_cache, d_half * (1 - half * half) / 2 * masks[0])[0]
        terms = {
            "advantage": -advantage.mean(),
            "td": td.mean(),
            "swaddling": calm.mean(),
            "total": -advantage.mean() + td.mean() + calm.mean(),
            "q_next": q_next,
            "q_t": q_t,
            "y": y,
            "action": u,
            "q_ema": q_t.mean(),
        }
        return terms, gradients

    def update(self, *batch_noise_masks):
        """One whole update; returns (terms, gradients)."""
        terms, gradients = self.loss(*batch_noise_masks)
        self.q_ema = terms["q_ema"]
        for name, g in gradients.items():
            self.m[name] = ALPHA * self.m.get(name, 0.0) + (1 - ALPHA) * g
            self.v[name] = 0.995 * self.v.get(name, 0.0) + 0.005 * g**2
            theta = self.params[name]
            self.params[name] = theta - self.lr * (
                self.m[name] / (np.sqrt(self.v[name]) + 1e-8) + 0.01 * theta
            )
        for target, critic in zip(TARGETS, NETS[1:], strict=True):
            for name in [n for n in self.params if n.startswith(critic + ".")]:
                other = name.replace(critic, target)
                self.params[other] = (1 - self.tau) * self.params[other] + self.tau * self.params[name]
        return terms, gradients
