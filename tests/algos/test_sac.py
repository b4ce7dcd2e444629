"""SAC: its update against autograd and against stable-baselines3, a known optimum, resume, held actions."""

import importlib
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal, TanhTransform

from cadenza.algos import EnvInfo, TrainingDiverged
from cadenza.algos.sac import Sac
from cadenza.algos.sac_config import SacConfig
from cadenza.buffer import Batch
from cadenza.mlp import MlpBatch, MlpShape, mlp

torch.set_num_threads(1)


def agent(n_s=3, n_a=2, *, dtype=torch.float64, seed=0, bound=1.0, **options) -> Sac:
    config = SacConfig(
        **{"hidden": 16, "batch": 8, "capacity": 200, "explore_steps": 20, "lr": 1e-2} | options
    )
    high = np.full(n_a, bound)
    return Sac(config, n_s, -high, high, seed=seed, dtype=dtype, env_info=EnvInfo(joints=("knee",)))


def random_batch(a: Sac, seed: int, rows: int | None = None) -> tuple[Batch, torch.Tensor, torch.Tensor]:
    rng, rows = np.random.default_rng(seed), rows or a.config.batch
    arrays = (
        rng.standard_normal((rows, a.obs_dim)), rng.uniform(-1, 1, (rows, a.action_dim)),
        rng.standard_normal(rows), rng.standard_normal((rows, a.obs_dim)), 0.99 * (rng.random(rows) > 0.3),
    )  # fmt: skip
    noise = rng.standard_normal((2, rows, a.action_dim))
    to = [torch.from_numpy(x).to(a.dtype) for x in (*arrays, *noise)]
    return Batch(*to[:5]), to[5], to[6]


def explore(a: Sac, steps: int, *, k: int = 4, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        obs = rng.standard_normal((k, a.obs_dim)).astype(np.float32)
        u = a.act(obs, explore=True)
        a.observe(obs, u, rng.standard_normal(k), obs, rng.random(k) < 0.1, rng.random(k) < 0.1)


# ---- the networks --------------------------------------------------------------------------------


def test_batched_networks_equal_modules_and_their_autograd():
    shape, rows = MlpShape(5, 12, 3), 7
    flat = torch.zeros(2 * shape.stride, dtype=torch.float64)
    for i in range(2):
        shape.initialise(flat, i, torch.Generator().manual_seed(i))
    gradient = torch.full_like(flat, torch.nan)
    net = MlpBatch(shape, flat, 2, rows, gradient=gradient, input_columns=slice(2, None))
    x = torch.randn(rows, 5, dtype=torch.float64, requires_grad=True)
    dy = torch.randn(2, rows, 3, dtype=torch.float64)
    net.input.copy_(x.detach())
    out = net.forward()
    modules = [mlp(shape.named(flat, i)) for i in range(2)]
    expected = torch.stack([m(x) for m in modules])
    torch.testing.assert_close(out, expected.detach(), rtol=1e-12, atol=1e-12)
    net.output_gradient.copy_(dy)
    net.backward()
    expected.backward(dy)
    torch.testing.assert_close(net.input_gradient, x.grad[:, 2:], rtol=1e-12, atol=1e-12)
    for i, module in enumerate(modules):
        for (name, mine), parameter in zip(
            (p for part in ("linear0", "linear1", "linear2") for p in shape.named(gradient, i).items()
             if p[0].startswith(part)), module.parameters(), strict=True,
        ):  # fmt: skip
            torch.testing.assert_close(mine, parameter.grad, rtol=1e-12, atol=1e-12, msg=name)


# ---- the update ----------------------------------------------------------------------------------


class Reference:
    """SAC from its definition: torch's distributions, autograd, three torch.optim.Adam."""

    def __init__(self, a: Sac) -> None:
        named = {name: view.clone() for name, view in a.named_parameters().items()}

        def net(prefix: str) -> nn.Sequential:
            return mlp({n.split(".", 1)[1]: v for n, v in named.items() if n.startswith(prefix + ".")})

        self.nets = {p: net(p) for p in ("actor", "critic0", "critic1", "target0", "target1")}
        self.log_temperature = named["log_temperature"].clone().requires_grad_()
        self.tau, self.n_a = a.config.tau, a.action_dim
        lr, critics = a.config.lr, [*self.nets["critic0"].parameters(), *self.nets["critic1"].parameters()]
        self.optimisers = [
            torch.optim.Adam(p, lr=lr)
            for p in (critics, list(self.nets["actor"].parameters()), [self.log_temperature])
        ]

    def sample(self, obs, noise):
        mean, log_std = self.nets["actor"](obs).chunk(2, 1)
        std = log_std.clamp(-20, 2).exp()
        x = mean + std * noise
        action, squash = torch.tanh(x), TanhTransform()
        return action, (Normal(mean, std).log_prob(x) - squash.log_abs_det_jacobian(x, action)).sum(1)

    def q(self, kind, obs, action):
        x = torch.cat((obs, action), 1)
        return torch.stack([self.nets[f"{kind}{i}"](x)[:, 0] for i in range(2)])

    def update(self, b: Batch, noise, next_noise) -> dict[str, float]:
        alpha = self.log_temperature.exp().detach()
        with torch.no_grad():
            action, log_prob = self.sample(b.next_obs, next_noise)
            y = b.reward + b.discount * (
                self.q("target", b.next_obs, action).min(0).values - alpha * log_prob
            )
        critic = 0.5 * sum(nn.functional.mse_loss(q, y) for q in self.q("critic", b.obs, b.action))
        q_mean = self.q("critic", b.obs, b.action).mean().item()
        self.step(0, critic)
        action, log_prob = self.sample(b.obs, noise)
        actor = (alpha * log_prob - self.q("critic", b.obs, action).min(0).values).mean()
        temperature = -(self.log_temperature * (log_prob.detach().mean() - self.n_a))
        self.step(1, actor)
        self.step(2, temperature)
        with torch.no_grad():
            for i in range(2):
                for t, c in zip(
                    self.nets[f"target{i}"].parameters(), self.nets[f"critic{i}"].parameters(), strict=True
                ):
                    t.lerp_(c, self.tau)
        return {
            "critic": critic.item(), "actor": actor.item(), "temperature": alpha.item(),
            "entropy": -log_prob.mean().item(), "q_mean": q_mean,
        }  # fmt: skip

    def step(self, index, loss):
        self.optimisers[index].zero_grad()
        loss.backward()
        self.optimisers[index].step()

    def parameters(self) -> dict[str, torch.Tensor]:
        layers = {"0": "linear0", "2": "linear1", "4": "linear2"}
        named = {
            f"{prefix}.{layers[n.split('.')[0]]}.{n.split('.')[1]}": p.detach()
            for prefix, net in self.nets.items()
            for n, p in net.named_parameters()
        }
        return named | {"log_temperature": self.log_temperature.detach()}


@pytest.mark.parametrize("seed", range(5))
def test_updates_equal_the_definition(seed):
    a = agent(4, 3, seed=seed)
    for name, view in a.named_parameters().items():  # saturated actions and clamped log std are visited
        if name.startswith("actor.linear2"):
            view.mul_(8.0)
            view[3:] += 1.0
    reference = Reference(a)
    for step in range(5):
        case = random_batch(a, 10 * seed + step)
        want = reference.update(*case)
        got = a.learn(*case)._asdict()
        assert got == pytest.approx(want, rel=1e-7, abs=1e-9)
        mine = a.named_parameters()
        for name, expected in reference.parameters().items():
            torch.testing.assert_close(mine[name], expected, rtol=1e-7, atol=1e-8, msg=name)


def stable_baselines3():
    """The module, from CADENZA_SB3_SITE or the environment that the benchmarks made; None without one."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "cadenza"
    sites = [os.environ["CADENZA_SB3_SITE"]] if "CADENZA_SB3_SITE" in os.environ else sorted(
        str(p) for p in cache.glob("stable-baselines3-*/lib/python3*/site-packages")
    )  # fmt: skip
    if not sites:
        return None
    sys.path.append(sites[-1])  # at the end: numpy and torch stay ours
    try:
        return importlib.import_module("stable_baselines3")
    finally:
        sys.path.remove(sites[-1])


def test_updates_equal_stable_baselines3():
    sb3 = stable_baselines3()
    if sb3 is None:
        pytest.skip("no stable-baselines3: name its site-packages in CADENZA_SB3_SITE")
    import gymnasium

    class Space(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)

    a = agent(4, 3, dtype=torch.float32, hidden=32, batch=64, lr=3e-4)
    theirs = sb3.SAC(
        "MlpPolicy", Space(), batch_size=64, learning_rate=3e-4, buffer_size=64, device="cpu",
        policy_kwargs={"net_arch": [32, 32]},
    )  # fmt: skip
    theirs.set_logger(sb3.common.logger.Logger(None, []))
    nets = {}
    for i in range(2):
        for kind, critic in (("critic", theirs.critic), ("target", theirs.critic_target)):
            nets |= dict(zip(
                [f"{kind}{i}.linear{j}.{part}" for j in range(3) for part in ("weight", "bias")],
                critic.q_networks[i].parameters(), strict=True,
            ))  # fmt: skip
    actor = theirs.actor
    for j, layer in enumerate((actor.latent_pi[0], actor.latent_pi[2])):
        nets |= {f"actor.linear{j}.weight": layer.weight, f"actor.linear{j}.bias": layer.bias}
    mine = a.named_parameters()
    with torch.no_grad():
        for name, parameter in nets.items():
            parameter.copy_(mine[name])
        for part in ("weight", "bias"):
            getattr(actor.mu, part).copy_(mine[f"actor.linear2.{part}"][:3])
            getattr(actor.log_std, part).copy_(mine[f"actor.linear2.{part}"][3:])
    case = None

    def sample(batch_size, env=None):
        b = case[0]
        done = (b.discount == 0).float()[:, None]
        samples = sb3.common.type_aliases.ReplayBufferSamples
        fields = (b.obs, b.action, b.next_obs, done, b.reward[:, None])
        return samples(*fields, *[None] * (len(samples._fields) - 5))

    theirs.replay_buffer.sample = sample
    for step in range(3):
        case = random_batch(a, step)
        torch.manual_seed(step)
        noise, next_noise = torch.randn(64, 3), torch.randn(64, 3)
        torch.manual_seed(step)
        theirs.train(gradient_steps=1, batch_size=64)
        a.learn(case[0], noise, next_noise)
        for name, parameter in nets.items():
            # Adam divides by the root of its second moment: gradients at rounding size move a weight at will
            difference = (mine[name] - parameter.detach()).abs()
            assert difference.median() < 1e-7 and difference.max() < 2e-5, (step, name, difference.max())
        assert mine["log_temperature"].item() == pytest.approx(theirs.log_ent_coef.item(), abs=1e-6)


# ---- the agent -----------------------------------------------------------------------------------


def test_a_bandit_is_solved_and_the_temperature_reaches_its_entropy():
    # one state, one step, reward -8·(u - 0.5)²: the best policy is about Gaussian around 0.5; entropy -1.5 is
    # that of σ = e^-1.5/√(2πe) = 0.054, which the temperature 16·σ² = 0.047 makes the best
    a = agent(
        1, 1, dtype=torch.float32, hidden=32, batch=64, capacity=2_000, lr=3e-3, target_entropy=-1.5,
        initial_temperature=0.2,
    )  # fmt: skip
    zero = np.zeros((8, 1), np.float32)
    ended, running = np.ones(8, bool), np.zeros(8, bool)
    entropies = []
    for _ in range(900):
        u = a.act(zero, explore=True)
        a.observe(zero, u, -8.0 * (u[:, 0] - 0.5) ** 2, zero, ended, running)
        if a.ready:
            entropies.append(a.update()["entropy"])
    assert a.act(zero[0], explore=False)[0] == pytest.approx(0.5, abs=0.1)
    assert np.mean(entropies[-100:]) == pytest.approx(-1.5, abs=0.25)
    assert 0.03 < a.named_parameters()["log_temperature"].exp().item() < 0.075


def test_actions_are_in_environment_units_and_sampled_only_to_explore():
    a = agent(3, 2, dtype=torch.float32, bound=0.4)
    obs = np.random.default_rng(0).standard_normal((500, 3)).astype(np.float32)
    uniform = a.act(obs, explore=True)
    assert np.abs(uniform).max() <= 0.4 and abs(uniform.std() - 0.4 / math.sqrt(3)) < 0.02
    still = a.act(obs, explore=False)
    np.testing.assert_array_equal(a.act(obs, explore=False), still)
    np.testing.assert_allclose(0.4 * a.deploy_module()(torch.from_numpy(obs)).numpy(), still, atol=1e-6)
    assert a.act(obs[0], explore=False).shape == (2,)
    explore(a, 6)
    assert a.ready
    noisy = a.act(obs, explore=True)
    assert (noisy != still).any() and np.abs(noisy).max() <= 0.4


def test_an_action_is_held_and_its_transition_spans_the_hold():
    a = agent(1, 1, dtype=torch.float32, action_repeat=3, explore_steps=2)
    stored, actions = [], []
    for step in range(8):
        obs = np.full((2, 1), step, np.float32)
        u = a.act(obs, explore=True)
        actions.append(u[:, 0])
        # the first environment ends its episode after 5 steps, by the limit; the second never
        ends = np.array([step == 4, False])
        a.observe(obs, u, np.array([1.0, 10.0]), obs + 1, [False, False], ends)
        stored.append(a.updates_due(2) if a.ready else 0)
    first, second = np.array(actions).T
    assert len(set(first[:3])) == len(set(first[3:5])) == len(set(first[5:8])) == 1 and len(set(first)) == 3
    assert len(set(second[:3])) == len(set(second[3:6])) == 1 and len(set(second)) == 3
    b, n = a.buffer, a.buffer.count
    assert n == 5
    np.testing.assert_array_equal(b.obs[:n, 0], [0, 0, 3, 3, 5])
    np.testing.assert_array_equal(b.next_obs[:n, 0], [3, 3, 5, 6, 8])
    np.testing.assert_array_equal(b.reward[:n], [3, 30, 2, 30, 3])
    np.testing.assert_array_equal(b.action[:n, 0], [first[0], second[0], first[3], second[3], first[5]])
    assert (b.discount[:n] == np.float32(0.99)).all()
    assert stored == [0, 0, 2, 0, 1, 1, 0, 1]


def test_only_a_true_end_stops_the_bootstrap():
    a = agent(1, 1, dtype=torch.float32)
    z = np.zeros((2, 1), np.float32)
    a.observe(z, z, [0, 0], z, [True, False], [False, True])
    np.testing.assert_array_equal(a.buffer.discount[:2], np.float32([0.0, 0.99]))


@pytest.mark.parametrize("repeat", [1, 3])
def test_resume_is_bit_identical(repeat):
    def make(seed):
        a = agent(seed=seed, dtype=torch.float32, action_repeat=repeat, explore_steps=8)
        explore(a, 30)
        return a

    def go_on(a):
        metrics = []
        for step in range(20):
            explore(a, 1, seed=100 + step)
            metrics += [a.update() for _ in range(a.updates_due(4))]
        return metrics

    a = make(3)
    go_on(a)
    explore(a, 1)  # in the middle of a hold
    saved = a.state_dict()
    saved["buffer"] = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in saved["buffer"].items()}
    b = make(9)
    b.load_state_dict(saved)
    want, got = go_on(a), go_on(b)
    assert want == got and want
    for name in ("parameters", "moment1", "moment2", "generator"):
        assert torch.equal(a.state_dict()[name], b.state_dict()[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algorithm": "symphony"}, "algorithm is 'symphony', expected 'sac'"),
        ({"obs_dim": 4}, "obs_dim is 4, expected 3"),
        ({"config": {}}, "hidden = None|preset = None"),
        ({"action_low": np.zeros(2)}, "action_low"),
        ({"moment1": torch.zeros(3)}, r"moment1 is torch.float32\[3\]"),
        ({"generator": torch.zeros(3, dtype=torch.uint8)}, "not a generator state"),
    ],
)
def test_a_foreign_checkpoint_changes_nothing(change, message):
    a, b = agent(dtype=torch.float32), agent(dtype=torch.float32, seed=1)
    before = b.state_dict(buffer=False)["parameters"]
    with pytest.raises(ValueError, match=message):
        b.load_state_dict(a.state_dict() | change)
    assert torch.equal(b.state_dict(buffer=False)["parameters"], before)
    del (state := a.state_dict())["hold"]
    with pytest.raises(ValueError, match="checkpoint lacks hold"):
        b.load_state_dict(state)


def test_a_bad_transition_is_refused():
    a = agent(dtype=torch.float32)
    z = np.zeros((2, 3))
    with pytest.raises(ValueError, match="reward nan at env 1, step 1"):
        a.observe(z, z[:, :2], [0, np.nan], z, [False, False], [False, False])
    with pytest.raises(ValueError, match=r"action 2.0 of knee at env 0, step 1 is outside"):
        a.observe(z, np.full((2, 2), 2.0), [0, 0], z, [False, False], [False, False])
    with pytest.raises(ValueError, match="obs nan at env 0"):
        a.act(np.array([0, np.nan, 0]), explore=False)
    assert a.buffer.count == 0 and a.env_steps == 0
    with pytest.raises(RuntimeError, match="replay is empty"):
        a.update()


@pytest.mark.parametrize("poison", ["critic1.linear1.weight", "actor.linear0.bias", "target1.linear2.bias"])
def test_divergence_stops_before_the_step(poison):
    a = agent(dtype=torch.float32)
    explore(a, 10)
    a.named_parameters()[poison][..., 0] = np.nan  # one infinite target critic is not the minimum
    before = a.state_dict()
    with pytest.raises(TrainingDiverged, match="update 1"):
        a.update()
    after = a.state_dict()
    for name in ("parameters", "moment1", "moment2"):
        assert torch.equal(before[name].nan_to_num(), after[name].nan_to_num()), name
    assert after["updates"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "s3"}, "'s3'; there are default, tiny"),
        ({"batch": 0}, "batch 0"),
        ({"action_repeat": 0}, "action_repeat 0"),
        ({"gamma": 1.5}, "gamma 1.5"),
        ({"lr": math.nan}, "lr nan"),
        ({"initial_temperature": 0.0}, "initial_temperature 0.0"),
        ({"target_entropy": math.inf}, "target_entropy inf"),
        ({"explore_steps": 11, "capacity": 10}, "explore_steps 11 exceed the capacity 10"),
    ],
)
def test_bad_configuration(options, message):
    with pytest.raises(ValueError, match=message):
        SacConfig(**options)


def test_an_agent_without_its_replay_explores_by_its_policy():
    """Evaluation leaves the replay behind; exploration must not look unfinished then, and actions uniform."""
    a = agent(dtype=torch.float32, lr=1e-3)
    explore(a, 8)
    for _ in range(5):
        a.update()
    a.named_parameters()["actor.linear2.bias"][a.action_dim :] = -20.0  # log std: next to no noise
    state = a.state_dict(buffer=False)
    b = agent(dtype=torch.float32, lr=1e-3, seed=9)
    b.load_state_dict(state)
    obs = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    np.testing.assert_allclose(b.act(obs, explore=True), b.act(obs, explore=False), atol=1e-2)


def test_the_acting_part_alone_acts_as_the_agent():
    a = agent(dtype=torch.float32, bound=2.0)
    alone = Sac.Acting.alone(
        a.config, 3, a.boundary.low, a.boundary.high, seed=3, env_info=EnvInfo(joints=("knee",))
    )
    alone.load_weights(a.acting.weights())
    obs = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    np.testing.assert_array_equal(alone.act(obs, explore=False), a.act(obs, explore=False))
    with pytest.raises(ValueError, match=r"7 weights for a policy of \d+"):
        alone.load_weights(np.zeros(7, np.float32))
