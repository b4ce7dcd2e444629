"""What a checkpoint of a full replay costs: seconds and bytes, beside plain writing and reading.

    python benches/checkpoint.py [--quick] [--json FILE]

One million transitions of Hopper's sizes. The reference writes the same bytes to the same disk with fsync and
reads them back; the rest of ours is the copy, the hash and the archive. Wall time.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import common
from cadenza.algos.sac import Sac
from cadenza.algos.sac_config import SacConfig
from cadenza.checkpoint import load_checkpoint, save_checkpoint
from common import Report

TRANSITIONS, OBS, ACTION = 1_000_000, 11, 3


def measure(quick: bool) -> Report:
    """Saving, and resuming into a fresh agent."""
    report = Report("checkpoint", "wall time, medians of alternating rounds")
    n = 20_000 if quick else TRANSITIONS
    with tempfile.TemporaryDirectory(dir=common.ROOT) as folder:
        path, plain = Path(folder) / "checkpoint.pt", Path(folder) / "plain"
        agent, fresh = _agent(n), _agent(n)
        rng = np.random.default_rng(0)
        obs = rng.standard_normal((n, OBS), dtype=np.float32)
        action = rng.uniform(-1, 1, (n, ACTION)).astype(np.float32)
        agent.buffer.add(obs, action, obs[:, 0], obs, np.full(n, 0.99, np.float32))
        save_checkpoint(path, agent.state_dict())
        size = path.stat().st_size
        data = path.read_bytes()

        def write() -> None:
            with plain.open("wb") as file:
                file.write(data)
                os.fsync(file.fileno())

        def resume() -> None:
            fresh.load_state_dict(load_checkpoint(path))

        runs: dict[str, Callable[[], object]] = {
            "save": lambda: save_checkpoint(path, agent.state_dict()),
            "write": write,
            "resume": resume,
            "read": plain.read_bytes,
        }
        seconds = common.interleave({key: _wall(run) for key, run in runs.items()}, 3 if quick else 5)
    s = {key: float(np.median(t)) for key, t in seconds.items()}
    for ours, other in (("save", "write"), ("resume", "read")):
        figures = f"{s[ours]:.3f} / {s[other]:.3f} s; {n} transitions, {size} bytes"
        report.ratio(f"{ours} / plain {other}", seconds[ours], seconds[other], figures=figures)
    return report


def _agent(capacity: int) -> Sac:
    high = np.ones(ACTION)
    return Sac(SacConfig(capacity=capacity), OBS, -high, high, seed=0)


def _wall(run: Callable[[], object]) -> Callable[[], float]:
    def timed() -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return timed


if __name__ == "__main__":
    common.main(measure, __doc__)
