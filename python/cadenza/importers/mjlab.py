"""Graphs of mjlab 1.6: rsl_rl's graph with `metadata_props`.

Comma-separated lists, `;` inside an entry, three decimals. `joint_names` lists all joints, `joint_stiffness`
only those with an actuator. There is no rate, no offset of the action, no clip and no limit in it;
observation terms are named, but what is behind a name is not said.
"""

from __future__ import annotations

from typing import Any

from cadenza.importers import rsl_rl
from cadenza.importers.draft import Draft, Need
from cadenza.importers.graph import ForeignPolicyError, Graph

KEYS = (
    "joint_names",
    "joint_stiffness",
    "joint_damping",
    "default_joint_pos",
    "observation_names",
    "action_scale",
)
# Terms of mjlab's own tasks, by their usual names.
SOURCES = {
    "base_ang_vel": "gyro",
    "projected_gravity": "projected_gravity",
    "base_lin_vel": "base_lin_vel",
    "joint_pos": "joint_pos",
    "joint_pos_rel": "joint_pos",
    "joint_vel": "joint_vel",
    "joint_vel_rel": "joint_vel",
    "actions": "last_action",
    "last_action": "last_action",
    "command": "command",
    "velocity_commands": "command",
}
# What three decimals may hide, and from which part of a value on it is told.
ROUNDING, NOTABLE = 5e-4, 0.01


def has_metadata(graph: Graph) -> bool:
    """Whether the graph carries mjlab's keys."""
    return "joint_names" in graph.metadata and "observation_names" in graph.metadata


def read(graph: Graph, name: str) -> Draft:
    """The draft of an exported policy.

    Raises:
        ForeignPolicyError: a key is missing, a list has another length than its names, or a number is none.
    """
    meta = Metadata(graph)
    draft = rsl_rl.read(graph, name)
    draft.kind = "mjlab"
    joints = meta.strings("joint_names")
    default = meta.numbers("default_joint_pos", joints)
    draft.manifest["joints"] = [
        {"name": joint, "default": value} for joint, value in zip(joints, default, strict=True)
    ]
    _gains(meta, draft, joints)
    _observation(meta, draft)
    if commands := meta.strings("command_names"):
        draft.missing.append(
            f"slots of the commands {', '.join(commands)}: the metadata names the terms only"
        )
    draft.assumed += meta.rounded
    draft.assumed.append("the network's output is the raw action: scale and offset are outside the graph")
    return draft


class Metadata:
    """The lists of a graph's `metadata_props`, and where their rounding matters."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.rounded = graph, []
        if lacking := [key for key in KEYS if key not in graph.metadata]:
            raise ForeignPolicyError(f"{graph.name}: mjlab's metadata lacks {', '.join(lacking)}")

    def strings(self, key: str) -> list[str]:
        """A list of names; empty when the key is missing or says nothing."""
        text = self.graph.metadata.get(key, "")
        return [entry.strip() for entry in text.split(",")] if text.strip() else []

    def lists(self, key: str, count: int, absent: str | None = None) -> list[list[float]]:
        """Each entry as a list of numbers; `absent` for all of them when there is no such key."""
        entries = [absent] * count if absent and key not in self.graph.metadata else self.strings(key)
        if len(entries) != count:
            raise ForeignPolicyError(f"{self.graph.name}: {key} has {len(entries)} entries, {count} wanted")
        return [[self._number(key, x) for x in entry.split(";")] for entry in entries]

    def numbers(self, key: str, names: list[str]) -> list[float]:
        """One number for each name; what rounding may have spoilt is noted."""
        values = [entry[0] for entry in self.lists(key, len(names))]
        for name, value in zip(names, values, strict=True):
            self.note(f"{key} of {name}", value, self.rounds(key))
        return values

    def note(self, what: str, value: float, digits: bool) -> None:
        """Notes a value that three decimals may have changed by more than 1 %."""
        exact = value == 0 and what.startswith("default_joint_pos")  # 0.03° at most
        if digits and abs(value) < ROUNDING / NOTABLE and not exact:
            part = "all of it" if value == 0 else f"{ROUNDING / abs(value):.0%} of it"
            self.rounded.append(f"{what}: {value:g} has three decimals, so up to {part} is lost in rounding")

    def rounds(self, key: str) -> bool:
        """Whether the numbers of a list were rounded to three decimals: none has more."""
        entries = [x for entry in self.strings(key) for x in entry.split(";")]
        return all(len(x.partition(".")[2]) <= 3 and "e" not in x.lower() for x in entries)

    def _number(self, key: str, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise ForeignPolicyError(f"{self.graph.name}: {key}: {text!r} is not a number") from None


def _gains(meta: Metadata, draft: Draft, joints: list[str]) -> None:
    """Gains, and the joints and scales of the action, where lists and names have the same length."""
    count = len(meta.strings("joint_stiffness"))
    scale = meta.strings("action_scale")
    if count == len(joints):
        gains = zip(
            draft.manifest["joints"],
            meta.numbers("joint_stiffness", joints),
            meta.numbers("joint_damping", joints),
            strict=True,
        )
        for joint, kp, kd in gains:
            joint |= {"kp": kp, "kd": kd}
    else:
        draft.needed.append(
            Need(
                f"whose the {count} gains are: {len(joints)} joints (one without actuator has kp 0 and kd 0)",
                "",
                lambda document: all("kp" in joint and "kd" in joint for joint in document["joints"]),
            )
        )
    action: dict[str, Any] = draft.manifest.setdefault("action", {})
    if len(scale) == 1:
        [[value]] = meta.lists("action_scale", 1)
        meta.note("action_scale", value, True)
        action["scale"] = {"*": value}
    elif len(scale) == len(joints) == count:
        action["scale"] = dict(zip(joints, meta.numbers("action_scale", joints), strict=True))


def _observation(meta: Metadata, draft: Draft) -> None:
    names = meta.strings("observation_names")
    terms: list[dict[str, Any]] = []
    absent = {
        "observation_terms_scale": "1",
        "observation_terms_history_length": "0",
        "observation_terms_flatten_history_dim": "1",
        "observation_terms_clip": "-inf;inf",
    }
    draft.assumed += [
        f"{key}: absent, so none (older mjlab does not write it)"
        for key in absent
        if key not in meta.graph.metadata
    ]
    scales, lengths, flat, clips = (meta.lists(key, len(names), text) for key, text in absent.items())
    for name, scale, [length], [flattened], clip in zip(names, scales, lengths, flat, clips, strict=True):
        for value in scale:
            meta.note(f"observation_terms_scale of {name}", value, meta.rounds("observation_terms_scale"))
        if length > 1 and not flattened:
            raise ForeignPolicyError(
                f"{meta.graph.name}: term {name} keeps its history as a dimension of its own"
            )
        term: dict[str, Any] = {
            "name": name,
            "scale": scale[0] if len(scale) == 1 else scale,
            "clip_stage": "before_scale",
            "history": {"length": max(1, round(length)), "order": "oldest_first", "fill": "repeat"},
        }
        if len(clip) != 2:
            raise ForeignPolicyError(
                f"{meta.graph.name}: observation_terms_clip of {name}: {clip} is no range"
            )
        if clip != [float("-inf"), float("inf")]:
            term["clip"] = clip
        if source := SOURCES.get(name):
            term["source"] = source
            draft.assumed.append(f"observation term {name} is {source}: by its name alone")
        terms.append(term)
    draft.manifest["observation"] = {"interleave": "term", "terms": terms}
