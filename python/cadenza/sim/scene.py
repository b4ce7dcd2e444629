"""What stands around the robot in simulation: free bodies that a task brings along, and the device reports.

A scene is MJCF text. Its world's bodies are attached to the robot's model; those with a free joint are the
scene's objects, at most 16, by the names of their bodies. A bundle carries its scene as `x-scene.xml`, so
that `cadenza run … --device sim` shows the policy what it was trained with.
"""

# MuJoCo comes without type stubs
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import mujoco

ENTRY = "x-scene.xml"
"""Name of the bundle's entry."""

_PREFIX = "scene/"
"""Keeps the scene's joints and shapes apart from the robot's; its bodies keep their names."""


def scene_objects(scene: str | None) -> tuple[str, ...]:
    """Names of a scene's objects, in its order. ValueError when it is no MJCF."""
    return () if scene is None else tuple(body.name for body in _spec(scene).worldbody.bodies if _free(body))


def add_scene(spec: mujoco.MjSpec, scene: str) -> None:
    """Attach a scene's bodies to a model. ValueError when it is no MJCF, or a name is taken."""
    child = _spec(scene)
    names = [body.name for body in child.worldbody.bodies]
    for name in names:
        if not name:
            raise ValueError("scene: a body that stands in the world has no name")
        if spec.body(name) is not None:
            raise ValueError(f"scene: the robot has a body {name!r} already")
    spec.attach(child, frame=spec.worldbody.add_frame(), prefix=_PREFIX)
    for name in names:
        spec.body(_PREFIX + name).name = name


def _spec(scene: str) -> mujoco.MjSpec:
    try:
        return mujoco.MjSpec.from_string(scene)
    except ValueError as error:
        raise ValueError(f"scene: {error}") from error


def _free(body: mujoco.MjsBody) -> bool:
    return any(int(joint.type) == int(mujoco.mjtJoint.mjJNT_FREE) for joint in body.joints)
