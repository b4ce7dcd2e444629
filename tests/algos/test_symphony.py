"""Symphony's formulas: golden values, the independent reference, autograd, the official code, properties."""

import dataclasses
import importlib.util
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from reference_symphony import Reference
from symphony_agents import agent, explore, set_actor_output

from cadenza.algos import EnvInfo
from cadenza.algos.symphony import Symphony
from cadenza.algos.symphony_config import PRESETS, SymphonyConfig
from cadenza.algos.symphony_loss import ALPHA, ascending, node_weights, rehae, rehse, swaddling
from cadenza.buffer import Batch
from cadenza.nn import BlockShape, block

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "symphony.json").read_text())
PRECISIONS = [(torch.float64, 0.0, 1e-9), (torch.float32, 5e-5, 1e-7)]
torch.set_num_threads(1)


def random_case(a: Symphony, rows: int, seed: int, dropout: float = 0.0):
    """(batch arrays, noise, masks or None), float64."""
    rng = np.random.default_rng(seed)
    n_s, n_a = a.obs_dim, a.action_dim
    batch = (
        rng.standard_normal((rows, n_s)), rng.uniform(-1, 1, (rows, n_a)), rng.standard_normal(rows),
        rng.standard_normal((rows, n_s)), 0.99 * (rng.random(rows) > 0.3),
    )  # fmt: skip
    widths = [3 * n_a] + 6 * [a.config.hidden // 4]
    masks = [(rng.random((rows, w)) > dropout).astype(float) for w in widths] if dropout else None
    return batch, 0.4 * rng.standard_normal((rows, n_a)), masks


def tensors(batch, noise, masks, dtype=torch.float64):
    def convert(x):
        return torch.from_numpy(np.asarray(x)).to(dtype)

    return Batch(*map(convert, batch)), convert(noise), [convert(m) for m in masks or ()]


def spread_parameters(a: Symphony, seed: int) -> None:
    """Random LayerNorm gains, large S and B heads: every branch of the formulas is visited."""
    rng = np.random.default_rng(seed)
    a.set_blocks({name: x + 0.4 * rng.standard_normal(x.shape) for name, x in a.get_blocks().items()})


# ---- golden values -------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "relative", "absolute"), PRECISIONS)
@pytest.mark.parametrize(
    ("e", "symmetric", "asymmetric", "d_symmetric", "d_asymmetric"), GOLDEN["rectified_huber"]["rows"]
)
def test_rectified_huber_golden(
    e, symmetric, asymmetric, d_symmetric, d_asymmetric, dtype, relative, absolute
):
    at = torch.tensor([e], dtype=dtype)
    got = (*rehse(at), *rehae(at))
    for value, want in zip(got, (symmetric, d_symmetric, asymmetric, d_asymmetric), strict=True):
        assert value.item() == pytest.approx(want, rel=relative, abs=absolute)


@pytest.mark.parametrize(("dtype", "relative", "absolute"), PRECISIONS)
@pytest.mark.parametrize(("s", "b", "value", "d_s", "d_b"), GOLDEN["swaddling"]["rows"])
def test_swaddling_golden(s, b, value, d_s, d_b, dtype, relative, absolute):
    got = swaddling(torch.tensor([s], dtype=dtype), torch.tensor([b], dtype=dtype))
    for x, want in zip(got, (value, d_s, d_b), strict=True):
        assert x.item() == pytest.approx(want, rel=relative, abs=absolute)
    half = torch.tensor([0.5], dtype=dtype)
    assert swaddling(half, half)[0].item() == pytest.approx(
        GOLDEN["swaddling"]["at_half"], rel=relative, abs=absolute
    )


def root(f, low: float, high: float) -> float:
    """Zero of an increasing function, by bisection."""
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if f(middle) > 0 else (middle, high)
    return low


def test_swaddling_extrema_golden():
    def slope(s, b, index):
        return swaddling(torch.tensor([s], dtype=torch.float64), torch.tensor([b], dtype=torch.float64))[
            index
        ].item()

    for b, s, tolerance in GOLDEN["swaddling"]["argmin_S"]:
        assert root(lambda x, b=b: slope(x, b, 1), 0.01, 0.95) == pytest.approx(s, abs=tolerance)
    for s, b in GOLDEN["swaddling"]["root_B"]:
        assert root(lambda x, s=s: slope(s, x, 2), 0.01, 0.95) == pytest.approx(b, abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_swaddling_is_finite_at_the_clamp_corners(dtype):
    corners = torch.tensor([1e-3, 1 - 1e-3], dtype=dtype)
    s, b = torch.meshgrid(corners, corners, indexing="ij")
    for x in swaddling(s, b):
        assert x.isfinite().all()
    if dtype == torch.float32:  # S^{1/B} underflows: Ω(0) = 0 and no gradient, leaving B·(ln S + 1)
        _, d_s, _ = swaddling(s[:1, :1], b[:1, :1])
        assert d_s.item() == pytest.approx(1e-3 * (math.log(1e-3) + 1), rel=1e-5)


def test_node_weights_golden():
    g = GOLDEN["node_weights"]
    np.testing.assert_allclose(node_weights(12), g["n12"], rtol=0, atol=1e-12)
    nodes = torch.arange(12, dtype=torch.float64)[torch.randperm(12)] ** 2 / 10
    assert (ascending(nodes[None])[1][0] @ node_weights(12)).item() == pytest.approx(
        g["q_of_squares"], abs=1e-9
    )
    v = node_weights(384)
    assert v[0].item() == pytest.approx(g["n384"]["first"], abs=1e-12)
    assert v[-1].item() == pytest.approx(g["n384"]["last"], rel=1e-9)
    assert v[-96:].sum().item() == pytest.approx(g["n384"]["top_quarter"], abs=1e-8)
    assert v[-192:].sum().item() == pytest.approx(g["n384"]["top_half"], abs=1e-8)
    for n, first in g["first"]:
        assert node_weights(n)[0].item() == pytest.approx(first, abs=1e-12)


def test_sorting_is_stable_under_ties():
    nodes = torch.tensor([[2.0, 1.0, 2.0, 1.0, 0.0, 2.0], [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]] * 20)
    order, values = ascending(nodes)
    assert order[0].tolist() == [4, 1, 3, 0, 2, 5] and values[0].tolist() == [0, 1, 1, 2, 2, 2]
    many = np.random.default_rng(0).integers(0, 5, (20, 384)).astype(np.float32)
    order, values = ascending(torch.from_numpy(many))
    np.testing.assert_array_equal(order, np.argsort(many, axis=1, kind="stable"))
    np.testing.assert_array_equal(values, np.sort(many, axis=1))


def constant_critics(a: Symphony, q_next: float) -> tuple[Batch, torch.Tensor]:
    """One row on which the target critics return `q_next` from every node, and no noise."""
    blocks = {n: np.zeros_like(x) for n, x in a.get_blocks().items() if n.startswith("target")}
    for i in range(3):
        blocks[f"target{i}.linear2.bias"] += q_next
    a.set_blocks(blocks)
    rows = torch.zeros(1, a.obs_dim, dtype=torch.float64)
    action = torch.zeros(1, a.action_dim, dtype=torch.float64)
    return Batch(rows, action, rows[:, 0], rows, rows[:, 0]), action


def test_advantage_golden():
    g = GOLDEN["advantage"]
    values, terms = [], []
    for q in g["q_next"]:
        a = agent(q_floor=g["q_floor"])
        a.load_state_dict(a.state_dict() | {"q_ema": torch.tensor(float(g["m"]), dtype=torch.float64)})
        losses = a.loss(*constant_critics(a, q))
        values.append(losses.q_t.item())
        terms.append(losses.advantage.item())
    np.testing.assert_allclose(values, g["q_t"], rtol=0, atol=5e-8)
    assert np.mean(terms) == pytest.approx(g["term"], abs=1e-9)
    assert np.mean(values) == pytest.approx(g["new_m"], abs=1e-9)
    floored = g["floored"]
    for floor, arguments in ((g["q_floor"], floored["arguments"]), (0.0, floored["without_floor"])):
        for q, argument in zip(floored["q_next"], arguments, strict=True):
            a = agent(q_floor=floor)
            a.load_state_dict(a.state_dict() | {"q_ema": torch.tensor(1.0, dtype=torch.float64)})
            losses = a.loss(*constant_critics(a, q))
            # tanh is saturated there, so the term is the argument itself
            assert losses.advantage.item() == pytest.approx(-argument, rel=3e-5)


def test_optimiser_golden():
    g = GOLDEN["optimiser"]
    a = agent(lr=g["lr"])
    a.set_blocks({n: np.ones_like(x) for n, x in a.get_blocks().items()})
    for gradient, theta in zip(g["gradients"], g["thetas"], strict=True):
        a.gradient.fill_(gradient)
        a._step()
        assert a.get_blocks()["actor.linear1.weight"] == pytest.approx(theta, abs=1e-12)
    state = a.state_dict()
    assert state["moment1"] == pytest.approx(g["m3"], abs=1e-10)
    assert state["moment2"] == pytest.approx(g["v3"], abs=1e-12)


def test_action_golden():
    g = GOLDEN["action"]
    a = agent()
    raw = [2 * math.atanh(v) for v in (*g["A"], *g["S"])]
    set_actor_output(a, [*raw, 0.1, 0.1])
    batch, _ = constant_critics(a, 0.0)
    for noise, want in (([0.0, 0.0], g["u"]), (g["N"], g["noisy"])):
        action = a.loss(batch, torch.tensor([noise], dtype=torch.float64)).action
        np.testing.assert_allclose(action[0], want, rtol=0, atol=1e-8)
    np.testing.assert_allclose(a.act(np.zeros(3), explore=False), g["u"], rtol=0, atol=1e-7)
    one = agent(action_dim=1)
    set_actor_output(one, [g["deploy"]["x_A"], g["deploy"]["x_S"], 3.0])
    u = one.deploy_module()(torch.zeros(1, 3, dtype=torch.float64))
    assert u.item() == pytest.approx(g["deploy"]["u"], abs=1e-9)


@pytest.mark.parametrize("preset", ["e", "pi"])
def test_noise_golden(preset):
    g, n = GOLDEN["noise"][preset], 1_000_000
    config = PRESETS["s3" if preset == "e" else "se"]
    a = agent(seed=5, **{k: v for k, v in config.items() if k.startswith("noise")})
    noise = a.acting.noise(torch.empty(n, 1, dtype=torch.float64)).numpy().ravel()
    u = np.tanh(noise)
    fraction_clipped = (np.abs(noise) >= a.config.noise_std * a.config.noise_clip).mean()

    def close(sample, want):
        assert abs(sample.mean() - want) < 4 * sample.std() / math.sqrt(n)

    close(noise**2, g["std"] ** 2)
    close(u**2, g["std_tanh"] ** 2)
    close(np.abs(u), g["mean_abs_tanh"])
    close((np.abs(u) > 0.4).astype(float), g["above_0.4"])
    assert abs(fraction_clipped - g["clipped"]) < 4 * math.sqrt(g["clipped"] / n)
    assert np.abs(np.diff(u)).mean() == pytest.approx(g["mean_abs_difference"], abs=2e-3)
    assert np.abs(noise).max() <= 1.0 and np.abs(u).max() <= math.tanh(1.0)


@pytest.mark.parametrize(("preset", "obs", "act", "actor", "critics", "lean"), GOLDEN["parameters"]["rows"])
def test_parameter_counts(preset, obs, act, actor, critics, lean):
    h = SymphonyConfig.from_preset(preset).hidden
    assert BlockShape(obs, h, 3 * act).parameters == actor
    assert 3 * BlockShape(obs + act, h, h // 4).parameters == critics
    assert BlockShape(obs, h, 2 * act).parameters == lean


def test_first_policy_is_practically_noise():
    for seed in range(3):
        a = agent(512, 11, 3, seed=seed, dtype=torch.float32)
        obs = torch.randn(384, 11, generator=torch.Generator().manual_seed(seed))
        zeros = torch.zeros(384, 3)
        losses = a.loss(Batch(obs, zeros, obs[:, 0], obs, obs[:, 0]), zeros)
        assert 0.03 < losses.scale.mean() < 0.07 and 0.03 < losses.beta.mean() < 0.07
        assert np.abs(a.act(obs.numpy(), explore=False)).mean() < 0.01


# ---- the whole update against the independent reference and against autograd ---------------------


CASES = [
    (h, n_s, n_a, p)
    for h, n_s, n_a in ((8, 3, 1), (16, 11, 3), (20, 5, 2), (32, 17, 6), (8, 1, 4))
    for p in (0.0, 0.5)
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("hidden", "obs_dim", "action_dim", "dropout"), CASES)
def test_three_updates_equal_the_reference(hidden, obs_dim, action_dim, dropout, seed):
    a = agent(hidden, obs_dim, action_dim, seed=seed, gradient_dropout=dropout)
    spread_parameters(a, seed)
    reference = Reference(a.get_blocks(), lr=a.config.lr, q_floor=a.config.q_floor, tau=a.config.tau)
    for step in range(3):
        case = random_case(a, 3 + 7 * seed + step, 100 * seed + step, dropout)
        losses = a.loss(*tensors(*case))
        terms, gradients = reference.update(*case[0], *case[1:])
        for name, value in terms.items():
            np.testing.assert_allclose(getattr(losses, name), value, rtol=0, atol=1e-10, err_msg=name)
        mine = a.named_gradient()
        assert mine.keys() == gradients.keys()
        scale = max(np.abs(g).max() for g in gradients.values())
        for name, g in gradients.items():
            np.testing.assert_allclose(mine[name], g, rtol=1e-8, atol=1e-12 * scale, err_msg=name)
        a._q_ema.copy_(losses.q_ema)
        a._step()
        state = a.state_dict(buffer=False)
        moments = {"moment1": reference.m, "moment2": reference.v}
        for moment, expected in moments.items():
            for name, view in a._named(state[moment]).items():
                np.testing.assert_allclose(
                    view, expected[name], rtol=1e-8, atol=1e-15, err_msg=f"{moment} {name}"
                )
    for name, value in a.get_blocks().items():
        np.testing.assert_allclose(value, reference.params[name], rtol=0, atol=1e-9, err_msg=name)


def test_update_itself_equals_the_reference_on_what_it_drew():
    a = agent(16, 4, 2)
    explore(a)
    reference = Reference(a.get_blocks(), lr=a.config.lr)
    for _ in range(4):
        metrics = a.update()
        batch = [np.array(getattr(a.last_batch, f.name), np.float64) for f in dataclasses.fields(Batch)]
        terms, gradients = reference.update(*batch, a._noise.numpy().copy())
        for name, term in (("loss", "total"), ("advantage", "advantage"), ("td", "td"), ("q_ema", "q_ema")):
            assert metrics[name] == pytest.approx(terms[term], abs=1e-10)
        norm = math.sqrt(sum((g**2).sum() for g in gradients.values()))
        assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-9)
        assert metrics["clipped_q_fraction"] == (np.abs(terms["q_t"]) < a.config.q_floor).mean()
    for name, value in a.get_blocks().items():
        np.testing.assert_allclose(value, reference.params[name], rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_reference_backward_by_finite_differences(dropout):
    """What the formulas detach (Q_T, y, the exponent of the swaddling term) is held at its value."""
    a = agent(8, 2, 2, gradient_dropout=dropout)
    spread_parameters(a, 3)
    reference = Reference(a.get_blocks(), lr=1e-3)
    batch, noise, _ = random_case(a, 4, 9)
    terms, gradients = reference.loss(*batch, noise)
    held = autograd_loss(a.get_blocks(), batch, noise, None, 0.0, 1e-2, hold=None)
    assert held["total"].item() == pytest.approx(terms["total"], abs=1e-12)
    rng, step = np.random.default_rng(0), 1e-6
    for name in rng.permutation(list(gradients))[:12]:
        index = tuple(int(rng.integers(n)) for n in gradients[name].shape)
        shifted = []
        for sign in (1, -1):
            blocks = {n: x.copy() for n, x in a.get_blocks().items()}
            blocks[name][index] += sign * step
            shifted.append(autograd_loss(blocks, batch, noise, None, 0.0, 1e-2, hold=held)["total"].item())
        assert gradients[name][index] == pytest.approx(
            (shifted[0] - shifted[1]) / (2 * step), rel=1e-5, abs=1e-7
        )


def autograd_loss(blocks, batch, noise, masks, q_ema, q_floor, hold):
    """The loss under torch autograd; `hold` gives what the formulas detach (None: take it from this pass)."""
    p = {
        n: torch.tensor(x, dtype=torch.float64, requires_grad=not n.startswith("target"))
        for n, x in blocks.items()
    }
    obs, action, reward, next_obs, discount = (torch.from_numpy(np.asarray(x, np.float64)) for x in batch)
    n = noise.shape[1]

    def run(net, x, mask):
        names = {"0": "linear0", "1": "norm", "2": "linear1", "3": "resine", "4": "linear2"}
        arrays = {k.split(".", 1)[1]: v for k, v in p.items() if k.startswith(net + ".")}
        module = block({k: v.detach() for k, v in arrays.items()})
        state = {
            k: arrays[f"{names[k.split('.')[0]]}.{k.split('.')[1]}"] for k, _ in module.named_parameters()
        }
        out = torch.func.functional_call(module, state, (x,))
        return out if mask is None else mask * out + (1 - mask) * out.detach()

    mask = [None] * 7 if masks is None else [torch.from_numpy(m) for m in masks]
    half = torch.tanh(run("actor", next_obs, mask[0]) / 2)
    a, s, b = half[:, :n], half[:, n : 2 * n].abs(), half[:, 2 * n :].abs()
    u = torch.tanh(s * a + torch.from_numpy(noise))
    nodes = torch.cat([run(f"target{i}", torch.cat([next_obs, u], 1), mask[4 + i]) for i in range(3)], 1)
    q_next = nodes.sort(dim=1, stable=True).values @ node_weights(nodes.shape[1])
    q = torch.cat([run(f"critic{i}", torch.cat([obs, action], 1), mask[1 + i]) for i in range(3)], 1)
    s, b = s.clamp(1e-3, 1 - 1e-3), b.clamp(1e-3, 1 - 1e-3)
    hold = hold or {"q_next": q_next.detach(), "b": b.detach()}
    q_t = ALPHA * q_ema + (1 - ALPHA) * hold["q_next"]
    y = reward + discount * hold["q_next"]
    x = (q_next - q_t) / q_t.abs().clamp(min=q_floor)
    e = q - y[:, None]
    power = s ** (1 / hold["b"])
    calm = torch.log((1 + power) / (1 - power)) + b * s * s.log() + torch.log((1 + b**2) / (1 - b**2))
    advantage, td, calm = -(x.abs() * torch.tanh(x / 2)).mean(), (e * torch.tanh(e / 2)).mean(), calm.mean()
    return hold | {
        "total": advantage + td + calm,
        "advantage": advantage,
        "td": td,
        "swaddling": calm,
        "p": p,
    }


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_gradient_equals_autograd(dropout):
    for seed in range(5):
        a = agent(16, 5, 3, seed=seed, gradient_dropout=dropout)
        spread_parameters(a, seed)
        batch, noise, masks = random_case(a, 12, seed, dropout)
        a.loss(*tensors(batch, noise, masks))
        result = autograd_loss(a.get_blocks(), batch, noise, masks, 0.0, a.config.q_floor, None)
        result["total"].backward()
        for name, g in a.named_gradient().items():
            torch.testing.assert_close(g, result["p"][name].grad, rtol=1e-10, atol=1e-10, msg=name)


def test_float32_follows_float64():
    exact, single = agent(32, 6, 3), agent(32, 6, 3, dtype=torch.float32)
    case = random_case(exact, 24, 1)
    wanted, got = exact.loss(*tensors(*case)), single.loss(*tensors(*case, dtype=torch.float32))
    assert got.total.item() == pytest.approx(wanted.total.item(), rel=5e-5)
    scale = exact.gradient.abs().max()
    torch.testing.assert_close(single.gradient.double() / scale, exact.gradient / scale, rtol=0, atol=5e-5)


@pytest.mark.parametrize("preset", ["s3", "se", "s2", "ed"])
def test_a_hundred_updates_equal_the_official_code(preset, record_property):
    clone = os.environ.get("CADENZA_SYMPHONY_OFFICIAL")
    if clone is None:
        pytest.skip("CADENZA_SYMPHONY_OFFICIAL does not name a clone of SuspensionRailway/symphony")
    folder = Path(clone) if preset == "s3" else Path(clone) / f"symphony_{preset.upper()}"
    spec = importlib.util.spec_from_file_location(f"official_{preset}", folder / "symphony.py")
    official = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(official)
    n_s, n_a, h = 11, 3, 64
    config = SymphonyConfig.from_preset(preset, hidden=h, paper_mode=True)
    info = EnvInfo(max_episode_steps=1000)
    ours = Symphony(config, n_s, -np.ones(n_a), np.ones(n_a), seed=0, env_info=info)
    theirs = official.Symphony(64, n_s, n_a, h, "cpu", torch.ones(n_a), config.lr)
    nets = {"actor": theirs.nets.online.a} | {
        f"{kind}{i}": getattr(side, f"q{'ABC'[i]}")
        for kind, side in (("critic", theirs.nets.online), ("target", theirs.nets.target))
        for i in range(3)
    }
    layers = {"linear0": "0", "norm": "1", "linear1": "2", "resine": "3", "linear2": "4"}

    def parameter(name):
        net, layer, part = name.split(".")
        return dict(nets[net].named_parameters())[f"ffw.{layers[layer]}.{part}"]

    with torch.no_grad():
        for name, array in ours.get_blocks().items():
            parameter(name).copy_(torch.from_numpy(array))

    rows = config.nodes
    for step in range(100):
        rng = np.random.default_rng(step)
        batch = Batch(*(torch.from_numpy(x.astype(np.float32)) for x in (
            rng.standard_normal((rows, n_s)), rng.uniform(-1, 1, (rows, n_a)), rng.standard_normal(rows),
            rng.standard_normal((rows, n_s)), 0.99 * (rng.random(rows) > 0.1),
        )))  # fmt: skip
        torch.manual_seed(step)
        masks = []
        if config.gradient_dropout:  # their order of draws: actor mask, noise, target masks, online masks
            masks = [(torch.rand(rows, 3 * n_a) > 0.5).float()]
        noise = torch.randn(rows, n_a).clamp(-config.noise_clip, config.noise_clip) * config.noise_std
        if masks:
            critics = [(torch.rand(rows, h // 4) > 0.5).float() for _ in range(6)]
            masks += critics[3:] + critics[:3]
        losses = ours.loss(batch, noise, masks)
        total = losses.total.item()
        ours._q_ema.copy_(losses.q_ema)
        ours._step()
        torch.manual_seed(step)
        theirs.nets_optimizer.zero_grad(set_to_none=True)
        column = (batch.obs, batch.action, batch.reward[:, None], batch.next_obs, batch.discount[:, None])
        loss, _ = theirs.nets(*column)
        loss.backward()
        theirs.nets_optimizer.step()
        theirs.nets.tau_update()
        assert total == pytest.approx(loss.item(), rel=1e-4)
        assert ours._q_ema.item() == pytest.approx(theirs.nets.q_next_ema.item(), rel=1e-4)
        if step in (0, 99):
            differences = {
                name: float((torch.from_numpy(array) - parameter(name).detach()).abs().max())
                for name, array in ours.get_blocks().items()
            }
            worst = max(differences, key=lambda name: differences[name])
            record_property(f"largest difference after {step + 1}", f"{differences[worst]:.2g} ({worst})")
            assert differences[worst] < (2e-6 if step == 0 else 1e-4), (step, worst, differences[worst])


# ---- properties ----------------------------------------------------------------------------------


def test_node_order_does_not_matter():
    a = agent(16)
    case = tensors(*random_case(a, 9, 0))
    before = a.loss(*case).q_next.clone()
    blocks = a.get_blocks()
    for part in ("weight", "bias"):  # swap two nodes between critics and two within one
        x, y = blocks[f"target0.linear2.{part}"], blocks[f"target2.linear2.{part}"]
        x[1], y[0] = y[0].copy(), x[1].copy()
        x[[2, 3]] = x[[3, 2]]
    inner = {k: v for k, v in blocks.items() if "target" in k}
    # nodes may only move between critics whose hidden layers agree
    for name in list(inner):
        if not name.startswith("target0") and "linear2" not in name:
            inner[name] = blocks["target0." + name.split(".", 1)[1]]
    a.set_blocks({k: v for k, v in inner.items() if "linear2" not in k})
    same_hidden = a.loss(*case).q_next.clone()
    a.set_blocks(inner)
    assert not torch.allclose(before, same_hidden)
    torch.testing.assert_close(a.loss(*case).q_next, same_hidden, rtol=1e-12, atol=1e-12)


def test_each_net_learns_from_its_own_terms_only():
    a = agent(16, 4, 2)
    case = random_case(a, 10, 0)
    losses = {}
    for term in ("advantage", "td", "swaddling"):
        result = autograd_loss(a.get_blocks(), case[0], case[1], None, 0.0, 1e-2, None)
        result[term].backward()
        losses[term] = {n: p.grad for n, p in result["p"].items()}
    a.loss(*tensors(*case))
    mine = a.named_gradient()
    for name, g in mine.items():
        terms = ["td"] if name.startswith("critic") else ["advantage", "swaddling"]
        torch.testing.assert_close(g, sum(losses[t][name] for t in terms), rtol=1e-10, atol=1e-12)
        assert all(losses[t][name] is None for t in losses if t not in terms)
    assert not any(name.startswith("target") for name in mine)


def test_paper_mode_equals_the_default_where_no_floor_acts():
    runs = []
    for options in ({}, {"paper_mode": True}):
        a = agent(16, dtype=torch.float32, info=EnvInfo(max_episode_steps=10_000), **options)
        spread_parameters(a, 0)
        a.set_blocks({f"target{i}.linear2.bias": np.full(4, 40.0, np.float32) for i in range(3)})
        explore(a, terminal=0.0)
        runs.append([a.update() for _ in range(3)])
        assert all(m["clipped_q_fraction"] == 0.0 for m in runs[-1])
    assert runs[0] == runs[1]


def test_clamp_cuts_the_gradient_on_both_sides():
    a = agent(8, 2, 1)
    for s, passes in (
        (1e-3 * 0.99, False),
        (1e-3 * 1.01, True),
        (1 - 1e-3 * 1.01, True),
        (1 - 1e-3 * 0.99, False),
    ):
        set_actor_output(a, [0.0, 2 * math.atanh(s), 2 * math.atanh(0.3)])  # A = 0: no other path into S
        a.loss(*constant_critics(a, 1.0))
        assert (a.named_gradient()["actor.linear2.bias"][1] != 0) == passes
