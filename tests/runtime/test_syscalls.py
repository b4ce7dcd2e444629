"""What the control thread asks of the kernel: to be woken at its deadlines, and nothing else."""

import re
import shutil
import subprocess
import sys
from collections import Counter

import pytest

STRACE = shutil.which("strace")
CALL = re.compile(r"(\w+)\(")


@pytest.mark.skipif(STRACE is None, reason="counts with strace, which is not installed")
@pytest.mark.parametrize("mode", ["inline", "async"])
def test_a_tick_is_one_system_call(reach_bundle, tmp_path, mode):
    """A lock that waits, memory that is mapped or a file that is written would be among them."""
    command = [STRACE, "-ff", "-o", tmp_path / "calls", sys.executable, "-m", "cadenza.cli"]
    command += ["run", reach_bundle, "--robot", "arm6", "--device", "sim", "--seconds", "2", "--mode", mode]
    command += ["--record", tmp_path / "run.mcap"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip(f"this kernel lets nobody be traced: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    threads = [path.read_text().splitlines() for path in tmp_path.glob("calls.*")]
    control = max(threads, key=lambda calls: sum("TIMER_ABSTIME" in call for call in calls))
    ticks = [i for i, call in enumerate(control) if "TIMER_ABSTIME" in call]
    # From half a second, when it is armed and the policy has the robot, for another second.
    armed = control[ticks[250] : ticks[750]]
    names = Counter(found[1] for call in armed if (found := CALL.match(call)))
    assert names == {"clock_nanosleep": 500}
