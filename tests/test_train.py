"""cadenza.train: exact resume, kill -9, Ctrl-C, seeds, numbers that are not finite, the goal, learning."""

import csv
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cadenza.tasks
from cadenza.algos.symphony import SymphonyConfig
from cadenza.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from cadenza.evaluate import Evaluation
from cadenza.recipes import reached, recipe
from cadenza.rundir import RunDir
from cadenza.sinks import Sink
from cadenza.train import Diverged, load_agent, train
from cadenza.train_config import TrainConfig
from cadenza.verbs.train import TrainOptions, configure

SMALL = TrainConfig(
    settings=SymphonyConfig(hidden=16, explore_steps=64, tiles=4, updates_per_vector_step=2),
    steps=400,
    envs=4,
    eval_every=100,
    eval_episodes=3,
    log_every=60,
    checkpoint_every=120,
    keep_best=False,
)


def metrics(folder):
    """All rows but those that tell the time."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [tuple(r) for r in csv.reader(file) if not r[1].startswith("time/")]


def parameters(result):
    return np.concatenate([x.ravel() for x in result.agent.get_blocks().values()])


@pytest.mark.parametrize("task", ["cadenza/ReachArm6-v0", "gym:Pendulum-v1"])
@pytest.mark.parametrize("stop", [40, 200])
def test_resume_is_bit_exact(tmp_path, task, stop):
    config = replace(SMALL, task=task)
    whole = train(config, tmp_path / "whole")
    train(replace(config, steps=stop), tmp_path / "parts")
    parts = train(config, tmp_path / "parts", resume=True)
    assert (parts.steps, parts.reason) == (whole.steps, "steps") == (400, "steps")
    np.testing.assert_array_equal(parameters(parts), parameters(whole))
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert parts.evaluations == whole.evaluations
    assert [step for step, _ in whole.evaluations] == [100, 200, 300, 400]


def test_seeds(tmp_path):
    runs = [train(replace(SMALL, steps=200, seed=s), tmp_path / str(i)) for i, s in enumerate((1, 1, 2))]
    a, b, c = map(parameters, runs)
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    assert metrics(tmp_path / "0") == metrics(tmp_path / "1")


KILLED = """
import sys; sys.path.insert(0, {tests!r}); import conftest
from test_train import SMALL, replace, train
train(replace(SMALL, steps=10**6, eval_every=10**6), {folder!r})
"""


def test_kill_9_and_resume(tmp_path):
    config = replace(SMALL, eval_every=10**6)
    folder = RunDir(tmp_path / "killed")
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(folder.path))
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not folder.checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    at = load_checkpoint(folder.checkpoint)["step"]
    assert at > 0
    until = at + 100
    parts = train(replace(config, steps=until), folder.path, resume=True)
    whole = train(replace(config, steps=until), tmp_path / "whole")
    np.testing.assert_array_equal(parameters(parts), parameters(whole))
    assert metrics(folder.path) == metrics(tmp_path / "whole")


class At(Sink):
    """Does something at the first scalar of a step."""

    def __init__(self, step, action):
        self.step, self.action, self.seen = step, action, []

    def scalar(self, name, value, step):
        if step >= self.step and not self.seen:
            self.seen.append((name, value, step))
            self.action()


def test_ctrl_c_ends_with_a_checkpoint(tmp_path):
    sink = At(120, lambda: signal.raise_signal(signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    result = train(SMALL, tmp_path / "run", sinks=[sink])
    assert result.reason == "interrupted"
    assert 120 <= result.steps < 200
    assert signal.getsignal(signal.SIGINT) is before
    again = train(SMALL, tmp_path / "run", resume=True)
    whole = train(SMALL, tmp_path / "whole")
    np.testing.assert_array_equal(parameters(again), parameters(whole))


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(SMALL, tmp_path / "run", sinks=[At(60, twice)])


class Poisoned:
    """An environment whose step 30 goes wrong in one number."""

    def __init__(self, env, name):
        self._env, self._name, self._steps = env, name, 0

    def __getattr__(self, name):
        return getattr(self._env, name)

    def step(self, action):
        self._steps += 1
        t = self._env.step(action)
        if self._steps == 30 and self.n == SMALL.envs:
            bad = getattr(t, self._name).copy()
            bad[2] = np.nan
            t = replace(t, **{self._name: bad})
        return t


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("reward", "reward nan in environment 2, after 116 transitions"),
        ("next_obs", "observation nan in component 0 in environment 2, after 116 transitions"),
    ],
)
def test_a_number_that_is_not_finite_stops_the_run(tmp_path, monkeypatch, name, text):
    made = cadenza.tasks.make
    monkeypatch.setattr("cadenza.collect.make", lambda *a, **k: Poisoned(made(*a, **k), name))
    with pytest.raises(Diverged, match=f"{text}; state, action and agent are in .*diverged.pt"):
        train(SMALL, tmp_path / "run")
    dump = load_checkpoint(tmp_path / "run" / "diverged.pt")
    assert dump["step"] == 116
    assert dump["action"].shape == (4, 6)
    assert np.isnan(dump["transition"][name][2]).all()
    assert dump["agent"]["buffer"]["count"] == 256
    assert "sim" in dump["env"]


def test_terminated_episodes_are_counted(tmp_path):
    """Hopper's first policies fall; the pendulum never does."""
    for task, falls in (("gym:Hopper-v5", True), ("gym:Pendulum-v1", False)):
        folder = tmp_path / task[-10:]
        train(replace(SMALL, task=task, steps=1200), folder)
        rows = {name: [float(v) for _, n, v in metrics(folder)[1:] if n == f"train/{name}"]
                for name in ("episodes", "terminated")}  # fmt: skip
        assert sum(rows["episodes"]) > 0
        assert rows["terminated"] == (rows["episodes"] if falls else [0.0] * len(rows["episodes"]))


def test_a_diverging_loss_stops_the_run(tmp_path):
    config = replace(SMALL, settings=replace(SMALL.settings, lr=1e30))
    with pytest.raises(Diverged, match=r"training diverged at update \d+: \w+ is (nan|-?inf); .*diverged.pt"):
        train(config, tmp_path / "run")
    dump = load_checkpoint(tmp_path / "run" / "diverged.pt")
    assert dump["batch"]["obs"].shape == (config.settings.nodes, dump["agent"]["obs_dim"])
    # the batch is of what was stored
    stored = dump["agent"]["buffer"]["obs"]
    assert all((stored == row).all(1).any() for row in dump["batch"]["obs"])


def test_the_goal_ends_the_run(tmp_path):
    result = train(SMALL, tmp_path / "run", stop_when=lambda evaluations: len(evaluations) == 2)
    assert (result.reason, result.steps) == ("goal", 200)
    config, agent, steps = load_agent(tmp_path / "run")
    assert (config, steps) == (SMALL, 200)
    np.testing.assert_array_equal(
        np.concatenate([x.ravel() for x in agent.get_blocks().values()]), parameters(result)
    )


def test_reached_needs_two_in_a_row():
    def e(success, change):
        return Evaluation(50, success, 0, 0, 0, 0, 50, change, 0, 0)

    good = e(0.9, 0.099)
    assert reached([e(0.0, 1.0), good, good])
    for other in (e(0.88, 0.05), e(1.0, 0.1), e(None, 0.0)):
        assert not reached([good, other])
        assert not reached([good, other, good])
    assert not reached([good])


def test_the_folder_holds_what_it_should(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["cadenza", "train", "a b"])
    train(replace(SMALL, steps=40), tmp_path / "run")
    names = {p.name.split(".")[0] for p in (tmp_path / "run").iterdir()}
    assert names == {"README", "config", "command", "metrics", "events", "checkpoint"}
    assert (tmp_path / "run" / "command.txt").read_text() == "cadenza train 'a b'\n"
    assert RunDir(tmp_path / "run").config() == replace(SMALL, steps=40)
    monkeypatch.setattr(sys, "argv", ["cadenza", "resume", "run"])
    train(replace(SMALL, steps=80), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "command.txt").read_text() == "cadenza train 'a b'\ncadenza resume run\n"
    assert RunDir(tmp_path / "run").config().steps == 80


def test_folders_that_do_not_fit(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(ValueError, match=r"holds no run: there is no config\.json"):
        RunDir(run).config()
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: no such checkpoint"):
        train(SMALL, run, resume=True)
    train(replace(SMALL, steps=40), run)
    with pytest.raises(ValueError, match="already holds a run"):
        train(SMALL, run)
    with pytest.raises(CheckpointError, match="made with seed = 0, the run has 5"):
        train(replace(SMALL, seed=5), run, resume=True)
    other = replace(SMALL, settings=replace(SMALL.settings, gamma=0.5))
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: .*gamma = 0\.99, not 0\.5"):
        train(other, run, resume=True)
    state = load_checkpoint(run / "checkpoint.pt")
    del state["env"]["sim"]
    save_checkpoint(run / "checkpoint.pt", state)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: no 'sim' in it"):
        train(SMALL, run, resume=True)
    assert RunDir(run).config().steps == 40  # a refused resume leaves the folder as it was
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"gamma"', '"gama"'))
    with pytest.raises(ValueError, match=r"config\.json: unknown setting 'gama'; did you mean 'gamma'\?"):
        RunDir(run).config()
    data = (run / "checkpoint.pt").read_bytes()
    (run / "checkpoint.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: torn or changed"):
        train(SMALL, run, resume=True)


def test_bad_settings_name_the_value():
    with pytest.raises(ValueError, match="envs 0 must be at least 1"):
        replace(SMALL, envs=0)
    with pytest.raises(ValueError, match="algorithm 'ppo' is not one of symphony, sac"):
        replace(SMALL, algorithm="ppo")
    with pytest.raises(ValueError, match="settings of sac are no SymphonyConfig"):
        replace(SMALL, algorithm="sac")


def test_progress_lines(tmp_path, capsys):
    train(SMALL, tmp_path / "run", progress="auto")
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("400/400 ")
    assert "steps/s return -" in line
    train(replace(SMALL, steps=40), tmp_path / "silent")
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_the_reach_recipe_learns(tmp_path):
    """About twenty CPU-seconds to success ≥ 0.9 and gentle motion, on two evaluations in a row."""
    result = train(recipe("cadenza/ReachArm6-v0"), tmp_path / "run", stop_when=reached)
    assert result.reason == "goal"
    assert result.steps <= 20_000
    assert result.evaluations[0][1].success == 0.0


@pytest.mark.parametrize(
    ("algorithm", "text", "value"),
    [
        ("symphony", "updates_per_vector_step=8", 8),  # may be None, and is
        ("symphony", "action_bounds=unit", "unit"),
        ("symphony", "lr=3e-4", 3e-4),
        ("sac", "target_entropy=-1.5", -1.5),
    ],
)
def test_a_setting_takes_the_type_that_it_was_declared_with(algorithm, text, value):
    config = configure(algorithm, TrainOptions(task="gym:Hopper-v5", set=(text,)))
    found = getattr(config.settings, text.partition("=")[0])
    assert found == value and type(found) is type(value)


def test_a_setting_of_another_type_is_refused_by_name():
    with pytest.raises(ValueError, match="updates_per_vector_step=many: int wanted"):
        configure("symphony", TrainOptions(task="gym:Hopper-v5", set=("updates_per_vector_step=many",)))
