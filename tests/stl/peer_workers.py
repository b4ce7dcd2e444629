"""The peers' processes: started on demand, asked in batches; skipped without `CADENZA_PEERS=1`."""

import atexit
import json
import os
import sys
from functools import cache
from pathlib import Path

import pytest

BENCHES = Path(__file__).parents[2] / "benches"
sys.path.insert(0, str(BENCHES))

import peers  # noqa: E402
from common import Worker  # noqa: E402


@cache
def worker(name: str) -> Worker:
    """The peer's process, which lives as long as the tests."""
    script = BENCHES / "stl_peers" / f"{name.split('-')[0]}_worker.py"
    started = Worker([peers.environment(name), script], {"PYTHONPATH": "", "OMP_NUM_THREADS": "1"})
    atexit.register(started.close)
    return started


def evaluate(name: str, pairs: list) -> list:
    """The peer's `[[t, value], …]` for each (formula, trace), or the text of its exception."""
    if os.environ.get("CADENZA_PEERS") != "1":
        pytest.skip(f"CADENZA_PEERS=1 makes an environment with {peers.named(name)} and asks it")
    return worker(name).ask(json.dumps({"values": pairs}))["values"]
