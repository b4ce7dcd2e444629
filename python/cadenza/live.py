"""A run while it lasts: MuJoCo's viewer, and a stream for Foxglove.

Both are fed from snapshots of the handle, 30 times a second, by the thread that waits for the run anyway. The
control thread knows nothing of them.
"""

# MuJoCo and foxglove come without type stubs
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from cadenza.robot import Robot
    from cadenza.runtime import Handle, Report, Snapshot

RATE = 30.0
"""Snapshots shown in a second, Hz."""
DEFAULT_ADDRESS = "127.0.0.1:8765"

_NUMBER = {"type": "number"}
LOOP_SCHEMA = {
    "type": "object",
    "title": "cadenza.Loop",
    "properties": {
        "tick": {"type": "integer"},
        "level": {"type": "string"},
        "phase": {"type": "string"},
        "authority": _NUMBER,
        "fault": {"type": "string"},
    },
}
JOINT_SCHEMA = {
    "type": "object",
    "title": "cadenza.Joint",
    "properties": {"q": _NUMBER, "dq": _NUMBER, "command": _NUMBER, "error": _NUMBER},
}


class View(Protocol):
    """Something that shows a run."""

    def show(self, snapshot: Snapshot) -> bool:
        """Shows the newest tick; False when the user has closed it."""
        ...


def address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `PORT`.

    Raises:
        ValueError: something else.
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError(f"--live {text}: HOST:PORT or PORT wanted, such as {DEFAULT_ADDRESS}")
    return host or "127.0.0.1", int(port)


class FoxgloveStream:
    """A Foxglove WebSocket server with `/cadenza/loop` and one topic for each joint (extra `viz`).

    Args:
        joints: names in robot order.
        where: `HOST:PORT` or `PORT`; port 0 takes a free one.

    Raises:
        ValueError: an address that is none, or is taken.
        ModuleNotFoundError: without foxglove; the text says how to get it.
    """

    def __init__(self, joints: Sequence[str], where: str = DEFAULT_ADDRESS) -> None:
        host, port = address(where)
        try:
            import foxglove
        except ModuleNotFoundError:
            message = "--live needs foxglove: pip install 'cadenza[viz]'"
            raise ModuleNotFoundError(message, name="foxglove") from None
        # channels close with their context
        self._context = context = foxglove.Context()
        self.joints = tuple(joints)
        self._loop = foxglove.Channel("/cadenza/loop", schema=LOOP_SCHEMA, context=context)
        self._joints = [
            foxglove.Channel(f"/cadenza/joint/{name}", schema=JOINT_SCHEMA, context=context)
            for name in joints
        ]
        try:
            self._server = foxglove.start_server(name="cadenza", host=host, port=port, context=context)
        except (RuntimeError, OSError) as error:
            raise ValueError(f"--live {where}: {error}") from None
        self.host, self.port = host, self._server.port

    def __enter__(self) -> FoxgloveStream:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def show(self, snapshot: Snapshot) -> bool:
        """Sends the newest tick."""
        self._loop.log(loop_message(snapshot))
        for channel, message in zip(self._joints, joint_messages(snapshot), strict=True):
            channel.log(message)
        return True


def loop_message(snapshot: Snapshot) -> dict[str, Any]:
    """What stands in `/cadenza/loop`."""
    return {
        "tick": snapshot.tick,
        "level": snapshot.level,
        "phase": snapshot.phase,
        "authority": snapshot.authority,
        "fault": snapshot.fault or "",
    }


def joint_messages(snapshot: Snapshot) -> list[dict[str, float]]:
    """What stands in each joint's topic, robot order: rad and rad/s; the error is command − measured."""
    columns = (snapshot.q, snapshot.dq, snapshot.command)
    return [
        {"q": float(q), "dq": float(dq), "command": float(sent), "error": float(sent - q)}
        for q, dq, sent in zip(*columns, strict=True)
    ]


class PoseMirror:
    """A model and data of its own that take the pose of snapshots: what a viewer may look at and touch."""

    def __init__(self, robot: Robot) -> None:
        import mujoco

        from cadenza.sim.motor import joint_indices

        self.model = robot.model()
        self.data = mujoco.MjData(self.model)
        self._qpos, self._qvel, _ = joint_indices(self.model, robot.joint_names)
        free = np.flatnonzero(self.model.jnt_type == int(mujoco.mjtJoint.mjJNT_FREE))
        self._base = int(self.model.jnt_qposadr[free[0]]) if len(free) else None
        self.data.qpos[:] = robot.home_qpos(self.model)
        mujoco.mj_forward(self.model, self.data)

    def feed(self, snapshot: Snapshot) -> None:
        """Takes the pose of the newest tick."""
        import mujoco

        self.data.qpos[self._qpos] = snapshot.q
        self.data.qvel[self._qvel] = snapshot.dq
        if self._base is not None and snapshot.base is not None:
            self.data.qpos[self._base : self._base + 7] = snapshot.base
        mujoco.mj_forward(self.model, self.data)


class Viewer:
    """MuJoCo's passive viewer on a :class:`PoseMirror`; closing its window stops the run softly.

    Raises:
        ValueError: there is no display.
    """

    def __init__(self, robot: Robot) -> None:
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise ValueError(
                "--viewer needs a display: DISPLAY and WAYLAND_DISPLAY are not set (--live streams instead)"
            )
        import mujoco.viewer

        self._mirror = PoseMirror(robot)
        self._window: Any = mujoco.viewer.launch_passive(self._mirror.model, self._mirror.data)

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, *_: object) -> None:
        self._window.close()

    def show(self, snapshot: Snapshot) -> bool:
        """Draws the newest tick."""
        if not self._window.is_running():
            return False
        with self._window.lock():
            self._mirror.feed(snapshot)
        self._window.sync()
        return True


def watch(handle: Handle, views: Sequence[View], pause: Callable[[float], None] = time.sleep) -> Report:
    """Shows a run until it ends, and returns its report.

    A fault that has damped the motors ends the run, as does closing a view. Ctrl-C is a soft stop, a second
    one damps at once.

    Args:
        handle: the run.
        views: what shows it.
        pause: waits between two snapshots, s.
    """
    stopping = False
    while True:
        try:
            snapshot = handle.snapshot()
            closed = not all([view.show(snapshot) for view in views])
            faulted = snapshot.fault is not None and snapshot.level in ("damp", "off")
            if (closed or faulted) and not stopping:
                stopping = True
                handle.stop()
            pause(1.0 / RATE)
            try:
                return handle.wait(0.0)
            except TimeoutError:
                continue
        except KeyboardInterrupt:
            if stopping:
                handle.estop()
            else:
                handle.stop()
            stopping = True
