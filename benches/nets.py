"""The networks that are timed (spec/policy.md §10), each as a bundle with random weights.

A 48-256-256-12 and K 64-512-256-128-29 with ELU, B 376-512-512-512-17 with LayerNorm and ELU, and the demo's
Symphony actor. K comes with a robot of 29 joints and ten monitors, so that a whole loop
can run it; K-plain is K without the monitors.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cadenza.export import ParityConfig, export

CONTROL_HZ = 1000.0
JOINTS = 29
COMMANDS = ("vx", "vy", "wz")
MONITORS = 10


def mlp(sizes: Sequence[int], *, norm: bool = False) -> nn.Sequential:
    """Linear layers with ELU between them, after a LayerNorm when asked for."""
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes[:-1]):
        layers += [nn.Linear(a, b), *([nn.LayerNorm(b)] if norm else []), nn.ELU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def term(source: str, size: int, history: int = 1) -> dict[str, Any]:
    """An observation term as it comes."""
    params = {"period": 1.0} if source == "phase" else {}
    length = {"length": history, "order": "oldest_first", "fill": "repeat"}
    return {"name": source, "source": source, "size": size, "params": params, "history": length}


def manifest(name: str, joints: int, terms: list[dict[str, Any]], control_hz: float) -> dict[str, Any]:
    """A policy of `joints` position offsets, one inference in each control tick."""
    names = [f"joint_{i}" for i in range(joints)]
    dt = 1.0 / control_hz
    return {
        "name": name,
        "robot": {"name": f"robot_{joints}", "model_sha256": None},
        "rates": {"policy_dt": dt, "control_dt": dt, "physics_dt": None},
        "joints": [
            {"name": n, "default": 0.0, "kp": 50.0, "kd": 2.0,
             "position": None, "velocity_max": None, "effort_max": None} for n in names
        ],
        "observation": {
            "size": sum(t["size"] * t["history"]["length"] for t in terms),
            "interleave": "term",
            "terms": terms,
        },
        "normalizer": {"where": "none"},
        "action": {"kind": "position_offset", "joints": names, "scale": {"*": 0.25}, "offset": "default"},
        "chunk": {"mode": "none", "horizon": 1, "execute": 1, "on_exhausted": "hold", "seam": "replace"},
        "in_graph": {"normalize": False, "squash": False, "action_scale": False, "action_offset": False},
        "commands": [{"name": c, "range": [-1.0, 1.0]} for c in COMMANDS],
        "weights": "f32",
        "provenance": {},
    }  # fmt: skip


def robot_toml(joints: int, control_hz: float = CONTROL_HZ) -> str:
    """A robot without a model: joints of ±3 rad on the null device."""
    head = (
        f'schema = 1\nname = "robot_{joints}"\n[device]\nkind = "null"\n'
        f"[rates]\ncontrol_hz = {control_hz:g}\n"
        '[imu]\npresent = true\n[safety]\ngain_ramp = "0s"\nauthority_ramp = "0.1s"\n'
        # a late tick of a busy machine is a figure here, not a fault
        'stale_after = "2s"\nlost_after = "5s"\n'
    )
    joint = (
        '[[joint]]\nname = "joint_{}"\nhome = 0.0\n'
        "limits = {{ position = [-3.0, 3.0], velocity = 20.0, acceleration = 2000.0, effort = 50.0 }}\n"
        "gains = {{ kp_max = 50.0, kd_max = 2.0, kd_damp = 1.0 }}\n"
    )
    return head + "".join(joint.format(i) for i in range(joints))


def legged(joints: int) -> list[dict[str, Any]]:
    """What a walking policy sees."""
    return [
        term("joint_pos", joints), term("joint_vel", joints),
        term("projected_gravity", 3), term("command", len(COMMANDS)),
    ]  # fmt: skip


def symphony_actor() -> tuple[nn.Module, dict[str, Any], str]:
    """The demo's actor with its manifest and its properties."""
    from cadenza.algos.symphony import Symphony
    from cadenza.recipes import recipe
    from cadenza.tasks import make_task

    task = make_task("cadenza/ReachArm6-v0")
    document, high = task.manifest(), np.ones(task.action_size)
    settings = recipe("cadenza/ReachArm6-v0").settings
    learner = Symphony(settings, document["observation"]["size"], -high, high, seed=0)  # pyright: ignore
    return learner.deploy_module(), document, task.spec() or ""


def networks(control_hz: float = CONTROL_HZ) -> dict[str, tuple[nn.Module, dict[str, Any], str | None]]:
    """Module, manifest and properties by name."""
    torch.manual_seed(0)
    a = [*legged(12), term("last_action", 12), term("gyro", 3), term("accelerometer", 3)]
    b = [term("joint_pos", 17, 11), term("joint_vel", 17, 11), term("phase", 2)]
    k = manifest("K", JOINTS, legged(JOINTS), control_hz)
    k["monitors"] = [
        {"name": f"fast_{i}", "dt": 1.0 / control_hz, "trip": "violated", "action": "log"}
        for i in range(MONITORS)
    ]
    watched = "".join(
        f"spec fast_{i}: G[0,50] (abs(dq.joint_{i}) < 30 and abs(q.joint_{i}) < 4);\n"
        for i in range(MONITORS)
    )
    actor, reach, spec = symphony_actor()
    network = mlp((64, 512, 256, 128, JOINTS))
    return {
        "actor": (actor, {**reach, "name": "actor"}, spec),
        "A": (mlp((48, 256, 256, 12)), manifest("A", 12, a, control_hz), None),
        "B": (mlp((376, 512, 512, 512, 17), norm=True), manifest("B", 17, b, control_hz), None),
        "K": (network, k, watched),
        "K-plain": (network, {**k, "monitors": []}, None),
    }


def bundles(
    folder: Path, names: Sequence[str], control_hz: float = CONTROL_HZ
) -> dict[str, tuple[Path, nn.Module]]:
    """Writes the named networks into `folder`; path and module of each."""
    out = {}
    for name, (module, document, spec) in networks(control_hz).items():
        if name in names:
            path = folder / f"{name}.cadenza"
            export(path, module, manifest=document, specification=spec, parity=ParityConfig(2, 8))
            out[name] = (path, module.eval())
    return out
