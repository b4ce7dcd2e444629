"""What every robot task's manifest declares alike (rust/policy/src/manifest, format 1)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from cadenza.robot import Robot
from cadenza.sim.motor import substeps


def blank_manifest(
    robot: Robot,
    name: str,
    *,
    policy_hz: float,
    gains: Mapping[str, tuple[float, float]] | None = None,
    physics_dt: float | None = None,
) -> dict[str, Any]:
    """A manifest with robot, rates, joints and frames filled in, and no network.

    Args:
        robot: the robot; all its joints are declared, with home as the default position.
        name: name of the policy.
        policy_hz: policy rate; divides the control rate.
        gains: `(kp, kd)` by joint name; a joint that is not named gets its caps from robot.toml.
        physics_dt: physics step; the model's own when None.

    Raises:
        ValueError: the rates do not divide, or a gain is outside its cap.
    """
    model = robot.model(gains, physics_dt=physics_dt)
    substeps(1.0 / policy_hz, robot.control_dt)
    kp_kd = robot.gains(gains)
    return {
        "format": 1,
        "name": name,
        "files": {},
        "robot": {
            "name": robot.name,
            "model_sha256": hashlib.sha256(robot.model_path.read_bytes()).hexdigest(),
        },
        "rates": {
            "policy_dt": 1.0 / policy_hz,
            "control_dt": robot.control_dt,
            "physics_dt": float(model.opt.timestep),
        },
        "joints": [
            {
                "name": joint.name,
                "default": joint.home,
                "kp": float(kp),
                "kd": float(kd),
                "position": list(joint.position),
                "velocity_max": joint.velocity,
                "effort_max": joint.effort,
            }
            for joint, (kp, kd) in zip(robot.joints, kp_kd, strict=True)
        ],
        "frames": robot.frames_json(),
        "observation": {"size": 0, "interleave": "term", "terms": []},
        "normalizer": {"where": "none"},
        "action": {},
        "chunk": {"mode": "none", "horizon": 1, "execute": 1, "on_exhausted": "hold", "seam": "replace"},
        "functions": {},
        "carry": {},
        # our algorithms end in a tanh; scale and offset are the runtime's
        "in_graph": {"normalize": False, "squash": True, "action_scale": False, "action_offset": False},
        "monitors": [],
        "commands": [],
        "weights": "f32",
        "provenance": {},
    }


def term(
    name: str,
    source: str,
    size: int,
    *,
    joints: Sequence[str] | None = None,
    offset: float | Sequence[float] = 0.0,
    scale: float | Sequence[float] = 1.0,
    params: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One observation term: `(raw − offset)·scale`, without history."""
    out: dict[str, Any] = {"name": name, "source": source, "size": size, "offset": offset, "scale": scale}
    if joints is not None:
        out["joints"] = list(joints)
    if params:
        out["params"] = dict(params)
    return out
