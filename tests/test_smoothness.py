"""The smoothness table: the limiter holds its rates, the figures are those of known actions."""

import csv
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benches"))

import curves
import smoothness
from cadenza.algos.sac_config import SacConfig
from cadenza.algos.symphony_config import SymphonyConfig
from cadenza.checkpoint import CheckpointError
from cadenza.evaluate import evaluate
from cadenza.rundir import RunDir
from cadenza.tasks import make
from cadenza.train import load_snapshot, train
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


def test_the_table_from_finished_runs(tmp_path, monkeypatch, capsys):
    ours = curves.Experiment("Hopper-v5", "symphony", "tiny", 1, curves.LONG)
    theirs = curves.Experiment("Hopper-v5", "sac", "", 2, curves.LONG)
    monkeypatch.setattr(smoothness, "TABLE", (ours, theirs))
    monkeypatch.setattr(smoothness, "EPISODES", 2)
    words = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]
    with pytest.raises(SystemExit):
        smoothness.main(words)
    assert "holds no finished run" in capsys.readouterr().err
    symphony = SymphonyConfig(hidden=16, explore_steps=100, tiles=2)
    for e, settings in ((ours, symphony), (theirs, SacConfig(hidden=16, batch=8, explore_steps=50))):
        config = TrainConfig(
            task="gym:Hopper-v5", algorithm=e.algorithm, settings=settings, steps=200, eval_every=100,
            eval_episodes=2, log_every=50, snapshots=True,
        )  # fmt: skip
        at = curves.folder(tmp_path / "runs", e, 0)
        train(config, at)
        (at / "outcome.txt").write_text("trained\n")
    monkeypatch.setattr(smoothness, "nearest", lambda at, level: 100)
    smoothness.main(words)
    assert "sac, seed 1: not trained" in capsys.readouterr().out.replace("Hopper-v5-", "")
    with (tmp_path / "smoothness.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["algorithm"], r["policy"], r["steps"], r["played"]) for r in rows] == [
        (algorithm, policy, steps, played)
        for algorithm in ("symphony", "sac")
        for policy, steps in (("final", "200"), ("equal return", "100"))
        for played in ("plain", "limited", "noisy")
    ]
    # a policy that has learnt nothing falls in every episode, and what is noisy moves more
    assert all(float(r["falls"]) > 1_000 for r in rows)
    for plain, noisy in zip(rows[::3], rows[2::3], strict=True):
        assert 0.0 < float(plain["action_change"]) < float(noisy["action_change"])
    page = (tmp_path / "smoothness.md").read_text()
    assert page.count("| Hopper-v5 | sac | 1 |") == 6
    assert "goals: mean \\|Δu\\| ≤ 0.6, Σ\\|Δu\\| per s ≤ 0.6, p95 \\|u\\| ≤ 0.8, falls ≤ 1\n" in page
    assert len(re.findall(r"\d (met|missed)", page)) == 4


def run(folder, evaluations, snapshots, terminated=()):
    """The part of a run's folder that the choice of a policy reads."""
    (folder / "snapshots").mkdir(parents=True)
    rows = [f"{step},eval/return_mean,{value}" for step, value in evaluations]
    rows += [f"{step},train/terminated,{n}" for step, n in terminated]
    (folder / "metrics.csv").write_text("\n".join(["step,name,value", *rows]) + "\n")
    for step in snapshots:
        (folder / "snapshots" / f"{step}.pt").touch()
    return folder


def test_equal_return_is_what_the_weaker_algorithm_reaches_in_the_end(tmp_path):
    strong, weak = (curves.Experiment("H", name, "", 2, curves.LONG) for name in ("symphony", "sac"))
    ends = ((strong, 900.0), (strong, 1100.0), (weak, 300.0), (weak, 500.0))
    runs = [(e, run(tmp_path / str(i), [(1, 9999.0), (2, end)], [])) for i, (e, end) in enumerate(ends)]
    assert smoothness.equal_return(runs) == 400.0


def test_the_nearest_snapshot(tmp_path):
    evaluations = [(10, 100.0), (20, 380.0), (30, 405.0), (40, 430.0), (50, 900.0)]
    at = run(tmp_path / "a", evaluations, [10, 20, 40, 50], [(10, 3), (50, 4)])
    assert smoothness.nearest(at, 400.0) == 20  # 30 is nearer and was not kept
    assert smoothness.nearest(at, 415.0) == 40
    assert smoothness.nearest(at, 500.0) is None
    assert smoothness.falls(at, 50_000) == 14.0
    assert np.isnan(smoothness.falls(run(tmp_path / "b", evaluations, []), 50_000))


def test_a_snapshot_is_the_policy_of_its_moment(tmp_path):
    config = TrainConfig(
        task="gym:Pendulum-v1", settings=SymphonyConfig(hidden=16, explore_steps=40, tiles=2), steps=120,
        eval_every=40, eval_episodes=2, snapshots=True,
    )  # fmt: skip
    result = train(config, tmp_path / "run")
    assert RunDir(tmp_path / "run").snapshots() == [40, 80, 120]
    env = make("gym:Pendulum-v1", 2)
    for step, evaluation in result.evaluations:
        acting = load_snapshot(tmp_path / "run", step)
        again = evaluate(lambda obs, a=acting: a.act(obs, explore=False), env, seed=config.eval_seed)
        assert again == evaluation
    with pytest.raises(CheckpointError, match=r"60\.pt: no such checkpoint"):
        load_snapshot(tmp_path / "run", 60)
    train(replace(config, steps=160), tmp_path / "run", resume=True)
    assert RunDir(tmp_path / "run").snapshots() == [40, 80, 120, 160]
