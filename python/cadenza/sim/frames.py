"""Chains of named frames, read from the MuJoCo model once and written to the manifest (DESIGN §7, Frames).

A frame is the product of its links' transforms, from the world outwards. A link is a fixed transform followed
by the motion of at most one joint about (or along) an axis through the link's own origin, so a joint with an
anchor off its body's origin is split into two links.
"""

# MuJoCo comes without type stubs
# pyright: reportAttributeAccessIssue=false

from typing import Any

import mujoco
import numpy as np

_IDENTITY = (1.0, 0.0, 0.0, 0.0)


def frame_chain(model: mujoco.MjModel, joints: tuple[str, ...], name: str, site: str) -> dict[str, Any]:
    """The manifest's `Frame` for a site.

    Args:
        model: compiled model.
        joints: the robot's joints; only these may move the frame.
        name: name of the frame.
        site: name of the site.

    Raises:
        ValueError: no such site, or a joint on the way that the robot does not have or that is a ball joint.
    """
    site_id = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, site)
    if site_id < 0:
        raise ValueError(f"frame {name!r}: the model has no site {site!r}")
    bodies, body = [], int(model.site_bodyid[site_id])
    while body != 0:
        bodies.append(body)
        body = int(model.body_parentid[body])

    links: list[dict[str, Any]] = []
    floating = False
    fixed = _Fixed()
    for body in reversed(bodies):
        fixed.append(model.body_pos[body], model.body_quat[body])
        first = int(model.body_jntadr[body])
        for joint in range(first, first + int(model.body_jntnum[body])):
            kind, label = int(model.jnt_type[joint]), model.joint(joint).name
            if kind == int(mujoco.mjtJoint.mjJNT_FREE):
                # the base's pose is measured, not computed: the chain starts there
                floating, fixed = True, _Fixed()
                continue
            if label not in joints or kind == int(mujoco.mjtJoint.mjJNT_BALL):
                raise ValueError(
                    f"frame {name!r} hangs on joint {label!r}, which is no hinge or slide of the robot"
                )
            anchor = model.jnt_pos[joint]
            fixed.append(anchor, _IDENTITY)
            hinge = kind == int(mujoco.mjtJoint.mjJNT_HINGE)
            links.append(
                fixed.link(
                    label,
                    model.jnt_axis[joint],
                    "hinge" if hinge else "slide",
                    model.qpos0[model.jnt_qposadr[joint]],
                )
            )
            fixed = _Fixed()
            fixed.append(-anchor, _IDENTITY)
    fixed.append(model.site_pos[site_id], model.site_quat[site_id])
    links.append(fixed.link(None, (0.0, 0.0, 1.0), "hinge", 0.0))
    return {"name": name, "floating": floating, "chain": links}


class _Fixed:
    """A fixed transform under construction."""

    def __init__(self) -> None:
        self.pos, self.quat = np.zeros(3), np.array(_IDENTITY)

    def append(self, pos: Any, quat: Any) -> None:
        moved = np.zeros(3)
        mujoco.mju_rotVecQuat(moved, np.asarray(pos, float), self.quat)
        self.pos = self.pos + moved
        turned = np.zeros(4)
        mujoco.mju_mulQuat(turned, self.quat, np.asarray(quat, float))
        self.quat = turned

    def link(self, joint: str | None, axis: Any, kind: str, zero: float) -> dict[str, Any]:
        return {
            "pos": [float(x) for x in self.pos],
            "quat": [float(x) for x in self.quat],
            "joint": joint,
            "axis": [float(x) for x in axis],
            "kind": kind,
            "zero": float(zero),
        }
