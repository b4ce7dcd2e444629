"""Bundles without a robot: the seams of spec/runtime.md §6.3 by hand, delays, exhaustion, gymnasium tasks."""

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from cadenza import _native
from cadenza.export import PolicyIO, export
from cadenza.runtime import RunConfig, SequencePlayer
from cadenza.tasks import make_task

HORIZON = 8


def manifest(name, actions, **chunk):
    joints = [f"j{i}" for i in range(actions)]
    joint = {"default": 0.0, "kp": 1.0, "kd": 0.1, "position": None, "velocity_max": None, "effort_max": None}
    single = {"mode": "none", "horizon": 1, "execute": 1, "on_exhausted": "hold", "seam": "replace"}
    term = {
        "name": "joint_pos",
        "source": "joint_pos",
        "size": actions,
        "history": {"length": 1, "order": "oldest_first", "fill": "repeat"},
    }
    return {
        "name": name,
        "robot": {"name": "none", "model_sha256": None},
        "rates": {"policy_dt": 0.05, "control_dt": 0.05, "physics_dt": None},
        "joints": [{"name": n, **joint} for n in joints],
        "observation": {"size": actions, "interleave": "term", "terms": [term]},
        "normalizer": {"where": "none"},
        "action": {"kind": "position_offset", "joints": joints, "scale": {"*": 1.0}, "offset": "default"},
        "chunk": single | chunk,
        "in_graph": {"normalize": False, "squash": False, "action_scale": False, "action_offset": False},
        "weights": "f32",
        "provenance": {},
    }


class Ramp(nn.Module):
    """The sequence obs, obs + 1, …, obs + 7."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.arange(float(HORIZON))[None, :, None])

    def forward(self, obs):
        return obs[:, None] + self.steps


@pytest.fixture(scope="module")
def ramp(tmp_path_factory):
    path = tmp_path_factory.mktemp("player") / "ramp.cadenza"
    document = manifest("ramp", 1, mode="open", horizon=HORIZON, execute=3)
    export(path, Ramp(), io=PolicyIO(outputs=("actions",)), manifest=document)
    return _native.Bundle(path)


def play(player, observations):
    player.reset()
    played = [player.step(np.array([obs], np.float32)) for obs in observations]
    return [float(p.action[0]) for p in played], [p.flow for p in played]


def test_an_answer_in_time_is_played_from_its_own_step(ramp):
    player = SequencePlayer(ramp)
    # asked at steps 0, 3, 6; what it sees in between does not matter
    assert play(player, [0, 9, 9, 100, 9, 9, 50])[0] == [0, 1, 2, 100, 101, 102, 50]
    assert player.counts == {"asked": 3, "accepted": 3, "expired": 0, "refused": 0, "expired_actions": 0}


@pytest.mark.parametrize(
    "seam, freeze, golden",
    [
        ("replace", 0, [103, 104, 105]),
        ("fade:2", 0, [38.333333333, 71.666666667, 105]),
        ("ensemble:0.01", 0, [54.25750202, 55.25750202, 105]),
        ("replace", 1, [6, 104, 105]),
    ],
)
def test_seams_of_the_specification(ramp, seam, freeze, golden):
    """A = 0 … 7 of step 0, B = 100 … 107 of step 3, accepted at step 6 (spec/runtime.md §6.3)."""
    player = SequencePlayer(ramp, config=RunConfig(inject="const:3ticks", seam=seam, freeze=freeze))
    actions, flows = play(player, [0, 9, 9, 100, 9, 9, 9, 9, 9])
    assert actions[:6] == [0, 0, 0, 3, 4, 5]
    np.testing.assert_allclose(actions[6:], golden, rtol=0, atol=1e-7)
    assert flows == ["hold"] * 3 + ["run"] * 6
    assert player.counts["expired_actions"] == 6 and player.counts["accepted"] == 2


def test_without_answers_it_holds_and_is_then_exhausted(ramp):
    config = RunConfig(inject="const:8ticks", trigger="every:8")
    player = SequencePlayer(ramp, config=config, hold_steps=10)
    actions, flows = play(player, [5.0] * 20)
    # every answer comes when its last action is one step old
    assert actions == [0.0] * 20 and flows == ["hold"] * 10 + ["exhausted"] * 10
    assert player.counts["asked"] == 3 and player.counts["expired"] == 2
    late = SequencePlayer(ramp, config=RunConfig(inject="const:8ticks", trigger="every:8", late="last"))
    assert play(late, [5.0] * 10)[0] == [0.0] * 8 + [12.0] * 2


def test_equal_delays_give_equal_runs_and_a_reset_forgets(ramp):
    config = RunConfig(inject="uniform:0ms..200ms", trigger="every:2", seam="fade:2")
    observations = np.random.default_rng(1).normal(0, 1, 60)
    one, other = SequencePlayer(ramp, config=config), SequencePlayer(ramp, config=config)
    first = play(one, observations)
    assert first == play(other, observations)
    other.reset()
    assert other.counts["asked"] == 0
    assert other.step(np.zeros(1, np.float32)).action[0] == 0.0


class Cell(nn.Module):
    """The next action is the previous one and the memory, which is the first observation."""

    def forward(self, previous, h):
        return previous + h, h


class Start(nn.Module):
    """The observation as the memory of a sequence."""

    def forward(self, obs):
        return obs * 1.0


def test_a_sequence_that_is_decoded_step_by_step(tmp_path):
    chunk = {"mode": "lazy", "horizon": 4, "execute": 4, "on_exhausted": "hold", "seam": "replace"}
    io = PolicyIO(
        inputs=("previous_action", "carry.h"),
        outputs=("action", "carry.h"),
        init_outputs=("carry.h",),
        carry={"h": (1, 1)},
    )
    path = tmp_path / "lazy.cadenza"
    export(path, Cell(), init=Start(), io=io, manifest=manifest("lazy", 1, **chunk))
    actions, flows = play(SequencePlayer(path), [1.0, 9, 9, 9, 0.5, 9, 9])
    assert actions == [1, 2, 3, 4, 4.5, 5, 5.5] and set(flows) == {"run"}


@pytest.mark.parametrize(
    "config, told",
    [
        (RunConfig(trigger="every:9"), "chunk.horizon"),
        (RunConfig(late="fallback"), "late = fallback"),
        (RunConfig(seam="fade:8"), "fade = 8"),
        (RunConfig(inject="soon"), "soon"),
    ],
)
def test_sequences_that_cannot_be_played(ramp, config, told):
    with pytest.raises(_native.RunError, match=told):
        SequencePlayer(ramp, config=config)


def test_bad_observations(ramp):
    player = SequencePlayer(ramp)
    with pytest.raises(_native.RunError, match="2 numbers, 1 wanted"):
        player.step(np.zeros(2, np.float32))
    with pytest.raises(_native.RunError, match="not finite"):
        player.step(np.array([np.nan], np.float32))
    with pytest.raises(ValueError, match="hold_steps -1"):
        SequencePlayer(ramp, hold_steps=-1)


def test_a_task_of_gymnasium(tmp_path):
    """A network that swings the pendulum with its velocity."""
    first = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        first.weight[:] = torch.tensor([[0.0, 0.0, 0.1]])
    document = manifest("pendulum", 1)
    document["observation"] = {
        "size": 3,
        "interleave": "term",
        "terms": [{"name": "x-obs", "source": "x-obs", "size": 3,
                   "history": {"length": 1, "order": "oldest_first", "fill": "repeat"}}],
    }  # fmt: skip
    export(tmp_path / "one.cadenza", nn.Sequential(first, nn.Tanh()), manifest=document)
    env = gymnasium.make("Pendulum-v1")
    player = SequencePlayer(tmp_path / "one.cadenza")
    episode = player.play(env, seed=3, steps=50)
    assert episode.actions.shape == (50, 1) and episode.observations.shape == (50, 3)
    assert set(episode.flows) == {"run"} and not episode.terminated
    # by hand: the same network in the same task
    obs, total = env.reset(seed=3)[0], 0.0
    for action in episode.actions:
        np.testing.assert_allclose(action, np.tanh(0.1 * obs[2:]), rtol=0, atol=1e-6)
        obs, reward, *_ = env.step((2.0 * action).astype(np.float32))
        total += float(reward)
    assert episode.total == pytest.approx(total, rel=1e-12)
    delayed = SequencePlayer(tmp_path / "one.cadenza", config=RunConfig(inject="const:1ticks"))
    late = delayed.play(env, seed=3, steps=20)
    # single actions have no future rows: one step late is too late
    assert late.counts["expired"] == 19 and not late.actions.any()
    with pytest.raises(ValueError, match="has 4 numbers, the bundle's 3"):
        player.play(gymnasium.make("CartPole-v1"), decode=lambda u: int(u[0] > 0))
    with pytest.raises(ValueError, match="Discrete"):
        player.play(gymnasium.make("CartPole-v1"))


def test_the_reach_bundle_reaches_in_its_own_task(reach_bundle):
    import cadenza.sim.gym  # noqa: F401  registers our tasks

    env = gymnasium.make("cadenza.sim.gym:cadenza/ReachArm6-v0")
    player = SequencePlayer(reach_bundle)
    episodes = [player.play(env, seed=seed) for seed in range(4)]
    assert make_task("cadenza/ReachArm6-v0").action_size == episodes[0].actions.shape[1]
    assert np.mean([e.info["success"] for e in episodes]) >= 0.75
