"""What several test files need: one trained run, its bundle, and the command line as a user calls it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def reach_run(tmp_path_factory):
    """A run folder of the reach task, trained by its recipe until it succeeds (about 10 CPU-seconds)."""
    from cadenza.demo import train_reach

    folder = tmp_path_factory.mktemp("reach") / "run"
    train_reach(folder)
    return folder


@pytest.fixture(scope="session")
def reach_bundle(reach_run):
    """The bundle of that run."""
    from cadenza.export import export_run

    path = reach_run.parent / "reach.cadenza"
    export_run(reach_run, path)
    return path


@pytest.fixture
def cadenza(tmp_path):
    """Calls `cadenza …` as a user does, in an empty folder; returns the finished process."""

    def call(*args, code=0, timeout=120, cwd=tmp_path):
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            [sys.executable, "-m", "cadenza.cli", *map(str, args)],
            capture_output=True, text=True, timeout=timeout, cwd=cwd, env=environment,
        )  # fmt: skip
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call


@pytest.fixture(scope="session")
def untrained(tmp_path_factory):
    """Writes the bundle of a task's untrained policy; gives its path."""
    from cadenza.algos.symphony_config import SymphonyConfig
    from cadenza.export import export_policy
    from cadenza.tasks import make
    from cadenza.train import make_agent
    from cadenza.train_config import TrainConfig

    def write(task):
        config = TrainConfig(task=task, settings=SymphonyConfig(hidden=16))
        env = make(task, 1)
        module = make_agent(config, env, seed=0).deploy_module()
        path = tmp_path_factory.mktemp("untrained") / "policy.cadenza"
        export_policy(config, module, 0, path)
        return path

    return write


@pytest.fixture(scope="session")
def untrained_pick(untrained):
    """The bundle of an untrained policy that reads an object."""
    return untrained("cadenza/PickArm6-v0")
