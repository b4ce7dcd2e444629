"""Traces from files: CSV, NumPy, and the logs of our own runs."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from cadenza import _native

TIME_NAMES = ("time", "t", "timestamp", "time_s")
# Steps of a time column may differ by this part before they are uneven: clocks are printed with few digits.
UNEVEN = 0.01


@dataclass(frozen=True)
class Trace:
    """A recorded trace.

    Attributes:
        names: signals.
        samples: their values, `[T, D]`, float64.
        dt: seconds of a step, where the file says it.
    """

    names: tuple[str, ...]
    samples: np.ndarray
    dt: float | None = None

    @property
    def signals(self) -> dict[str, np.ndarray]:
        """Values `[T]` by name."""
        return {name: self.samples[:, i] for i, name in enumerate(self.names)}


def read_trace(path: Path, signals: list[str] | None = None, *, uneven: bool = False) -> Trace:
    """Reads a trace; the ending of the name says which kind it is.

    Args:
        path: `.npz` (arrays `[T]`, or `[T, k]` as `name[0]` …), `.npy` (`[T, D]` or `[T]`), `.mcap` (a log of
            `cadenza run`: the monitors' names `q.J dq.J tau.J cmd.J err.J level`), or CSV with a header.
        signals: names of the columns of a `.npy` file, which has none.
        uneven: accept a time column (`time`, `t`, `timestamp`, `time_s`) whose steps differ; each row is one
            step.

    Raises:
        ValueError: not a trace; the text names the file and the place.
    """
    if signals is not None and path.suffix != ".npy":
        raise ValueError(f"{path}: names its signals itself; --signals is for .npy")
    if path.suffix == ".mcap":
        return _log(path)
    if path.suffix == ".npy":
        names, samples = _npy(path, signals)
    elif path.suffix == ".npz":
        names, samples = _npz(path)
    else:
        names, samples = _csv(path)
    if len(samples) == 0:
        raise ValueError(f"{path}: no samples")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"{path}: signals {', '.join(sorted(twice))} come twice")
    return Trace(tuple(names), samples, None if uneven else _step(path, names, samples))


def _step(path: Path, names: list[str], samples: np.ndarray) -> float | None:
    """Seconds of a step, from the time column if there is one."""
    column = next((i for i, name in enumerate(names) if name.lower() in TIME_NAMES), None)
    if column is None or len(samples) < 2:
        return None
    steps = np.diff(samples[:, column])
    dt = float(np.median(steps))
    bad = ~(np.abs(steps - dt) <= UNEVEN * dt)
    if dt <= 0 or bad.any():
        at = int(np.argmax(bad))
        raise ValueError(
            f"{path}: column {names[column]} is uneven: sample {at + 1} comes {steps[at]:.6g} s after "
            f"the one before, the others {dt:.6g} s; --uneven takes each row as one step"
        )
    return float((samples[-1, column] - samples[0, column]) / len(steps))


def _csv(path: Path) -> tuple[list[str], np.ndarray]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file, skipinitialspace=True)
        names = [name.strip() for name in next(lines, [])]
        if not names or "" in names:
            raise ValueError(f"{path}: the first line must name every column")
        rows = []
        for cells in lines:
            if not cells:
                continue
            if len(cells) != len(names):
                count = f"{len(cells)} cells, the header has {len(names)}"
                raise ValueError(f"{path}, line {lines.line_num}: {count}")
            try:
                rows.append([float(cell) for cell in cells])
            except ValueError as error:
                raise ValueError(f"{path}, line {lines.line_num}: {error}") from None
    return names, np.array(rows)


def _numbers(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path}: {name} has type {array.dtype}, real numbers wanted")
    return array.astype(np.float64)


def _load(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path}: {error}") from None


def _npy(path: Path, signals: list[str] | None) -> tuple[list[str], np.ndarray]:
    array = _load(path)
    if not isinstance(array, np.ndarray) or array.ndim not in (1, 2):
        raise ValueError(f"{path}: expected an array [T] or [T, D], got shape {list(np.shape(array))}")
    samples = _numbers(path, "the array", array).reshape(len(array), -1)
    if signals is None:
        raise ValueError(f"{path}: name its {samples.shape[1]} columns with --signals a,b,…")
    if len(signals) != samples.shape[1]:
        raise ValueError(f"{path}: {samples.shape[1]} columns, --signals names {len(signals)}")
    return signals, samples


def _npz(path: Path) -> tuple[list[str], np.ndarray]:
    names, columns = [], []
    arrays = _load(path)
    if not isinstance(arrays, np.lib.npyio.NpzFile):
        raise ValueError(f"{path}: not an archive of arrays")
    with arrays:
        shapes = {name: list(arrays[name].shape) for name in arrays.files}
        if not shapes or len({tuple(shape[:1]) for shape in shapes.values()}) != 1:
            raise ValueError(f"{path}: signals must have one length, got {shapes}")
        for name in arrays.files:
            array = _numbers(path, name, arrays[name])
            if array.ndim == 1:
                names.append(name)
                columns.append(array)
            elif array.ndim == 2:
                names += [f"{name}[{i}]" for i in range(array.shape[1])]
                columns += list(array.T)
            else:
                raise ValueError(f"{path}: {name} has shape {shapes[name]}, expected [T] or [T, k]")
    return names, np.stack(columns, axis=1)


def _log(path: Path) -> Trace:
    try:
        log = _native.Log(path)
    except _native.LogError as error:
        text = str(error)
        raise ValueError(text if str(path) in text else f"{path}: {text}") from None
    header, arrays = json.loads(log.header), log.joints()
    steps = {len(array) for array in arrays.values()}
    if len(steps) != 1 or 0 in steps:
        raise ValueError(
            f"{path}: states and commands are missing, {log.damage or 'dropped while recording'}"
        )
    joints = [joint["name"] for joint in header["joints"]]
    kinds = {"q": arrays["q"], "dq": arrays["dq"], "tau": arrays["tau"], "cmd": arrays["command"]}
    kinds["err"] = arrays["command"] - arrays["q"]
    names = [f"{kind}.{joint}" for kind in kinds for joint in joints] + ["level"]
    samples = np.concatenate([*kinds.values(), arrays["level"][:, None].astype(np.float64)], axis=1)
    return Trace(tuple(names), samples, 1 / header["control_hz"])
