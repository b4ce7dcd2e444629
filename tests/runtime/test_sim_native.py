"""`--mujoco-lib`: the simulation that needs no Python is the one that Python makes, bit for bit."""

import runpy
import subprocess
import sys
from pathlib import Path

import mujoco
import pytest

from cadenza.robot import robots_dir

WHEEL = Path(mujoco.__file__).parent
NATIVE = Path(__file__).parents[2] / "rust/runtime/src/device/mujoco"


@pytest.fixture(scope="module")
def library():
    """MuJoCo's library in the wheel."""
    (found,) = WHEEL.glob("libmujoco.so.*")
    return found


@pytest.mark.parametrize(
    ("task", "robot"),
    [("ReachArm6", "arm6"), ("PickArm6", "arm6"), ("StandHumanoid29", "humanoid29")],
)
def test_the_log_is_that_of_the_simulation_from_python(untrained, cadenza, library, tmp_path, task, robot):
    bundle = untrained(f"cadenza/{task}-v0")
    run = ("run", bundle, "--robot", robot, "--device", "sim", "--virtual", "--seconds", 1, "--record")
    said = cadenza(*run, "python.mcap").stdout
    assert cadenza(*run, "native.mcap", "--mujoco-lib", library).stdout == said.replace(
        "python.mcap", "native.mcap"
    )
    native = (tmp_path / "native.mcap").read_bytes()
    assert len(native) > 800_000  # about a thousand ticks
    assert native == (tmp_path / "python.mcap").read_bytes()


def test_the_python_package_is_not_asked(untrained_pick, library, tmp_path):
    script = (
        "import sys; sys.modules['mujoco'] = None  # whoever imports it gets an ImportError\n"
        "from cadenza.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    run = ["run", untrained_pick, "--robot", "arm6", "--device", "sim", "--virtual"]
    run += ["--seconds", "0.1"]
    for more, code in ([], 2), (["--mujoco-lib", library], 0):
        done = subprocess.run([sys.executable, "-c", script, *map(str, run + more)], cwd=tmp_path)
        assert done.returncode == code


def test_a_version_whose_layout_is_not_known_is_refused(untrained_pick, cadenza, tmp_path):
    source = "int mj_version(void) { return 5001002; }"
    subprocess.run(
        ["cc", "-shared", "-x", "c", "-", "-o", tmp_path / "new.so"], input=source, text=True, check=True
    )
    run = ("run", untrained_pick, "--robot", "arm6", "--virtual", "--seconds", 1)
    done = cadenza(*run, "--device", "sim", "--mujoco-lib", "new.so", code=2)
    assert "new.so is MuJoCo 5.1.2; this program knows 3.17.0, 4.0.0" in done.stderr
    done = cadenza(*run, "--device", "null", "--mujoco-lib", "new.so", code=2)
    assert "--mujoco-lib new.so: only the device 'sim' has a use for it, this is 'null'" in done.stderr
    done = cadenza("bench", "latency", untrained_pick, "--robot", "arm6", "--mujoco-lib", "new.so", code=2)
    assert "this is 'null'" in done.stderr


def test_when_mujoco_gives_up_its_words_are_seen(untrained_pick, cadenza, library, tmp_path):
    for name in ("robot.toml", "model.xml"):
        text = (robots_dir() / "arm6" / name).read_text()
        (tmp_path / name).write_text(text.replace("<option", '<size memory="3K"/><option'))
    run = ("run", untrained_pick, "--robot", "robot.toml", "--device", "sim", "--virtual", "--seconds", 1)
    done = cadenza(*run, "--mujoco-lib", library, code=2)
    assert "MuJoCo error: mj_stackAlloc: out of memory" in done.stderr
    assert not (tmp_path / "MUJOCO_LOG.TXT").exists()


def test_the_table_of_layouts_says_what_the_headers_say():
    """A wrong offset would be read as a number of something else."""
    version, fields = runpy.run_path(str(NATIVE / "layouts.py"))["layout"](WHEEL / "include")
    table = (NATIVE / "layouts.rs").read_text()
    (entry,) = [part for part in table.split("    Layout {\n") if f"{version:_}" in part.partition("\n")[0]]
    assert entry.partition("\n")[2].startswith(fields + "    },\n")
