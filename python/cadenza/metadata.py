"""The `metadata_props` of mjlab 1.6, written into our graphs, so that its deployers can run them.

Key names and the form are mjlab's (comma-separated, `;` inside an entry); the numbers are written so that
they read back exactly, where mjlab keeps three decimals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def metadata_props(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What mjlab's deployers read, from a bundle's manifest.

    The form has no room for a policy's rate, offset and clip of its action, limits of joints, a term's
    offset, the order of its history and `interleave: "time"`. Who needs those reads the bundle.
    """
    joints, terms = manifest["joints"], manifest["observation"]["terms"]
    action = manifest["action"]
    scale = action.get("scale", {})
    length = [_history(term) for term in terms]
    return {
        "run_path": manifest["name"],
        "joint_names": csv(joint["name"] for joint in joints),
        "joint_stiffness": csv(joint["kp"] for joint in joints),
        "joint_damping": csv(joint["kd"] for joint in joints),
        "default_joint_pos": csv(joint["default"] for joint in joints),
        "command_names": csv(command["name"] for command in manifest.get("commands", [])),
        "observation_names": csv(term["name"] for term in terms),
        "observation_terms_scale": csv(term.get("scale", 1.0) for term in terms),
        "observation_terms_flatten_history_dim": csv(1.0 for _ in terms),
        "observation_terms_history_length": csv(float(n if n > 1 else 0) for n in length),
        "observation_terms_clip": csv(term.get("clip") or [float("-inf"), float("inf")] for term in terms),
        "action_scale": csv(scale.get(name, scale.get("*", 1.0)) for name in action["joints"]),
    }


def csv(entries: Iterable[Any]) -> str:
    """Entries separated by `,`, the numbers of one entry by `;`."""
    return ",".join(
        ";".join(_scalar(x) for x in entry) if isinstance(entry, (list, tuple)) else _scalar(entry)
        for entry in entries
    )


def _scalar(x: Any) -> str:
    return repr(x) if isinstance(x, float) else str(x)


def _history(term: Mapping[str, Any]) -> int:
    return term.get("history", {}).get("length", 1)
