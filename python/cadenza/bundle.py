"""What every writer of a bundle shares: the inputs of the recorded vectors, the proof, the report.

A bundle is written by Rust into memory, read back, its vectors are replayed by the engine, and only then the
file takes its name. Needs numpy only; torch and ONNX belong to those who make graphs.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cadenza import __version__, _native


class ExportError(ValueError):
    """The network cannot be exported; the text names the value and the limit."""


@dataclass(frozen=True)
class ParityConfig:
    """How many vectors are recorded, and from what.

    Attributes:
        sequences: number of sequences S; each starts with a reset.
        steps: steps K of each sequence.
        seed: seed of the drawn observations.
        rollout: observations `[n, obs]` met in training; half of the vectors are drawn from them when given.
    """

    sequences: int = 8
    steps: int = 16
    seed: int = 0
    rollout: np.ndarray | None = None


@dataclass(frozen=True)
class SensorFrames:
    """Observations of training, and the sensors that they were made of: the first sequences of the vectors.

    Attributes:
        obs: `[S, K, obs]`, each sequence from a reset.
        sensors: by name (rust/runtime/src/observe/frames.rs), `[S, K, ·]`, joints in the manifest's order.
    """

    obs: np.ndarray
    sensors: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        path: the bundle.
        id: its id, hexadecimal.
        bytes: its size.
        vectors: recorded vectors that the engine reproduces.
        max_difference: largest difference between engine and recorded vectors.
        atol: difference that is allowed beside `1e-5·|y|`.
        quantization_error: largest change of an action by 8-bit weights, graph units.
        operators: ONNX operators of its graphs.
        assumed: facts that an imported policy does not state and that follow from its format or its names.
        missing: facts that nobody stated and that change no motion by themselves.
    """

    path: Path
    id: str
    bytes: int
    vectors: int
    max_difference: float
    atol: float
    quantization_error: float = 0.0
    operators: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def parity_observations(
    size: int,
    config: ParityConfig,
    *,
    mean: np.ndarray | float = 0.0,
    spread: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Observations `[S, K, size]`: rollout, normal and extreme ones (zeros, one-hot ±10, all ±10).

    Args:
        size: numbers of one observation.
        config: how many, and the rollout.
        mean: centre of the normal and the extreme ones, the normaliser's; a rollout brings its own for the
            former.
        spread: standard deviation of the normal ones and unit of the extremes.
    """
    rng = np.random.default_rng(config.seed)
    total = config.sequences * config.steps
    rows = rng.standard_normal((total, size))
    if config.rollout is not None and len(config.rollout):
        seen = np.asarray(config.rollout, dtype=np.float64)
        rows = rows * (seen.std(axis=0) + 1e-3) + seen.mean(axis=0)
        half = total // 2
        rows[:half] = seen[rng.integers(len(seen), size=half)]
    else:
        rows = rows * spread + mean
    extremes = rows[total - total // 4 :]
    extremes[:] = 0.0
    for i, row in enumerate(extremes[1:]):
        if i < 2:
            row[:] = 10.0 if i else -10.0
        else:
            row[(i - 2) % size] = 10.0 if (i - 2) // size % 2 == 0 else -10.0
    extremes[1:] = extremes[1:] * spread + mean
    return rows.reshape(config.sequences, config.steps, size).astype(np.float32)


def write_proven(
    path: str | Path,
    document: dict[str, Any],
    entries: Mapping[str, bytes],
    tensors: Mapping[str, np.ndarray],
) -> ExportReport:
    """Writes a bundle whose vectors the engine reproduces.

    Args:
        path: the file; it appears whole or not at all.
        document: the manifest without `files`; its `parity.measured` is filled in.
        entries: graphs and `spec.stl`, by name.
        tensors: recorded vectors, float32.

    Raises:
        ExportError: the engine does not reproduce the vectors.
        _native.BundleError: the manifest or a graph is refused; the text names key and value.
    """
    path = Path(path)
    # Made twice: the first bundle measures how close the engine comes, the second says so.
    _, report = _proven(document, entries, tensors)
    parity = document["parity"] | {"measured": report.max_difference}
    data, report = _proven(document | {"parity": parity}, entries, tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
        temporary = Path(file.name)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.chmod(0o644)
    temporary.replace(path)
    return ExportReport(
        path=path,
        id=_native.Bundle.from_bytes(data).id,
        bytes=len(data),
        vectors=report.vectors,
        max_difference=report.max_difference,
        atol=parity["atol"],
    )


def _proven(
    document: dict[str, Any], entries: Mapping[str, bytes], tensors: Mapping[str, np.ndarray]
) -> tuple[bytes, _native.ParityReport]:
    tensors = {name: np.ascontiguousarray(values, np.float32) for name, values in tensors.items()}
    data = _native.write_bundle(json.dumps(document), entries, tensors)
    bundle = _native.Bundle.from_bytes(data)
    report = _native.Policy(bundle).verify(bundle)
    if not report.passed:
        raise ExportError(f"the engine does not reproduce {document['parity']['source']}: {report}")
    return data, report


def provenance() -> dict[str, Any]:
    """Time (`SOURCE_DATE_EPOCH` when set), version, command line and commit of this process."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    created = time.gmtime(int(epoch) if epoch else time.time())
    record: dict[str, Any] = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", created),
        "cadenza": __version__,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # not in a repository
        record |= {"git": _git("rev-parse", "HEAD"), "dirty": bool(_git("status", "--porcelain"))}
    return record


def _git(*args: str) -> str:
    done = subprocess.run(["git", *args], capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()
