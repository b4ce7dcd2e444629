"""cadenza.sweep: what is run, what a failure does, the table; and the same on Ray where it is installed."""

import csv
import importlib.util
import subprocess
import sys
import threading

import pytest

from cadenza import sweep as module
from cadenza.sweep import COLUMNS, TABLE, outcome, parse_grid, parse_seeds, plan, run_job, sweep


def rows(folder):
    with (folder / TABLE).open(newline="") as file:
        return list(csv.DictReader(file))


def test_seeds():
    assert parse_seeds("0..4") == [0, 1, 2, 3, 4]
    assert parse_seeds("7") == [7]
    assert parse_seeds("0..2, 9") == [0, 1, 2, 9]
    for bad in ("", "4..0", "a", "1..", "-1", "0..2,1"):
        with pytest.raises(ValueError, match="--seeds"):
            parse_seeds(bad)


def test_grid():
    assert parse_grid(["lr=1e-4,3e-4", "gamma=0.9"]) == {"lr": ["1e-4", "3e-4"], "gamma": ["0.9"]}
    for bad in (["lr"], ["lr="], ["=1"], ["lr=1,1"], ["lr=1", "lr=2"]):
        with pytest.raises(ValueError, match="--grid"):
            parse_grid(bad)


def test_every_combination_is_planned_once(tmp_path):
    grid = {"lr": ["1e-4", "3e-4"], "gamma": ["0.9", "0.99"]}
    jobs = plan(
        tmp_path, "symphony", ["gym:Hopper-v5", "gym:Ant-v5"], [0, 1, 2], grid, ["tau=0.01"], ["--steps", "9"]
    )
    assert len(jobs) == len({job.folder for job in jobs}) == 24
    job = next(j for j in jobs if j.seed == 2 and j.grid == {"lr": "3e-4", "gamma": "0.9"})
    assert job.command == (
        "symphony", "--task", job.task, "--seed", "2", "--steps", "9",
        "--set", "tau=0.01", "lr=3e-4", "gamma=0.9",
    )  # fmt: skip


def test_a_failure_is_reported_and_the_others_go_on(tmp_path, monkeypatch):
    at_once, most, lock = [0], [0], threading.Lock()
    gate = threading.Barrier(2, timeout=20)

    def run(folder, command):
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        gate.wait()
        with lock:
            at_once[0] -= 1
        return "exit code 1: boom" if "seed1" in folder else None

    monkeypatch.setattr(module, "run_job", run)
    said = []
    jobs = plan(tmp_path, "symphony", ["t"], [0, 1, 2, 3], {})
    assert sweep(jobs, tmp_path, parallel=2, say=said.append) == 1
    assert most[0] == 2
    assert [row["status"] for row in rows(tmp_path)] == ["done", "failed", "done", "done"]
    assert rows(tmp_path)[1]["error"] == "exit code 1: boom"
    assert len(said) == 4
    assert tuple(rows(tmp_path)[0]) == COLUMNS
    with pytest.raises(ValueError, match="4 runs with 0 processes"):
        sweep(jobs, tmp_path, parallel=0)


def test_the_outcome_is_the_last_evaluation(tmp_path):
    assert outcome(tmp_path) == {}
    (tmp_path / "metrics.csv").write_text(
        "step,name,value\n100,eval/return_mean,5.0\n100,eval/length,7.0\n150,train/return,9.0\n"
        "200,eval/return_mean,3.0\n200,eval/length,8.0\n200,time/cpu_seconds,1.5\n250,ev"
    )
    assert outcome(tmp_path) == {
        "return_mean": "3.0", "length": "8.0", "steps": "200", "cpu_seconds": "1.5", "best_return_mean": 5.0,
    }  # fmt: skip


FAST = ("explore_steps=64", "hidden=16", "eval_every=100", "eval_episodes=1", "log_every=100")
SMALL = ("--task", "gym:Pendulum-v1", "--steps", "200", "--preset", "tiny", "--set", *FAST)


def test_a_sweep_from_the_command_line(cadenza, tmp_path):
    words = ["sweep", "symphony", *SMALL, "--seeds", "0", "--grid", "lr=1e-3,1e30", "--jobs", 2, "--out", "s"]
    done = cadenza(*words, code=1, timeout=300)
    assert "1 of 2 runs done" in done.stdout
    good, bad = rows(tmp_path / "s")
    assert (good["status"], good["lr"], good["steps"]) == ("done", "1e-3", "200")
    assert float(good["return_mean"]) < 0 and float(good["cpu_seconds"]) > 0
    assert (bad["status"], bad["lr"]) == ("failed", "1e30")
    assert "diverged" in bad["error"]
    assert (tmp_path / "s" / bad["run"] / "output.txt").read_text()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["symphny", "--task", "gym:Pendulum-v1"], "did you mean 'symphony'"),
        (["symphony", "--task", "gym:Pendulum-v0"], "did you mean 'gym:Pendulum-v1'"),
        (["symphony", "--task", "gym:Pendulum-v1", "--grid", "lrr=1"], "no such setting"),
        (["symphony", "--task", "gym:Pendulum-v1", "--seeds", "4..0"], "--seeds 4..0"),
        (["symphony", "--task", "gym:Pendulum-v1", "--jobs", "0"], "0 processes"),
    ],
)
def test_bad_input_is_said_before_the_first_run(cadenza, tmp_path, words, text):
    assert text in cadenza("sweep", *words, code=2).stderr
    assert not list(tmp_path.rglob("config.json"))


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    words = []
    monkeypatch.setattr(
        module.subprocess, "run", lambda w, **_: words.append(w[3:]) or subprocess.CompletedProcess(w, 0)
    )
    assert run_job(str(tmp_path / "a"), ["symphony"]) is None
    (tmp_path / "a" / "checkpoint.pt").touch()
    run_job(str(tmp_path / "a"), ["symphony"])
    run_job(str(tmp_path / "a"), ["symphony", "--steps", "900", "--envs", "2"])
    at = str(tmp_path / "a")
    assert words == [["train", "symphony", "--out", at], ["resume", at], ["resume", at, "--steps", "900"]]


def test_nothing_of_ray_is_imported_without_it(tmp_path):
    code = "import sys; import cadenza.sweep, cadenza.verbs.sweep; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_a_missing_ray_is_named_with_its_pip_line(cadenza):
    stderr = cadenza("sweep", "symphony", *SMALL, "--ray", code=2).stderr
    assert "pip install 'cadenza[ray]'" in stderr


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed")
def test_a_sweep_on_ray(tmp_path):
    grid = {"lr": ["1e-3", "1e30"]}
    command = ["--steps", "200", "--preset", "tiny"]
    jobs = plan(tmp_path, "symphony", ["gym:Pendulum-v1"], [0], grid, FAST, command)
    assert sweep(jobs, tmp_path, use_ray=True) == 1
    assert [row["status"] for row in rows(tmp_path)] == ["done", "failed"]
