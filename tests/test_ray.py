"""Actors on Ray, where it is installed: the same numbers, a process that is killed, addresses, Ctrl-C.

What a run with actors computes is tested in `test_actors.py`, without Ray.
"""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import cadenza.cluster
from cadenza.cluster import RayPool
from cadenza.rundir import RunDir
from cadenza.train import train
from test_actors import CONFIG, Pool, values
from test_train import At, metrics, parameters

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed"),
]
TWO = replace(CONFIG, actors=2)
PATIENCE = 400
"""Seconds for a process on a machine with much else to do."""


@pytest.fixture(scope="module")
def cluster():
    """Two cores of this machine; runs join it and leave it as it is."""
    import ray

    with cadenza.cluster.connected(None, 2):
        yield ray


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The run as the pool of `test_actors.py` makes it."""
    folder = tmp_path_factory.mktemp("expected") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cadenza.cluster.RayPool", lambda *_: Pool())
        return train(TWO, folder), folder


def test_ray_computes_the_same(tmp_path, cluster, expected):
    result = train(TWO, tmp_path / "run")
    np.testing.assert_array_equal(parameters(result), parameters(expected[0]))
    assert metrics(tmp_path / "run") == metrics(expected[1])
    assert cluster.is_initialized()


def test_a_killed_process_leaves_no_trace_in_the_numbers(tmp_path, cluster, expected, monkeypatch):
    pools = []

    class Watched(RayPool):
        def __init__(self, *args):
            super().__init__(*args)
            pools.append(self)

    def kill():
        call = pools[0]._handles[1].__ray_call__  # a method that every actor of Ray has
        os.kill(cluster.get(call.remote(lambda _: os.getpid())), signal.SIGKILL)

    monkeypatch.setattr("cadenza.cluster.RayPool", Watched)
    result = train(TWO, tmp_path / "run", sinks=[At(120, kill)])
    assert values(tmp_path / "run", "train/actors_lost")[-1] == 1
    np.testing.assert_array_equal(parameters(result), parameters(expected[0]))


def test_more_actors_than_cores_are_refused(tmp_path, cluster):
    with pytest.raises(ValueError, match="3 cores are needed, the Ray cluster has 2"):
        train(CONFIG, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def start(*words, cwd):
    """`cadenza …` in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "cadenza.cli", *map(str, words)], cwd=cwd, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere.invalid:6379", "x"])
def test_an_address_where_nothing_answers(tmp_path, address):
    words = ["train", "symphony", "--task", "gym:Pendulum-v1", "--actors", 2, "--ray", address]
    process = start(*words, cwd=tmp_path)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert f"cadenza: no Ray cluster answers at {address}: " in stderr and "Traceback" not in stderr
    assert process.returncode == 2 and not list(tmp_path.iterdir())


SMALL = ("explore_steps=64", "hidden=16", "eval_every=400", "eval_episodes=1", "checkpoint_every=100")


def test_ctrl_c_on_the_terminal_ends_with_a_checkpoint(tmp_path):
    """The signal goes to the whole group, as a terminal's does: learner and collectors."""
    words = ["train", "symphony", "--task", "gym:Pendulum-v1", "--preset", "tiny", "--steps", "1000000"]
    words += ["--actors", "2", "--out", "run", "--set", *SMALL]
    process = start(*words, cwd=tmp_path)
    folder, deadline = RunDir(tmp_path / "run"), time.monotonic() + PATIENCE
    while not folder.checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert "interrupted at " in out and "lost" not in err
    step = folder.load(folder.config())["step"]
    assert step > 0
    out, err = start("resume", "run", "--steps", step + 100, cwd=tmp_path).communicate(timeout=PATIENCE)
    assert f"steps at {step + 100} transitions" in out, err
