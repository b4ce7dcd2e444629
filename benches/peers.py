"""Other people's packages, each in an environment of its own under the user's cache, made on demand.

They pin what we do not (onnxruntime, antlr), and their licences are theirs: they run in their own processes,
but for stable-baselines3, which shares our torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from common import Worker

# Package → its version, and what else its environment needs. pip's own settings (PIP_FIND_LINKS for a CPU
# build of torch) apply.
PEERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "kinfer": ("0.6.1", ()),
    "tract": ("0.23.9", ("numpy",)),
    "rtamt": ("0.4.10", ("antlr4-python3-runtime==4.7",)),
    "mstlo-python": ("0.2.2", ("numpy",)),
    "lerobot": ("0.4.4", ("torch==2.13.0", "numpy")),
    "ruckig": ("0.19.4", ()),
    "stlcgpp": ("0.0.2", ("torch==2.13.0", "numpy")),
    "stable-baselines3": ("2.9.2", ("torch==2.13.0", "numpy==2.4.6", "gymnasium==1.4.0")),
}
# Installed without what they ask for: only the part that the benchmark runs is used.
BARE = {"lerobot"}


def named(name: str) -> str:
    """The peer with its version, for tables."""
    return f"{name} {PEERS[name][0]}"


def environment(name: str) -> Path:
    """The interpreter of an environment with the peer, made when it is missing.

    Raises:
        RuntimeError: it cannot be made; the text is pip's last line.
    """
    release, others = PEERS[name]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "cadenza" / f"{name}-{release}"
    python = cache / "bin" / "python"
    if not (cache / "ready").exists():
        install = [str(python), "-m", "pip", "install", "--quiet"]
        bare = [[*install, "--no-deps", f"{name}=={release}"]] if name in BARE else []
        with_others = others if bare else (f"{name}=={release}", *others)
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(cache)],
            [*install, *with_others],
            *bare,
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                last = (done.stderr or done.stdout).strip().splitlines()[-1]
                raise RuntimeError(f"not installed: {name}: {last}")
        (cache / "ready").touch()
    return python


class Peer:
    """A peer's process, or why there is none.

    Args:
        name: see `PEERS`.
        script: what runs there; it answers each line of JSON with one.
        args: its arguments.
        quick: nothing is started then.
    """

    def __init__(self, name: str, script: Path, *args: str | Path, quick: bool) -> None:
        self.title, self.why = named(name), "not measured: --quick"
        self._worker = None
        if not quick:
            try:
                self._worker = Worker([environment(name), script, *args], {"PYTHONPATH": ""})
            except (RuntimeError, OSError) as error:
                self.why = str(error)

    def __bool__(self) -> bool:
        return self._worker is not None

    def ask(self, **request: Any) -> dict[str, Any]:
        """What it answers."""
        assert self._worker is not None
        return self._worker.ask(json.dumps(request))

    def close(self) -> None:
        """Ends it."""
        if self._worker is not None:
            self._worker.close()


def stable_baselines3() -> ModuleType:
    """stable-baselines3 in this process, so that its blocks alternate with ours in one process.

    Its environment's packages come last on the path; numpy, torch and gymnasium stay ours, and have to be
    those it was installed with.

    Raises:
        RuntimeError: it cannot be installed, or a version differs; the text says which.
    """
    python = environment("stable-baselines3")
    ask = "from importlib.metadata import version as v; print(*map(v, ('torch', 'numpy', 'gymnasium')))"
    done = subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=True)
    for name, theirs in zip(("torch", "numpy", "gymnasium"), done.stdout.split(), strict=True):
        ours = version(name)
        if ours.split("+")[0] != theirs.split("+")[0]:
            raise RuntimeError(f"not comparable: {name} is {ours} here and {theirs} beside stable-baselines3")
    sys.path.extend(str(p) for p in python.parents[1].glob("lib/python3*/site-packages"))
    return import_module("stable_baselines3")
