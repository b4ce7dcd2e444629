"""What a foreign policy says, what the user adds, and what then still is missing.

Facts with motion consequences (rates, joints with gains and defaults, observation terms, what an action is)
are never filled in: all that lack are listed at once, with the lines to write.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cadenza import _native
from cadenza.importers.graph import ForeignPolicyError, Graph

MANIFEST_CAP = 1 << 20
TERM_DEFAULTS = {"history": {"length": 1, "order": "oldest_first", "fill": "repeat"}}


@dataclass(frozen=True)
class Need:
    """A fact with motion consequences that nobody has stated.

    Attributes:
        what: the fact, in words.
        lines: the lines of the manifest that state it, empty when another need has them.
        answered: whether a manifest states it.
    """

    what: str
    lines: str
    answered: Callable[[Mapping[str, Any]], bool] = lambda document: False


@dataclass
class Draft:
    """A manifest that grows: first by what the files say.

    Attributes:
        kind: what it was read as.
        name: name of the policy.
        manifest: what is known, in the form of a bundle's manifest.
        graphs: function name → its graph.
        assumed: facts that follow from the format or from names, in words.
        missing: facts that nobody states and that change no motion by themselves.
        needed: what this source in particular leaves open.
    """

    kind: str
    name: str
    manifest: dict[str, Any] = field(default_factory=dict)
    graphs: dict[str, Graph] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    needed: list[Need] = field(default_factory=list)


def given(manifest: Mapping[str, Any] | str | Path | None) -> dict[str, Any]:
    """The user's part of the manifest: a dictionary, or the path of a JSON file.

    Raises:
        ForeignPolicyError: no JSON object, a key that stands twice, or a file above 1 MiB.
    """
    if manifest is None:
        return {}
    if isinstance(manifest, Mapping):
        return dict(manifest)
    path = Path(manifest)
    if path.stat().st_size > MANIFEST_CAP:
        raise ForeignPolicyError(f"{path}: {path.stat().st_size} bytes, at most {MANIFEST_CAP}")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise ForeignPolicyError(f"{path}: the key {twice!r} stands twice")
        return dict(pairs)

    try:
        document = json.loads(path.read_text(), object_pairs_hook=once)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ForeignPolicyError(f"{path}: {error}") from None
    if not isinstance(document, dict):
        raise ForeignPolicyError(f"{path}: a JSON object is needed, not {type(document).__name__}")
    return document


def merge(known: Any, more: Any, at: str, notes: list[str]) -> Any:
    """`more` laid over `known`; lists of objects are joined by `name`. What is overruled is noted."""
    if isinstance(known, dict) and isinstance(more, dict):
        keys = [*known, *(key for key in more if key not in known)]
        place = f"{at}." if at else ""
        return {
            key: merge(known[key], more[key], f"{place}{key}", notes)
            if key in known and key in more
            else known.get(key, more.get(key))
            for key in keys
        }
    if _named(known) and _named(more):
        own, added = {x["name"]: x for x in known}, {x["name"]: x for x in more}
        return list(merge(own, added, at, notes).values())
    if known != more:
        notes.append(f"{at}: {_short(more)} as given; the file says {_short(known)}")
    return more


def _named(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, dict) and "name" in x for x in value)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def complete(
    draft: Draft, manifest: Mapping[str, Any] | str | Path | None, robot: _native.Robot | None
) -> dict[str, Any]:
    """The whole manifest but for `parity` and `provenance`.

    Raises:
        ForeignPolicyError: facts are missing (all of them are listed), or sizes disagree with the graph.
    """
    document = merge(draft.manifest, given(manifest), "", draft.assumed)
    document.setdefault("name", draft.name)
    if robot is not None:
        _from_robot(document, robot, draft.assumed)
    _joints_of_action(document, draft)
    needed = [need for need in draft.needed if not need.answered(document)]
    needed += _needed(document, draft.graphs["step"], robot)
    if needed:
        raise ForeignPolicyError(_missing_text(draft, needed))
    _observation(document, draft)
    document.setdefault("normalizer", {"where": "none"})
    document["in_graph"] = {
        "normalize": document["normalizer"].get("where") == "graph",
        "squash": draft.graphs["step"].squashes(_action_port(document)),
        "action_scale": False,
        "action_offset": False,
    } | document.get("in_graph", {})
    document["chunk"] = {
        "mode": "none",
        "horizon": 1,
        "execute": 1,
        "on_exhausted": "hold",
        "seam": "replace",
    } | document.get("chunk", {})
    document["action"].setdefault("previous", "raw")
    document["format"] = 1
    document.setdefault("weights", "f32")
    _note_limits(document, draft)
    return document


def _from_robot(document: dict[str, Any], robot: _native.Robot, assumed: list[str]) -> None:
    document.setdefault("robot", {})
    if "name" not in document["robot"]:
        document["robot"]["name"] = robot.name
        assumed.append(f"robot.name: {robot.name}, the robot.toml that was given")
    rates = document.setdefault("rates", {})
    if "control_dt" not in rates:
        rates["control_dt"] = 1.0 / robot.control_hz
        assumed.append(f"rates.control_dt: {rates['control_dt']:g} s, the robot's control period")


def _joints_of_action(document: dict[str, Any], draft: Draft) -> None:
    """As many joints as actions: then the action drives them in their order."""
    joints, action = document.get("joints"), document.setdefault("action", {})
    if joints and "joints" not in action and _actions(draft.graphs["step"], document) == len(joints):
        action["joints"] = [joint.get("name") for joint in joints]
        draft.assumed.append("action.joints: the joints in their order, since there are as many as actions")


def _action_port(document: Mapping[str, Any]) -> str:
    outputs = document["functions"]["step"]["outputs"]
    return next(name for name, binding in outputs.items() if binding in ("action", "actions"))


def _actions(graph: Graph, document: Mapping[str, Any]) -> int:
    port = graph.output(_action_port(document))
    return port.shape[-1] if port and port.shape else 0


def _needed(document: dict[str, Any], graph: Graph, robot: _native.Robot | None) -> list[Need]:
    """Facts with motion consequences that every source needs and nobody has stated."""
    needed = []
    if "name" not in document.get("robot", {}):
        needed.append(Need("the robot's name", '"robot": { "name": "…" }'))
    rates = {"policy_dt": "policy's period", "control_dt": "robot's control period"}
    if lacking := [key for key in rates if key not in document.get("rates", {})]:
        values = ", ".join(f'"{key}": <s>' for key in lacking)
        needed.append(
            Need("the " + " and the ".join(rates[key] for key in lacking), f'"rates": {{ {values} }}')
        )
    needed += _needed_joints(document, graph, robot)
    needed += _needed_terms(document, graph)
    needed += _needed_action(document, graph)
    return needed


def _needed_joints(document: dict[str, Any], graph: Graph, robot: _native.Robot | None) -> list[Need]:
    facts = {"default": "default position, rad", "kp": "N·m/rad", "kd": "N·m·s/rad"}
    joints = document.get("joints", [])
    names = [joint["name"] for joint in robot.joints] if robot is not None else ["…"]
    lines, what = [], set()
    for joint in joints or [{"name": name} for name in names]:
        if lacking := [key for key in facts if key not in joint]:
            values = ", ".join(f'"{key}": <{facts[key]}>' for key in lacking)
            lines.append(f'  {{ "name": "{joint["name"]}", {values} }}')
            what |= {"default positions" if key == "default" else "gains" for key in lacking}
    if not lines:
        return []
    order = (
        ""
        if joints
        else f"   (the policy's joints in its own order; it gives {_actions(graph, document)} actions)"
    )
    known = [] if joints else ["names"]
    what = "the joints' " + ", ".join([*known, *sorted(what)])
    return [Need(what, '"joints": [\n' + ",\n".join(lines) + "\n]" + order)]


def _needed_terms(document: dict[str, Any], graph: Graph) -> list[Need]:
    terms, needed = document.get("observation", {}).get("terms", []), []
    if not terms:
        lines = (
            '"observation": { "interleave": "term",\n'
            '  "terms": [ { "name": "…", "source": "…", "scale": 1.0 } ] }'
        )
        needed.append(Need(f"the observation's terms in order ({graph.ports})", lines))
    if unknown := [term["name"] for term in terms if "source" not in term]:
        entries = ", ".join(f'{{ "name": "{name}", "source": "…" }}' for name in unknown)
        lines = f'"observation": {{ "terms": [ {entries} ] }}'
        needed.append(
            Need(f"what the observation terms {', '.join(unknown)} are (docs/bundle.md lists sources)", lines)
        )
    if any(term.get("source") == "command" for term in terms) and not document.get("commands"):
        lines = '"commands": [ { "name": "…", "range": [<lowest>, <highest>] } ]'
        needed.append(Need("the commands that the observation reads, with the ranges of training", lines))
    return needed


def _needed_action(document: dict[str, Any], graph: Graph) -> list[Need]:
    action, in_graph, needed = document.get("action", {}), document.get("in_graph", {}), []
    count = _actions(graph, document)
    if "joints" not in action and document.get("joints"):
        needed.append(
            Need(f"which joints the {count} actions drive, in order", '"action": { "joints": ["…"] }')
        )
    if "kind" not in action:
        needed.append(
            Need(
                "what an action is: position_offset about the default pose, position absolute or with offset",
                '"action": { "kind": "position_offset" }',
            )
        )
    if "scale" not in action and not in_graph.get("action_scale"):
        needed.append(
            Need("the scale of the action", '"action": { "scale": { "*": <rad for an output of 1> } }')
        )
    port = graph.output(_action_port(document))
    if port is not None and len(port.shape) > 1 and port.shape[-2] > 1 and "chunk" not in document:
        lines = (
            f'"chunk": {{ "mode": "open", "horizon": {port.shape[-2]}, "execute": <rows that are executed>, '
            '"on_exhausted": "hold", "seam": "replace" }'
        )
        needed.append(Need(f"how many of the {port.shape[-2]} rows are executed", lines))
    return needed


def _missing_text(draft: Draft, needed: list[Need]) -> str:
    lines = [f"{draft.name}: read as {draft.kind}; motion depends on what it does not say:"]
    lines += [f"  - {need.what}" for need in needed]
    lines.append(
        "Write this into a JSON file (what belongs to one section into one object), and give it as manifest:"
    )
    lines += [f"  {line}" for need in needed for line in need.lines.splitlines()]
    return "\n".join(lines)


def _observation(document: dict[str, Any], draft: Draft) -> None:
    """Sizes of the terms, and the size of the observation held against the graph."""
    observation = document["observation"]
    observation.setdefault("interleave", "term")
    sizes = {
        "joint_pos": len(document["joints"]),
        "joint_vel": len(document["joints"]),
        "joint_effort": len(document["joints"]),
        "joint_target_error": len(document["joints"]),
        "last_action": len(document["action"]["joints"]),
        "prev_executed_action": len(document["action"]["joints"]),
        "command": len(document.get("commands", [])),
        "base_quat": 4,
        "phase": 2,
        "target_cylindrical": 2,
        "time": 1,
    }
    for term in observation["terms"]:
        if "size" not in term:
            params = term.get("params", {})
            listed = term.get("joints") or params.get("commands") or params.get("value")
            term["size"] = len(listed) if listed else sizes.get(term["source"], 3)
        term.setdefault("history", dict(TERM_DEFAULTS["history"]))
    total = sum(term["size"] * term["history"]["length"] for term in observation["terms"])
    observation["size"] = total
    graph = draft.graphs["step"]
    for name, binding in document["functions"]["step"]["inputs"].items():
        port = graph.input(name)
        if binding == "observation" and port is not None and port.size not in (0, total):
            table = "\n".join(
                f"  {t['name']}: {t['source']}, {t['size']} × {t['history']['length']}"
                for t in observation["terms"]
            )
            raise ForeignPolicyError(
                f"{draft.name}: the terms give {total} numbers, the graph wants {port.size} "
                f"({graph.ports}):\n{table}"
            )


def _note_limits(document: dict[str, Any], draft: Draft) -> None:
    for joint in document["joints"]:
        for key in ("position", "velocity_max", "effort_max"):
            joint.setdefault(key, None)
    if all(joint["position"] is None for joint in document["joints"]):
        draft.missing.append("joint limits of training: those of robot.toml hold alone")
    document["robot"].setdefault("model_sha256", None)
    document["rates"].setdefault("physics_dt", None)
    if document["rates"]["physics_dt"] is None:
        draft.missing.append("rates.physics_dt")
    if document["action"].get("raw_clip") is None and document["action"].get("clip") is None:
        draft.missing.append("clip of the action: the limiter and the gate hold alone")
