"""SAC through the training loop: exact resume inside a held action, the command line, the bundle."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cadenza.algos.sac_config import SacConfig
from cadenza.bundle import ExportError
from cadenza.evaluate import evaluate
from cadenza.export import export_run
from cadenza.tasks import make
from cadenza.train import load_agent, train
from cadenza.train_config import TrainConfig
from cadenza.verbs.train import TrainOptions, configure

SMALL = TrainConfig(
    algorithm="sac",
    settings=SacConfig(hidden=16, batch=16, capacity=300, explore_steps=60),
    steps=200,
    envs=2,
    eval_every=100,
    eval_episodes=2,
    checkpoint_every=1_000,
)


@pytest.mark.parametrize(("task", "repeat"), [("cadenza/ReachArm6-v0", 1), ("gym:Pendulum-v1", 3)])
def test_resume_is_bit_exact(tmp_path, task, repeat):
    config = replace(SMALL, task=task, settings=replace(SMALL.settings, action_repeat=repeat))
    whole = train(config, tmp_path / "whole")
    train(replace(config, steps=190), tmp_path / "parts")
    parts = train(config, tmp_path / "parts", resume=True)
    a, b = whole.agent.state_dict(buffer=False), parts.agent.state_dict(buffer=False)
    assert torch.equal(a["parameters"], b["parameters"]) and a["updates"] == b["updates"] > 0
    assert whole.evaluations == parts.evaluations


def test_an_evaluation_holds_its_actions():
    env, calls = make("gym:Pendulum-v1", 2), []

    def act(obs):
        calls.append(obs)
        return np.full((2, 1), 2.0 * (-1.0) ** len(calls), np.float32)

    result = evaluate(act, env, seed=0, hold=4)
    assert len(calls) == 50 and result.length == 200
    assert result.action_change == pytest.approx(2.0 * 49 / 199)


def test_a_policy_becomes_a_bundle(tmp_path):
    train(SMALL, tmp_path / "run")
    report = export_run(tmp_path / "run", tmp_path / "sac.cadenza")
    assert report.max_difference <= report.atol + 1e-5
    assert set(report.operators) == {"Gemm", "Relu", "Tanh"}
    config, agent, steps = load_agent(tmp_path / "run")
    assert (config.algorithm, steps) == ("sac", 200) and agent.action_repeat == 1


def test_a_policy_that_holds_its_actions_is_refused(tmp_path):
    train(replace(SMALL, settings=replace(SMALL.settings, action_repeat=2)), tmp_path / "run")
    with pytest.raises(ExportError, match="action_repeat 2: the runtime decides at every tick"):
        export_run(tmp_path / "run", tmp_path / "sac.cadenza")


def test_the_command_line_builds_its_settings():
    options = TrainOptions(
        task="cadenza/ReachArm6-v0", preset="tiny", steps=7, set=("action_repeat=2", "eval_episodes=3")
    )
    config = configure("sac", options)
    assert (config.algorithm, config.steps, config.eval_episodes) == ("sac", 7, 3)
    assert config.settings == SacConfig.from_preset("tiny", action_repeat=2)
    assert configure("sac", TrainOptions(task="gym:Hopper-v5")).settings == SacConfig()
    with pytest.raises(ValueError, match="unknown preset 's3'; there are default, tiny"):
        configure("sac", TrainOptions(task="gym:Hopper-v5", preset="s3"))
