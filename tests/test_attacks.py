"""The files of rust/policy/attacks are what make.py writes; rust/policy/tests/attacks.rs opens them."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "rust/policy/attacks"


def test_the_generator_writes_the_same_bytes_again(tmp_path):
    subprocess.run([sys.executable, FOLDER / "make.py", tmp_path], check=True, stdout=subprocess.DEVNULL)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_bytes() for path in FOLDER.glob("*.cadenza")}
    assert made.keys() == kept.keys()
    assert [name for name in made if made[name] != kept[name]] == []
