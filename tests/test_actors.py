"""Collectors elsewhere: what a run with actors computes, with processes that are played by pickled objects.

The Ray that is behind them in earnest is tested in `test_ray.py`.
"""

import importlib.util
import pickle
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import cadenza.tasks
from cadenza.actors import ATTEMPTS, ActorFailed, Lost
from cadenza.algos.sac_config import SacConfig
from cadenza.checkpoint import CheckpointError, load_checkpoint
from cadenza.collect import FRAGMENT, Worker
from cadenza.recipes import recipe
from cadenza.rundir import RunDir
from cadenza.train import Diverged, train
from cadenza.train_config import TrainConfig
from test_train import SMALL, At, Poisoned, metrics, parameters

CONFIG = replace(SMALL, task="gym:Pendulum-v1", actors=3, steps=300, eval_episodes=2)


class Pool:
    """Processes without processes: what goes to a worker and back is pickled, as it would be.

    `loses` names the answers that do not come: (collector, number of the answer).
    """

    def __init__(self, loses=()):
        self.loses, self.answers = set(loses), {}
        self.workers, self.calls, self.started, self.closed = {}, {}, [], 0

    def start(self, index, setup, state):
        self.started.append(index)
        self.workers[index] = Worker(*pickle.loads(pickle.dumps((setup, state))))

    def ask(self, index, *call):
        self.calls[index] = pickle.dumps(call)

    def answer(self, index):
        number = self.answers[index] = self.answers.get(index, -1) + 1
        if (index, number) in self.loses:
            del self.workers[index]
            raise Lost("gone")
        try:
            return pickle.loads(pickle.dumps(self.workers[index].collect(*pickle.loads(self.calls[index]))))
        except (ValueError, RuntimeError) as error:
            raise RuntimeError(f"{type(error).__name__}: {error}") from error

    def close(self):
        self.closed += 1


@pytest.fixture
def pools(monkeypatch):
    """The pools that runs have made; `pools.loses` is for the next ones."""

    class Pools(list):
        loses = ()

    made = Pools()

    def make(address, count, threads):
        made.append(Pool(made.loses))
        return made[-1]

    monkeypatch.setattr("cadenza.cluster.RayPool", make)
    return made


def values(folder, name):
    return [float(v) for _, n, v in metrics(folder)[1:] if n == name]


def test_the_updates_are_those_of_one_collector(tmp_path, pools):
    """Three collectors give as many transitions and updates as one, in turn."""
    result = train(CONFIG, tmp_path / "three")
    alone = train(replace(CONFIG, actors=None), tmp_path / "alone")
    assert (result.steps, result.agent.updates) == (alone.steps, alone.agent.updates)
    assert result.agent.env_steps == alone.agent.env_steps == CONFIG.steps // CONFIG.envs
    assert [step for step, _ in result.evaluations] == [100, 200, 300]
    assert pools[0].started == [0, 1, 2] and pools[0].closed == 1
    # in turn: fragments of eight steps of four environments, so ten of them for 300 transitions
    assert pools[0].answers == {0: 3, 1: 2, 2: 2}
    # the buffer holds what three different streams gave
    assert len(np.unique(result.agent.buffer.obs[: CONFIG.settings.explore_steps], axis=0)) == 64


def test_collectors_have_streams_of_their_own(tmp_path, pools):
    config = replace(CONFIG, actors=2, steps=2 * FRAGMENT, settings=replace(CONFIG.settings, tiles=1))
    agent = train(config, tmp_path / "run").agent
    first, second = agent.buffer.obs[:FRAGMENT], agent.buffer.obs[FRAGMENT : 2 * FRAGMENT]
    assert not (first[:, None] == second[None]).all(-1).any()
    assert (agent.buffer.action[:FRAGMENT] != agent.buffer.action[FRAGMENT:]).all()


def test_a_lost_collector_leaves_no_trace_in_the_numbers(tmp_path, pools, caplog):
    whole = train(CONFIG, tmp_path / "whole")
    pools.loses = ((1, 0), (2, 1), (0, 2), (0, 3))
    lossy = train(CONFIG, tmp_path / "lossy")
    assert sorted(pools[1].started) == [0, 0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(parameters(lossy), parameters(whole))
    assert lossy.evaluations == whole.evaluations
    rows = [[r for r in metrics(tmp_path / d) if r[1] != "train/actors_lost"] for d in ("lossy", "whole")]
    assert rows[0] == rows[1]
    assert values(tmp_path / "lossy", "train/actors_lost")[-1] == 4
    assert values(tmp_path / "whole", "train/actors_lost")[-1] == 0
    assert caplog.messages[0] == "actor 1 was lost and starts again where it was: gone"


def test_a_collector_that_is_always_lost_ends_the_run(tmp_path, pools):
    pools.loses = tuple((1, i) for i in range(ATTEMPTS))
    with pytest.raises(ActorFailed, match=f"actor 1 was lost {ATTEMPTS} times in a row: gone"):
        train(CONFIG, tmp_path / "run")
    assert pools[0].closed == 1


@pytest.mark.parametrize("stop", [40, 100, 204])
def test_resume_is_bit_exact(tmp_path, pools, stop):
    whole = train(CONFIG, tmp_path / "whole")
    train(replace(CONFIG, steps=stop), tmp_path / "parts")
    parts = train(CONFIG, tmp_path / "parts", resume=True)
    np.testing.assert_array_equal(parameters(parts), parameters(whole))
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert parts.evaluations == whole.evaluations


def test_held_actions_and_robots_resume_too(tmp_path, pools):
    """Actions that are held over a fragment's end, and the arm with its own seeds."""
    settings = SacConfig(hidden=16, batch=16, explore_steps=32, action_repeat=3)
    config = replace(
        CONFIG, task="cadenza/ReachArm6-v0", algorithm="sac", settings=settings, actors=2, steps=200
    )

    def weights(result):
        return result.agent.acting.weights()

    whole = train(config, tmp_path / "whole")
    train(replace(config, steps=88), tmp_path / "parts")
    parts = train(config, tmp_path / "parts", resume=True)
    np.testing.assert_array_equal(weights(parts), weights(whole))
    # every transition spans three steps but the ones that an episode's end cut short
    assert 200 / 3 - 4 <= whole.agent.buffer.count <= 200 / 3 + 8
    assert whole.agent.updates > 0


def test_another_number_of_actors_is_another_run(tmp_path, pools):
    train(replace(CONFIG, steps=40), tmp_path / "run")
    assert RunDir(tmp_path / "run").config().actors == 3
    with pytest.raises(CheckpointError, match="made with actors = 3, the run has 2"):
        train(replace(CONFIG, actors=2), tmp_path / "run", resume=True)


def test_policy_lag(tmp_path, pools):
    """In gradient steps: nothing while exploring, then as many as passed since the weights went out."""
    train(replace(CONFIG, steps=600, log_every=8 * CONFIG.envs), tmp_path / "run")
    most = values(tmp_path / "run", "train/policy_lag_max")
    mean = values(tmp_path / "run", "train/policy_lag_mean")
    fragment, each = FRAGMENT // CONFIG.envs, CONFIG.settings.updates_per_vector_step
    # the weights went out when the fragment before this one was taken: three were gone through since then
    assert most[0] == 0 and most[-1] == each * (3 * fragment + fragment - 1)
    assert mean[-1] == most[-1] - each * (fragment - 1) / 2


def test_a_number_that_is_not_finite_names_its_actor(tmp_path, pools, monkeypatch):
    made, count = cadenza.tasks.make, []

    def make(*args, **kwargs):
        count.append(args)
        env = made(*args, **kwargs)
        return Poisoned(env, "reward") if len(count) == 2 else env

    monkeypatch.setattr("cadenza.collect.make", make)
    text = r"reward nan in environment 2 of actor 1, after \d+ transitions; .*diverged.pt"
    with pytest.raises(Diverged, match=text):
        train(replace(CONFIG, steps=600), tmp_path / "run")
    dump = load_checkpoint(tmp_path / "run" / "diverged.pt")
    assert dump["actor"] == 1 and np.isnan(dump["transition"]["reward"][2])
    assert dump["action"].shape == (4, 1) and "envs" in dump["env"]


def test_a_loss_that_is_not_finite(tmp_path, pools):
    config = replace(CONFIG, settings=replace(CONFIG.settings, lr=1e30))
    with pytest.raises(Diverged, match="training diverged at update"):
        train(config, tmp_path / "run")
    dump = load_checkpoint(tmp_path / "run" / "diverged.pt")
    assert dump["rows"]["obs"].shape == (4, 3) and dump["actor"] in range(3)


def test_an_error_of_a_collector_is_said_with_its_number(tmp_path, pools, monkeypatch):
    def broken(*args, **kwargs):
        raise ValueError("no such model")

    monkeypatch.setattr("cadenza.collect.make", broken)
    with pytest.raises(ActorFailed, match="actor 0: ValueError: no such model"):
        train(CONFIG, tmp_path / "run")


def test_another_version_is_refused(tmp_path, pools, monkeypatch):
    monkeypatch.setattr("cadenza.collect.__version__", "9.9.9")
    with pytest.raises(
        ActorFailed, match=r"actor 0: ValueError: cadenza 9\.9\.9 here, .* where the learner is"
    ):
        train(CONFIG, tmp_path / "run")


def test_ctrl_c_ends_with_a_checkpoint(tmp_path, pools):
    sink = At(120, lambda: signal.raise_signal(signal.SIGINT))
    result = train(CONFIG, tmp_path / "run", sinks=[sink])
    assert result.reason == "interrupted" and pools[0].closed == 1
    again = train(CONFIG, tmp_path / "run", resume=True)
    np.testing.assert_array_equal(parameters(again), parameters(train(CONFIG, tmp_path / "whole")))


def test_bad_numbers():
    with pytest.raises(ValueError, match="actors 0 must be at least 1"):
        TrainConfig(actors=0)
    with pytest.raises(ValueError, match="actors -2 must be at least 1"):
        TrainConfig(actors=-2)


def test_two_collectors_teach_the_arm(tmp_path, pools):
    """Some six CPU-seconds to success 0.8; the untrained arm has none."""
    alone = recipe("cadenza/ReachArm6-v0")
    config = replace(
        alone, envs=alone.envs // 2, actors=2, settings=replace(alone.settings, updates_per_vector_step=4),
        steps=14_000, eval_every=2048, eval_episodes=20, keep_best=False,
    )  # fmt: skip
    result = train(config, tmp_path / "run", stop_when=lambda all: (all[-1].success or 0.0) >= 0.8)
    assert result.reason == "goal"
    assert result.evaluations[0][1].success == 0.0


def test_nothing_of_ray_is_imported_without_actors(tmp_path):
    code = "import sys, cadenza.verbs.train, cadenza.cluster; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_a_missing_ray_is_named_with_its_pip_line(cadenza, tmp_path):
    stderr = cadenza("train", "symphony", "--task", "gym:Pendulum-v1", "--actors", 2, code=2).stderr
    assert "needs ray: pip install 'cadenza[ray]'" in stderr
    assert not list(tmp_path.iterdir())
