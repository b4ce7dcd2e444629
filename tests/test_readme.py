"""The README's example runs as it stands, and its table of verbs is the command line's."""

import re
import subprocess
import sys
from pathlib import Path

from cadenza.cli import VERBS

README = (Path(__file__).parents[1] / "README.md").read_text()
PYTHON = Path(__file__).parents[1] / "python"

# A robot's computer has numpy and cadenza; whoever imports more in the example finds out here.
SETUP = f"""
import sys
sys.path.insert(0, {str(PYTHON)!r})
sys.modules.update(dict.fromkeys(("torch", "mujoco", "gymnasium", "onnx", "tyro", "rich")))
"""


def test_the_example_prints_what_the_readme_says(tmp_path):
    (example,) = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    (promised,) = re.findall(r"It prints `(.+?)`", README)
    run = subprocess.run(
        [sys.executable, "-c", SETUP + example], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == promised
    assert example.count("\n") <= 10


def test_the_loop_runs_as_the_readme_says(tmp_path, reach_bundle, monkeypatch, capsys):
    (example,) = re.findall(r"^```py\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    for written, here in (
        ("runs/demo/reach.cadenza", str(reach_bundle)),
        ("seconds=4.0", "seconds=4.0, virtual_clock=True"),
    ):
        assert written in example
        example = example.replace(written, here)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert capsys.readouterr().out.startswith("finished\n")
    assert (tmp_path / "run.mcap").stat().st_size > 0


def test_the_table_has_every_verb_with_its_example():
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| `(.+)` \|$", README, re.MULTILINE))
    assert rows == {name: verb.example for name, verb in VERBS.items()}
