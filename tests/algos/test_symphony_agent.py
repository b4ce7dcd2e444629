"""Symphony as an agent: acting, observing, resume, bad input, divergence."""

import dataclasses
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from symphony_agents import agent, explore, set_actor_output

from cadenza.algos import EnvInfo, TrainingDiverged
from cadenza.algos.symphony import Symphony
from cadenza.algos.symphony_config import MAX_AUTHORITY, PRESETS, SymphonyConfig

torch.set_num_threads(1)


@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 1e3))
@settings(max_examples=25, deadline=None)
def test_actions_stay_inside_their_bounds(seed, scale):
    a = agent(8, 3, 2, seed=seed, dtype=torch.float32)
    a.set_blocks(
        {n: x * np.float32(scale) for n, x in a.get_blocks().items() if n.startswith("actor.linear2")}
    )
    obs = np.random.default_rng(seed).standard_normal((64, 3)).astype(np.float32)
    assert np.abs(a.act(obs, explore=False)).max() <= np.float32(math.tanh(1.0))
    assert np.abs(a.act(obs, explore=True)).max() <= np.float32(math.tanh(2.0))


def test_act_is_deterministic_without_noise_and_ignores_the_b_head():
    a = agent(16, dtype=torch.float32)
    obs = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    first, generator = a.act(obs, explore=False), a.state_dict()["generator"]
    blocks = a.get_blocks()
    for part in ("weight", "bias"):
        blocks[f"actor.linear2.{part}"][4:] = 7.0
    a.set_blocks(blocks)
    np.testing.assert_array_equal(a.act(obs, explore=False), first)
    np.testing.assert_array_equal(a.act(obs[2], explore=False).shape, (2,))
    np.testing.assert_allclose(a.act(obs[2], explore=False), first[2], rtol=1e-5, atol=1e-7)
    assert torch.equal(a.state_dict()["generator"], generator)
    assert (a.act(obs, explore=True) != first).any()
    still = a.act(obs, explore=False, active=np.array([True, False, True, True, False]))
    assert (still[[1, 4]] == 0).all() and (still[0] == first[0]).all()
    np.testing.assert_allclose(a.deploy_module()(torch.from_numpy(obs)).detach(), first, rtol=0, atol=1e-6)


def test_bounds_and_authority():
    low, high = np.array([-0.4, 1.0]), np.array([0.4, 5.0])

    def make(**options):
        config = SymphonyConfig(hidden=8, explore_steps=4, tiles=1, **options)
        return Symphony(config, 1, low, high, seed=0)

    a = make(authority=MAX_AUTHORITY)
    set_actor_output(a, [90.0, -90.0, 90.0, 90.0, 0.0, 0.0])
    action = a.act(np.zeros(1, np.float32), explore=False)
    np.testing.assert_allclose(action, [0.4, 1.0], rtol=1e-6)
    noisy = a.act(np.zeros((500, 1), np.float32), explore=True)
    assert (noisy <= high.astype(np.float32)).all() and (noisy >= low.astype(np.float32)).all()
    a.observe(np.zeros(1), action, 0.0, np.zeros(1), False, False)
    np.testing.assert_allclose(a.buffer.action[0], [math.tanh(1.0), -math.tanh(1.0)], rtol=1e-6)
    plain = make()
    plain.observe(np.zeros(1), np.array([0.2, 4.0]), 0.0, np.zeros(1), True, False)
    np.testing.assert_allclose(plain.buffer.action[0], [0.5, 0.5], rtol=1e-6)
    assert plain.buffer.discount[0] == 0.0
    unit = make(action_bounds="unit")
    unit.observe(np.zeros(1), np.array([0.2, -1.0]), 0.0, np.zeros(1), False, True)
    np.testing.assert_allclose(unit.buffer.action[0], [0.2, -1.0])
    assert unit.buffer.discount[0] == np.float32(0.99)


def test_final_fall_spans_one_step_more_than_asked_and_only_after_exploration():
    info = EnvInfo(max_episode_steps=100)
    a = agent(
        8, 1, 1, explore_steps=60, tiles=1, final_fall_steps=50, info=info, noise_std=0.0, dtype=torch.float32
    )
    set_actor_output(a, [3.0, 3.0, 0.0])
    obs = np.zeros((1, 1), np.float32)
    fallen = []
    for step in range(1, 204):
        action = a.act(obs, explore=True)
        assert a.act(obs, explore=False) != 0
        if action[0, 0] == 0:
            fallen.append(step)
        a.observe(obs, action, [1.0], obs, [False], [step % 100 == 0])
    assert fallen == [*range(61, 101), *range(150, 201)]


# ---- replay and update schedule, resume ----------------------------------------------------------


def test_updates_due():
    a = agent(explore_steps=8, updates_per_step=3)
    assert a.updates_due(4) == 0
    with pytest.raises(RuntimeError, match="0 of 8 exploration steps"):
        a.update()
    explore(a)
    assert a.ready and a.updates_due(4) == 12
    b = agent(explore_steps=8, updates_per_step=3, updates_per_vector_step=5)
    explore(b)
    assert b.updates_due(4) == 5


def run_some(a: Symphony, steps: int, seed: int) -> list[dict[str, float]]:
    metrics = []
    for step in range(steps):
        explore(a, seed=seed + step, steps=1)
        metrics.append(a.update())
    return metrics


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_resume_is_bit_identical(dropout):
    def make(seed=3):
        a = agent(16, seed=seed, dtype=torch.float32, gradient_dropout=dropout)
        explore(a)
        return a

    a = make()
    run_some(a, 20, 50)
    saved = {
        k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in a.state_dict(buffer=False).items()
    } | {
        "buffer": {
            k: v.copy() if isinstance(v, np.ndarray) else v for k, v in a.state_dict()["buffer"].items()
        }
    }
    expected = run_some(a, 20, 80)
    b = make(seed=99)
    b.load_state_dict(saved)
    assert run_some(b, 20, 80) == expected
    mine, other = a.state_dict(), b.state_dict()
    for name in ("parameters", "moment1", "moment2", "q_ema", "generator"):
        assert torch.equal(mine[name], other[name]), name
    assert mine["env_steps"] == other["env_steps"] and mine["updates"] == other["updates"] == 40
    for name, value in mine["buffer"].items():
        assert np.array_equal(value, other["buffer"][name]), name


def test_seeds():
    curves = []
    for seed in (1, 1, 2):
        a = agent(16, seed=seed, dtype=torch.float32)
        explore(a)
        curves.append([m["loss"] for m in run_some(a, 4, 0)])
    assert curves[0] == curves[1] != curves[2]


def test_state_before_tiling_can_be_restored():
    a, b = agent(dtype=torch.float32), agent(seed=9, dtype=torch.float32)
    explore(a, steps=3)
    b.load_state_dict(a.state_dict())
    assert b.buffer.count == 12 and not b.ready
    explore(b, steps=5)
    assert b.ready


def test_learning_lowers_the_td_error():
    a = agent(32, dtype=torch.float32, lr=3e-3, gamma=0.0, explore_steps=128)
    rng = np.random.default_rng(0)
    for _ in range(32):
        obs = rng.standard_normal((4, 3)).astype(np.float32)
        a.observe(
            obs, a.act(obs, explore=True), 2.0 * np.sign(obs[:, 0]), obs, np.zeros(4, bool), np.zeros(4, bool)
        )
    first = np.mean([a.update()["td"] for _ in range(5)])
    for _ in range(300):
        a.update()
    assert np.mean([a.update()["td"] for _ in range(5)]) < 0.2 * first


# ---- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": [0, 0, 0, np.nan]}, "reward nan at env 3, step 2"),
        ({"reward": [0, np.inf, 0, 0]}, "reward inf at env 1, step 2"),
        ({"obs": np.array([[0, 0, 0]] * 3 + [[0, np.nan, 0]])}, r"obs nan at env 3, step 2 \(column 1\)"),
        ({"next_obs": np.full((4, 3), -np.inf)}, "next_obs -inf at env 0"),
        ({"action": np.full((4, 2), np.nan)}, "action nan at env 0"),
        ({"action": np.full((4, 2), 1.5)}, r"action 1.5 of knee at env 0, step 2 is outside \[-1.0, 1.0\]"),
        ({"action": np.zeros((4, 3))}, r"action has shape \[4, 3\], expected \[2\] or \[k, 2\]"),
        ({"action": np.zeros((3, 2))}, r"action has shape \[3, 2\], expected \[4, 2\]"),
        ({"obs": np.zeros((4, 2))}, r"obs has shape \[4, 2\], expected \[3\]"),
        ({"reward": [0.0]}, r"reward has shape \[1\], expected \[4\]"),
        ({"terminated": [False]}, r"terminated has shape \[1\]"),
    ],
)
def test_a_bad_transition_is_refused_and_nothing_changes(change, message):
    a = agent(dtype=torch.float32, info=EnvInfo(joints=("knee", "hip")))
    good = {
        "obs": np.zeros((4, 3)),
        "action": np.zeros((4, 2)),
        "reward": np.zeros(4),
        "next_obs": np.zeros((4, 3)),
        "terminated": np.zeros(4, bool),
        "truncated": np.zeros(4, bool),
    }
    a.observe(**good)
    with pytest.raises(ValueError, match=message):
        a.observe(**(good | change))
    assert a.buffer.count == 4 and a.env_steps == 1


def test_environments_must_divide_the_exploration():
    a = agent(dtype=torch.float32)
    zeros = np.zeros((5, 3))
    with pytest.raises(ValueError, match="32 is not a multiple of 5"):
        a.observe(zeros, zeros[:, :2], np.zeros(5), zeros, np.zeros(5, bool), np.zeros(5, bool))
    assert a.buffer.count == 0


def test_act_refuses_bad_observations():
    with pytest.raises(ValueError, match="obs nan at env 0"):
        agent().act(np.array([0, np.nan, 0]), explore=True)
    with pytest.raises(ValueError, match=r"obs has shape \[4\]"):
        agent().act(np.zeros(4), explore=True)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ([-1.0, -np.inf], [1.0, 1.0], r"\[-inf, 1.0\] of hip"),
        ([-1.0, 1.0], [1.0, 1.0], r"\[1.0, 1.0\] of hip"),
        ([np.nan, -1.0], [1.0, 1.0], "of knee"),
        ([-1.0], [1.0, 1.0], r"shapes \[1\] and \[2\]"),
    ],
)
def test_bad_bounds(low, high, message):
    with pytest.raises(ValueError, match=message):
        Symphony(SymphonyConfig(hidden=8), 3, low, high, seed=0, env_info=EnvInfo(joints=("knee", "hip")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 10}, "hidden 10"),
        ({"preset": "s9"}, "'s9'.*s3, se, s2, ed, small, tiny"),
        ({"explore_steps": 0}, "explore_steps 0"),
        ({"gamma": 1.5}, "gamma 1.5"),
        ({"lr": math.nan}, "lr nan"),
        ({"authority": 1.4}, "authority 1.4"),
        ({"action_bounds": "joint"}, "'joint'.*robot, unit"),
    ],
)
def test_bad_configuration(options, message):
    with pytest.raises(ValueError, match=message):
        SymphonyConfig(**options)
    if "preset" in options:
        with pytest.raises(ValueError, match=message):
            SymphonyConfig.from_preset(options["preset"])


def test_final_fall_needs_a_limit_and_no_hardware():
    with pytest.raises(ValueError, match="real robot"):
        agent(final_fall_steps=50, info=EnvInfo(hardware=True, max_episode_steps=100))
    with pytest.raises(ValueError, match="max_episode_steps"):
        agent(final_fall_steps=50)


def test_presets_and_paper_mode():
    s3, s2, ed = (SymphonyConfig.from_preset(n) for n in ("s3", "s2", "ed"))
    assert (s3.nodes, s3.explore_steps * s3.tiles, s3.noise_std) == (384, 512_000, 1 / math.e)
    assert (s2.explore_steps * s2.tiles, s2.lr, s2.gradient_dropout) == (512_000, 5e-5, 0.5)
    assert (ed.nodes, ed.explore_steps * ed.tiles, ed.updates_per_step) == (288, 384_000, 2)
    se = SymphonyConfig.from_preset("se", lr=2e-4)
    assert (se.noise_std, se.noise_clip, se.lr, se.preset) == (1 / math.pi, math.pi, 2e-4, "se")
    assert (s3.q_floor, s3.final_fall_steps, s3.protect_terminals, s3.action_bounds) == (
        1e-2,
        0,
        "once",
        "robot",
    )
    paper = SymphonyConfig.from_preset("s3", paper_mode=True)
    assert (paper.q_floor, paper.reward_floor, paper.final_fall_steps) == (0.0, 0.0, 50)
    assert (paper.protect_terminals, paper.action_bounds, paper.authority) == ("forever", "unit", 1.0)
    assert SymphonyConfig(paper_mode=True, q_floor=0.5).q_floor == 0.5
    # The published presets divide rewards as the paper does.
    scales = {name: SymphonyConfig.from_preset(name).return_scale for name in PRESETS}
    assert scales == {"s3": 1.0, "se": 1.0, "s2": 1.0, "ed": 1.0, "small": 50.0, "tiny": 1.0}
    with pytest.raises(dataclasses.FrozenInstanceError):
        s3.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("poison", ["critic1.linear1.weight", "actor.linear0.bias", "target2.linear2.bias"])
def test_divergence_changes_nothing(poison):
    a = agent(16, dtype=torch.float32)
    explore(a)
    a.update()
    blocks = a.get_blocks()
    blocks[poison][..., 0] = np.inf
    a.set_blocks(blocks)
    before = a.state_dict(buffer=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with pytest.raises(TrainingDiverged) as caught:
            a.update()
    assert caught.value.step == 2 and caught.value.term and not math.isfinite(caught.value.value)
    assert a.last_batch.obs.shape == (a.config.nodes, a.obs_dim)
    after = a.state_dict(buffer=False)
    for name in ("parameters", "moment1", "moment2", "q_ema"):
        assert torch.equal(before[name].nan_to_num(), after[name].nan_to_num()), name
    assert after["updates"] == 1


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"hidden": 12}, "hidden = 12, not 8"),
        ({"obs_dim": 4}, "obs_dim is 4, expected 3"),
        ({"bounds": 2.0}, "action_low"),
        ({"dtype": torch.float32}, "float32"),
        ({"tiles": 3}, "tiles = 3, not 2"),
    ],
)
def test_a_foreign_checkpoint_is_refused_and_changes_nothing(other, message):
    a = agent()
    before = a.state_dict(buffer=False)
    with pytest.raises(ValueError, match=message):
        a.load_state_dict(agent(seed=1, **other).state_dict())
    with pytest.raises(ValueError, match="format"):
        a.load_state_dict(agent().state_dict() | {"format": 99})
    state = agent(seed=1).state_dict()
    lost = state["buffer"].pop("protect")
    with pytest.raises(ValueError, match=r"checkpoint lacks buffer\.protect"):
        a.load_state_dict(state)
    state["buffer"]["protect"] = lost
    del state["moment2"]
    with pytest.raises(ValueError, match="checkpoint lacks moment2"):
        a.load_state_dict(state)
    with pytest.raises(ValueError, match="noise_generator is not a generator state"):
        a.load_state_dict(agent(seed=1).state_dict() | {"noise_generator": torch.zeros(3, dtype=torch.uint8)})
    assert torch.equal(a.state_dict(buffer=False)["parameters"], before["parameters"])


def test_set_blocks_checks_names_and_shapes():
    a = agent()
    with pytest.raises(ValueError, match=r"critic3\.norm"):
        a.set_blocks({"critic3.norm.bias": np.zeros(8)})
    with pytest.raises(ValueError, match=r"\[9\], expected \[8\]"):
        a.set_blocks({"actor.norm.bias": np.ones(8), "critic0.norm.bias": np.zeros(9)})
    assert (a.get_blocks()["actor.norm.bias"] == 0).all()


def test_zero_rewards_warn_with_the_task():
    a = agent(dtype=torch.float32, info=EnvInfo(task="gym:Sparse-v0"))
    zeros = np.zeros((32, 3))
    with pytest.warns(UserWarning, match="gym:Sparse-v0"):
        a.observe(zeros, zeros[:, :2], np.zeros(32), zeros, np.zeros(32, bool), np.zeros(32, bool))
    assert a.update()["reward_norm"] == 1.0
