"""The smoothness table: the limiter holds its rates, the figures are those of known actions."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benches"))

import curves
import smoothness
from cadenza.algos.sac_config import SacConfig
from cadenza.tasks import make
from cadenza.train import train
from cadenza.train_config import TrainConfig


def test_the_limiter_keeps_rate_and_acceleration_and_arrives():
    dt, rng = 0.008, np.random.default_rng(0)
    limiter, taken = smoothness.Limiter(3, 2, dt), [np.zeros((3, 2))]
    for step in range(400):
        if step % 40 == 0:
            wanted = rng.uniform(-1, 1, (3, 2))
        taken.append(limiter(wanted))
        if step % 40 == 39:
            np.testing.assert_allclose(taken[-1], wanted, atol=0.02)
    rate = np.diff(taken, axis=0) / dt
    assert np.abs(rate).max() <= smoothness.RATE * (1 + 1e-9)
    assert np.abs(np.diff(rate, axis=0)).max() / dt <= smoothness.ACCELERATION * (1 + 1e-6)
    assert np.abs(rate).max() > 0.9 * smoothness.RATE


def test_played_actions_are_recorded_per_episode():
    env, calls = make("gym:Hopper-v5", 2), []

    def act(obs):
        calls.append(obs)
        return np.full((2, 3), (-1.0) ** len(calls), np.float32)

    value, episodes = smoothness.play(env, act, None)
    assert len(episodes) == 2 and max(map(len, episodes)) == len(calls) and np.isfinite(value)
    assert all((np.abs(np.diff(u, axis=0)) == 2.0).all() for u in episodes)


def test_the_table_from_a_finished_run(tmp_path, monkeypatch, capsys):
    e = curves.Experiment("Hopper-v5", "sac", "", 2, curves.LONG)
    monkeypatch.setattr(smoothness, "TABLE", (e,))
    monkeypatch.setattr(smoothness, "EPISODES", 2)
    with pytest.raises(SystemExit):
        smoothness.main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path)])
    assert "holds no finished run" in capsys.readouterr().err
    config = TrainConfig(
        task="gym:Hopper-v5", algorithm="sac", settings=SacConfig(hidden=16, batch=8, explore_steps=50),
        steps=100, eval_every=1_000, log_every=50,
    )  # fmt: skip
    at = curves.folder(tmp_path / "runs", e, 0)
    train(config, at)
    (at / "outcome.txt").write_text("trained\n")
    smoothness.main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path)])
    assert "seed 1: not trained" in capsys.readouterr().out
    rows = (tmp_path / "smoothness.csv").read_text().splitlines()
    assert [row.split(",")[3] for row in rows[1:]] == ["plain", "limited", "noisy"]
    page = (tmp_path / "smoothness.md").read_text()
    assert page.count("| Hopper-v5 | sac | 1 |") == 3
