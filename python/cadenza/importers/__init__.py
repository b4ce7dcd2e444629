"""Policies that were trained elsewhere, as ordinary bundles (spec/policy.md §9).

Each source has a file that reads what its files say into a draft; `draft` lays the user's manifest over it
and refuses to guess what motion depends on; `vectors` lets onnxruntime answer the recorded vectors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cadenza import _native
from cadenza.bundle import ExportReport, ParityConfig, provenance, write_proven
from cadenza.importers import draft as drafts
from cadenza.importers import kinfer, mjlab, rsl_rl, unitree, vectors
from cadenza.importers import onnx as plain
from cadenza.importers.draft import Draft
from cadenza.importers.graph import ForeignPolicyError, Graph
from cadenza.robot import Robot, find_robot

__all__ = ["KINDS", "ForeignPolicyError", "import_policy"]

KINDS = ("auto", "rsl_rl", "mjlab", "unitree", "kinfer", "onnx")
GZIP = b"\x1f\x8b"


def import_policy(
    source: str | Path,
    path: str | Path,
    *,
    kind: str = "auto",
    manifest: Mapping[str, Any] | str | Path | None = None,
    robot: Robot | str | Path | None = None,
    parity: ParityConfig | None = None,
) -> ExportReport:
    """Writes somebody else's policy as the bundle `path`.

    Args:
        source: an ONNX file, a kinfer archive, or a folder (or either file) of unitree_rl_lab.
        path: the bundle; it appears whole or not at all.
        kind: one of `KINDS`; `auto` looks at names and metadata, and the report says what it saw.
        manifest: what the files do not say, in the form of a bundle's manifest; a dictionary or a JSON file.
            It wins over the files, and the report says where.
        robot: robot, its name or path: control period, and for unitree_rl_lab the joints' names.
        parity: how many vectors are recorded.

    Returns:
        The report, with the facts that were assumed and those that are missing without consequence for the
        motion.

    Raises:
        ForeignPolicyError: facts with motion consequences are missing (all are listed, with the lines to
            write), or a file is damaged, too large, or not what it should be.
        ExportError, _native.BundleError: as for :func:`cadenza.export.export`.
        ModuleNotFoundError: onnx, onnxruntime or PyYAML is not installed (extra `import`).
    """
    source = Path(source)
    if kind not in KINDS:
        raise ForeignPolicyError(f"kind {kind!r}: known are {', '.join(KINDS)}")
    if not source.exists():
        raise ForeignPolicyError(f"{source}: no such file")
    if isinstance(robot, Robot):
        owner = robot.native
    else:  # without the model, which an import does not need
        owner = None if robot is None else _native.Robot(find_robot(robot))
    given = drafts.given(manifest)
    draft = _read(source, kind, given, owner)
    document = drafts.complete(draft, given, owner)
    document["provenance"] = (
        provenance() | {"algorithm": f"imported from {draft.kind}"} | document.get("provenance", {})
    )
    entries = {f"{name}.onnx": graph.data for name, graph in draft.graphs.items()}
    # The engine first: its caps and its allow-list keep a hostile graph from onnxruntime, which has neither.
    _native.Policy(_native.Bundle.from_bytes(_native.write_bundle(json.dumps(document), entries, {})))
    tensors, atol = vectors.record(document, draft.graphs, parity or ParityConfig())
    document["parity"] = {
        "file": "parity.safetensors",
        "source": vectors.source(),
        "atol": atol,
        "rtol": vectors.RTOL,
        "measured": 0.0,
    }
    report = write_proven(path, document, entries, tensors)
    return replace(
        report, operators=draft.graphs["step"].operators, assumed=draft.assumed, missing=draft.missing
    )


def _read(source: Path, kind: str, given: Mapping[str, Any], robot: _native.Robot | None) -> Draft:
    if kind == "auto":
        kind, why = _kind(source)
        draft = _read(source, kind, given, robot)
        draft.assumed.insert(0, f"read as {kind}: {why}")
        return draft
    name = source.resolve().name.partition(".")[0]
    match kind:
        case "kinfer":
            if source.stat().st_size > kinfer.CAP:
                raise ForeignPolicyError(f"{source}: {source.stat().st_size} bytes, at most {kinfer.CAP}")
            return kinfer.read(source.read_bytes(), name)
        case "unitree":
            graph, deploy = unitree.files(source)
            return unitree.read(Graph.read(graph), unitree.load_yaml(deploy), name, robot)
        case "mjlab":
            return mjlab.read(Graph.read(source), name)
        case "rsl_rl":
            return rsl_rl.read(Graph.read(source), name)
    return plain.read(Graph.read(source), name, given)


def _kind(source: Path) -> tuple[str, str]:
    """What a source looks like, and why."""
    if source.is_dir() or source.suffix in (".yaml", ".yml"):
        return "unitree", "a folder or a deploy.yaml"
    with source.open("rb") as file:
        if file.read(2) == GZIP:
            return "kinfer", "it begins like gzip"
    graph = Graph.read(source)
    if mjlab.has_metadata(graph):
        return "mjlab", "its metadata_props name joints and observations"
    if any((source.parent / place).is_file() for place in unitree.BESIDE):
        return "unitree", "a deploy.yaml lies beside it"
    names = [port.name for port in graph.inputs], [port.name for port in graph.outputs]
    if names[0][:1] == ["obs"] and names[1][:1] == ["actions"]:
        return "rsl_rl", "its input is called obs and its output actions"
    return "onnx", "its inputs and outputs have other names than rsl_rl's"
