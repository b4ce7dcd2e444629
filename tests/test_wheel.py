"""The wheel alone, unpacked next to nothing else: what a robot's computer gets."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
MATURIN = shutil.which(
    "maturin", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout; a build that `make install` has done before is not repeated."""
    if MATURIN is None or shutil.which("cargo") is None:
        pytest.skip("maturin and cargo build the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    command = [MATURIN, "build", "--release", "--out", str(folder), "--interpreter", sys.executable]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-4000:]
    [path] = folder.glob("cadenza-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the wheel's content, and a way to call its command line with nothing else of ours."""
    site = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        site,
        wheel,
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    empty = tmp_path_factory.mktemp("empty")
    numpy = tmp_path_factory.mktemp("numpy")
    source = Path(np.__file__).parent
    for package in (source, source.parent / "numpy.libs"):
        if package.exists():
            (numpy / package.name).symlink_to(package)

    def call(*words, code=0):
        # -S leaves the environment's packages out: an editable install of this checkout would hide gaps.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        environment["PYTHONPATH"] = os.pathsep.join(map(str, (site, numpy)))
        done = subprocess.run(
            [sys.executable, "-S", "-m", "cadenza.cli", *map(str, words)],
            capture_output=True, text=True, timeout=120, cwd=empty, env=environment,
        )  # fmt: skip
        assert done.returncode == code, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    call.site, call.folder = site, empty
    return call


def test_the_wheel_holds_the_package_and_the_robots(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "cadenza/robots/arm6/robot.toml" in names and "cadenza/robots/arm6/model.xml" in names
    assert any(name.startswith("cadenza/_native") and name.endswith(".so") for name in names)
    assert {"cadenza/cli.py", "cadenza/verbs/train.py", "cadenza/sim/device.py"} <= set(names)
    assert any(name.endswith("entry_points.txt") for name in names)
    assert any(name.endswith("LICENSE") for name in names)
    foreign = [n for n in names if not n.startswith("cadenza") or "__pycache__" in n or "/tests/" in n]
    assert foreign == []
    assert wheel.stat().st_size < 20 << 20


def test_robots_come_with_it(installed):
    assert installed("robots", "list").startswith("arm6 ")
    assert "did you mean 'arm6'" in installed("robots", "check", "arm", code=2)


def test_stl_eval(installed):
    (installed.folder / "log.csv").write_text("x\n1\n2\n3\n")
    assert "robustness 0.5 " in installed("stl", "eval", "G[0,2] (x > 0.5)", "log.csv")


def test_bundles_are_inspected_checked_and_run_without_torch(installed, reach_bundle):
    assert "shoulder_pan" in installed("inspect", reach_bundle)
    assert "160/160" in installed("check", reach_bundle, "--robot", "arm6")
    words = ["--robot", "arm6", "--device", "null", "--virtual", "--seconds", 0.5, "--record", "run.mcap"]
    assert "finished" in installed("run", reach_bundle, *words)
    installed("report", "run.mcap", "-o", "report.html")
    assert (installed.folder / "report.html").stat().st_size > 10_000


def test_training_verbs_say_what_is_missing(installed):
    told = installed("train", "symphony", "--task", "cadenza/ReachArm6-v0", code=2)
    assert "pip install 'cadenza[train]'" in told
