"""The folder of a training run: what it holds and how it is read back. It says so itself, in `README.txt`."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from cadenza import __version__
from cadenza.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from cadenza.robot import suggest
from cadenza.sim.domain import Domain
from cadenza.sinks import CsvSink, Sink, TensorBoardSink
from cadenza.train_config import ALGORITHMS, TrainConfig

IDENTITY = ("task", "algorithm", "seed", "envs", "actors")
"""Settings that make a checkpoint another run's."""
FORMAT = 1
"""Version of a run's folder; another one is refused."""

README = """\
A training run of Cadenza: {algorithm} on {task}, seed {seed}.

config.json        every setting of the run
command.txt        the commands that were given, the first on top
metrics.csv        step,name,value: train/… between evaluations, eval/… of noise-free episodes, time/…
events.out…        the same for TensorBoard: tensorboard --logdir {path}
checkpoint.pt      everything that an exact resume needs; checkpoint.pt.previous is the one before it
checkpoint.pt.chunks/   the large arrays of both (the replay), in pieces that are written once
best.cadenza       the policy of the best evaluation so far, as a robot runs it (tasks with a robot)
snapshots/STEP.pt  the policy's weights at each evaluation, where the setting `snapshots` is true
video/             films that `cadenza eval --video` made
diverged.pt        only after a number that is not finite: state, action and agent at that moment

Go on              cadenza resume {path}
Go on for longer   cadenza resume {path} --steps {more}
Evaluate           cadenza eval {path} --episodes 50 --video
Export             cadenza export {path} -o policy.cadenza
Look inside        cadenza inspect {path}/best.cadenza
"""


class RunDir:
    """A run's folder.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoint = self.path / "checkpoint.pt"
        self.dump = self.path / "diverged.pt"
        self.best = self.path / "best.cadenza"

    def create(self, config: TrainConfig) -> None:
        """Begin a new run. Raises ValueError when the folder already holds one."""
        if self.checkpoint.exists():
            raise ValueError(f"{self.path} already holds a run: resume it, or choose another folder")
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "command.txt").unlink(missing_ok=True)
        shutil.rmtree(self.path / "snapshots", ignore_errors=True)
        self.best.unlink(missing_ok=True)
        self._describe(config)

    def go_on(self, config: TrainConfig) -> None:
        """Note that the run goes on, with these settings."""
        self._describe(config)

    def config(self) -> TrainConfig:
        """The run's settings. Raises ValueError, naming the file, when it is missing or not a run's."""
        path = self.path / "config.json"
        try:
            data = json.loads(path.read_text())
            _check_format(data.pop("format", None), data.pop("cadenza", "an unknown version"))
            settings, _ = ALGORITHMS[data["algorithm"]]
            data["settings"] = _build(settings, data["settings"])
            if data["domain"] is not None:
                data["domain"] = _build(Domain, data["domain"])
            return _build(TrainConfig, data)
        except FileNotFoundError:
            raise ValueError(f"{self.path} holds no run: there is no {path.name}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: {error!r}" if isinstance(error, KeyError) else f"{path}: {error}"
            ) from error

    def sinks(self, resume_step: int | None) -> list[Sink]:
        """CSV and TensorBoard, continued after `resume_step` or new."""
        return [
            CsvSink(self.path / "metrics.csv", resume_step=resume_step),
            TensorBoardSink(self.path, resume_step=resume_step),
        ]

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint; see `save_checkpoint`."""
        save_checkpoint(self.checkpoint, state)

    def snapshot(self, step: int) -> Path:
        """Where the policy's weights at an evaluation are kept."""
        return self.path / "snapshots" / f"{step}.pt"

    def snapshots(self) -> list[int]:
        """Transitions at which weights were kept, in order."""
        return sorted(int(p.stem) for p in (self.path / "snapshots").glob("*.pt") if p.stem.isdigit())

    def load(self, config: TrainConfig) -> dict[str, Any]:
        """Read the checkpoint; CheckpointError when it is missing, torn, or another run's."""
        state = load_checkpoint(self.checkpoint)
        for name in IDENTITY:
            mine, theirs = getattr(config, name), state.get("run", {}).get(name)
            if mine != theirs:
                raise CheckpointError(self.checkpoint, f"made with {name} = {theirs!r}, the run has {mine!r}")
        return state

    def _describe(self, config: TrainConfig) -> None:
        data = {"format": FORMAT, "cadenza": __version__} | asdict(config)
        _write(self.path / "config.json", json.dumps(data, indent=2) + "\n")
        text = README.format(
            algorithm=config.algorithm,
            task=config.task,
            seed=config.seed,
            path=self.path,
            more=2 * config.steps,
        )
        _write(self.path / "README.txt", text)
        with (self.path / "command.txt").open("a") as file:
            file.write(shlex.join(sys.argv) + "\n")


def _check_format(found: object, version: str) -> None:
    if found != FORMAT:
        raise ValueError(
            f"the run was made by cadenza {version} in format {found}; "
            f"this is cadenza {__version__}, which reads format {FORMAT}"
        )


def _build(cls: type, data: Mapping[str, Any]) -> Any:
    known = [f.name for f in fields(cls)]
    for key in data:
        if key not in known:
            raise ValueError(f"unknown setting {key!r}{suggest(key, known)}")
    return cls(**data)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)
