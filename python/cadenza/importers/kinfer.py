"""kinfer 0.6 archives: `init_fn.onnx`, `step_fn.onnx` and `metadata.json` in one tar.gz.

Inputs of `step` have reserved names and no batch dimension. The archive knows joint and command names; gains,
the rate, the range of commands and the unit of gravity it does not know.
"""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from collections.abc import Mapping
from typing import Any

from cadenza.importers.draft import Draft, Need
from cadenza.importers.graph import ForeignPolicyError, Graph

ENTRIES = ("init_fn.onnx", "step_fn.onnx", "metadata.json")
# Largest archive after decompression, bytes.
CAP = 256 << 20
CHUNK = 1 << 20
# Reserved input → observation source, and settings of the term.
INPUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "joint_angles": ("joint_pos", {"params": {"absolute": True}}),
    "joint_angular_velocities": ("joint_vel", {}),
    "projected_gravity": ("projected_gravity", {}),
    "accelerometer": ("accelerometer", {"scale": 1.0}),
    "gyroscope": ("gyro", {"scale": 1.0}),
    "command": ("command", {}),
    "time": ("time", {"scale": 1.0}),
}


def read(data: bytes, name: str) -> Draft:
    """The draft of an archive; `init_fn` becomes the function `init`, whose value is that of a reset.

    Raises:
        ForeignPolicyError: a damaged or too large archive, entries other than the three, unknown inputs.
    """
    entries = unpack(data, name)
    metadata = _metadata(entries["metadata.json"], name)
    init, step = (Graph(entries[file], f"{name}: {file}") for file in ENTRIES[:2])
    if init.inputs or len(init.outputs) != 1:
        raise ForeignPolicyError(f"{init.name} has no inputs and one output in kinfer: {init.ports}")
    if len(step.outputs) != 2 or "carry" not in [p.name for p in step.inputs]:
        raise ForeignPolicyError(
            f"{step.name} takes 'carry' and gives targets and carry in kinfer: {step.ports}"
        )
    carry = list(init.outputs[0].shape)
    if carry != metadata["carry_size"]:
        raise ForeignPolicyError(
            f"{init.name} gives {carry}, metadata.json says carry_size {metadata['carry_size']}"
        )
    draft = Draft(kind="kinfer", name=name, graphs={"step": step, "init": init})
    targets, after = (port.name for port in step.outputs)
    draft.manifest = {
        "joints": [{"name": joint} for joint in metadata["joint_names"]],
        "observation": {"interleave": "term", "terms": _terms(step, draft)},
        "action": {"kind": "position", "joints": metadata["joint_names"], "scale": {"*": 1.0}},
        "carry": {"state": {"shape": carry, "init": "init"}},
        "functions": {
            "step": {
                "file": "step.onnx",
                "batch": 1,
                "inputs": {
                    p.name: "carry.state" if p.name == "carry" else f"source.{INPUTS[p.name][0]}"
                    for p in step.inputs
                },
                "outputs": {targets: "action", after: "carry.state"},
            },
            "init": {
                "file": "init.onnx",
                "batch": 1,
                "inputs": {},
                "outputs": {init.outputs[0].name: "carry.state"},
            },
        },
    }
    draft.assumed += [
        "targets are joint positions in rad, already scaled and offset: kinfer has no other kind",
        "joint_angles are the joint positions themselves, without a default subtracted",
    ]
    if names := metadata["command_names"]:
        entries = ", ".join(f'{{ "name": "{name}", "range": [<lowest>, <highest>] }}' for name in names)
        draft.needed.append(
            Need(
                "the ranges of the commands",
                f'"commands": [ {entries} ]',
                lambda document: [c.get("name") for c in document.get("commands", [])] == names,
            )
        )
    return draft


def _terms(step: Graph, draft: Draft) -> list[dict[str, Any]]:
    terms = []
    for port in step.inputs:
        if port.name == "carry":
            continue
        if port.name not in INPUTS:
            known = ", ".join([*INPUTS, "carry"])
            raise ForeignPolicyError(f"{step.name}: the input {port.name!r} is none of kinfer's: {known}")
        source, settings = INPUTS[port.name]
        terms.append({"name": port.name, "source": source, "size": port.size, **settings})
        if source == "projected_gravity":
            # The helper library of kinfer's users gave a unit vector first and one of 9.81 later.
            draft.needed.append(
                Need(
                    "the unit of projected_gravity: 1.0 when trained on the direction, 9.81 when on m/s²",
                    '"observation": { "terms": [ { "name": "projected_gravity", "scale": <1.0 or 9.81> } ] }',
                    _gravity_is_scaled,
                )
            )
    return terms


def _gravity_is_scaled(document: Mapping[str, Any]) -> bool:
    terms = document.get("observation", {}).get("terms", [])
    return any(term.get("name") == "projected_gravity" and "scale" in term for term in terms)


def unpack(data: bytes, name: str) -> dict[str, bytes]:
    """The three entries of an archive.

    Raises:
        ForeignPolicyError: damage, other entries or kinds of entries, more than 256 MiB.
    """
    plain = _decompress(data, name)
    entries: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
            for member in archive:
                if member.name not in ENTRIES or not member.isreg() or member.name in entries:
                    raise ForeignPolicyError(
                        f"{name}: entry {member.name!r}; kinfer's holds {', '.join(ENTRIES)}, each once"
                    )
                file = archive.extractfile(member)
                entries[member.name] = file.read() if file is not None else b""
                if len(entries[member.name]) != member.size:
                    raise ForeignPolicyError(f"{name}: the entry {member.name} is cut off")
    except tarfile.TarError as error:
        raise ForeignPolicyError(f"{name}: no tar archive inside: {error}") from None
    if lacking := [entry for entry in ENTRIES if entry not in entries]:
        raise ForeignPolicyError(f"{name}: {', '.join(lacking)} missing; is it a kinfer archive?")
    return entries


def _decompress(data: bytes, name: str) -> bytes:
    """gzip, piece by piece, so that a bomb is noticed before it has gone off."""
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
    pieces, size, rest = [], 0, data
    try:
        while rest and not inflate.eof:
            piece = inflate.decompress(rest, CHUNK)
            rest = inflate.unconsumed_tail
            size += len(piece)
            if size > CAP:
                raise ForeignPolicyError(f"{name}: more than {CAP} bytes after decompression")
            pieces.append(piece)
            if not piece and not rest:
                break
    except zlib.error as error:
        raise ForeignPolicyError(f"{name}: damaged gzip: {error}") from None
    if not inflate.eof:
        raise ForeignPolicyError(f"{name}: the gzip stream is cut off")
    return b"".join(pieces)


def _metadata(data: bytes, name: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ForeignPolicyError(f"{name}: metadata.json: {error}") from None
    kinds = {"joint_names": str, "command_names": str, "carry_size": int}
    if not isinstance(document, dict) or set(document) != set(kinds):
        raise ForeignPolicyError(f"{name}: metadata.json holds {', '.join(kinds)} in kinfer 0.6")
    for key, kind in kinds.items():
        value = document[key]
        if not isinstance(value, list) or not all(type(x) is kind for x in value):
            raise ForeignPolicyError(f"{name}: metadata.json: {key} is no list of {kind.__name__}")
    return document
