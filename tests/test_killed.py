"""A run that is killed again and again writes the numbers of one that is not."""

import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cadenza.checkpoint import load_checkpoint
from cadenza.rundir import RunDir
from cadenza.train import train
from test_train import SMALL, metrics

KILLS = 10
CONFIG = replace(SMALL, steps=1_000_000, checkpoint_every=40, eval_every=200)

PART = """
import sys; sys.path.insert(0, {tests!r}); import conftest
from test_killed import CONFIG, RunDir, train
folder = RunDir({folder!r})
print("go", flush=True)
train(CONFIG, folder.path, resume=folder.checkpoint.exists())
"""


def same(a, b, at="state"):
    assert type(a) is type(b), at
    if isinstance(a, dict):
        assert a.keys() == b.keys(), at
        for key in a:
            if key != "cpu_seconds":
                same(a[key], b[key], f"{at}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), at
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{at}[{i}]")
    else:
        np.testing.assert_array_equal(a, b, err_msg=at)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_ten_kills_at_random_moments_leave_no_trace(tmp_path, seed):
    moments = random.Random(seed)
    folder = RunDir(tmp_path / "killed")
    code = PART.format(tests=str(Path(__file__).parent), folder=str(folder.path))
    seen = []
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        time.sleep(moments.uniform(0.2, 3.0))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        seen.append(load_checkpoint(folder.checkpoint)["step"] if folder.checkpoint.exists() else 0)
    assert seen == sorted(seen)
    assert len(set(seen)) > KILLS // 2  # it did go on in between
    until = replace(CONFIG, steps=seen[-1] + 200)
    resumed = train(until, folder.path, resume=True)
    whole = train(until, tmp_path / "whole")
    assert resumed.evaluations == whole.evaluations
    assert metrics(folder.path) == metrics(tmp_path / "whole")
    same(load_checkpoint(folder.checkpoint), load_checkpoint(tmp_path / "whole" / "checkpoint.pt"))
