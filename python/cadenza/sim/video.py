"""Films of simulations, without a screen: EGL where there is a driver for it, else OSMesa.

Which of the two works is found out in a process of its own, because a library that was loaded once cannot be
replaced. `MUJOCO_GL`, if set to one of them, is obeyed.
"""

# MuJoCo comes without type stubs
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path

import mujoco
import numpy as np

BACKENDS = {"egl": "libegl1 libgl1", "osmesa": "libosmesa6 libgl1"}
"""Ways to draw without a screen, and the Debian packages that they need."""

_PROBE = (
    "import sys, importlib; importlib.import_module('mujoco.' + sys.argv[1]).GLContext(8, 8).make_current()"
)


class VideoError(ValueError):
    """No film can be made; the text says what to install."""


@functools.cache
def find_backend() -> str:
    """The first way to draw that works here.

    Raises:
        VideoError: none does; the text names what was tried, and the Debian packages.
    """
    asked = os.environ.get("MUJOCO_GL", "").lower()
    tried = {}
    for name in [asked] if asked in BACKENDS else BACKENDS:
        environment = os.environ | {"MUJOCO_GL": name, "PYOPENGL_PLATFORM": name}
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, name], capture_output=True, text=True, timeout=60, env=environment
        )
        if done.returncode == 0:
            return name
        tried[name] = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    reasons = "; ".join(f"{name}: {why}" for name, why in tried.items())
    packages = " or ".join(f"apt install {BACKENDS[name]}" for name in tried)
    raise VideoError(f"cannot draw without a screen ({reasons}); {packages}")


class Video:
    """Draws a model's states into an MP4 file. Use it as a context manager.

    Args:
        model: the model; drawn from its camera `view`, or from a free camera when it has none.
        path: the file; it appears when the film is closed.
        fps: frames per second.
        width: pixels, even.
        height: pixels, even.

    Raises:
        VideoError: nothing here can draw without a screen.
    """

    def __init__(
        self, model: mujoco.MjModel, path: str | Path, fps: int, *, width: int = 640, height: int = 480
    ) -> None:
        import imageio_ffmpeg

        backend = find_backend()
        os.environ.setdefault("PYOPENGL_PLATFORM", backend)
        self.path = Path(path)
        self.frames = 0
        self._model, self._data = model, mujoco.MjData(model)
        self._temporary = self.path.with_name(f".{self.path.stem}.{os.getpid()}.mp4")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        width, height = (
            min(width, int(model.vis.global_.offwidth)),
            min(height, int(model.vis.global_.offheight)),
        )
        self._context = importlib.import_module(f"mujoco.{backend}").GLContext(width, height)
        self._context.make_current()
        self._drawer = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._drawer)
        self._view = mujoco.MjrRect(0, 0, width, height)
        self._scene = mujoco.MjvScene(model, maxgeom=2000)
        self._option, self._camera = mujoco.MjvOption(), mujoco.MjvCamera()
        fixed = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "view")
        if fixed >= 0:
            self._camera.type, self._camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, fixed
        else:
            mujoco.mjv_defaultFreeCamera(model, self._camera)
        self._pixels = np.zeros((height, width, 3), np.uint8)
        self._writer = imageio_ffmpeg.write_frames(
            str(self._temporary), (width, height), fps=fps, macro_block_size=2, ffmpeg_log_level="error"
        )
        self._writer.send(None)

    def add(self, qpos: np.ndarray) -> None:
        """Draw the model at positions `qpos` [nq]."""
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        self._context.make_current()
        mujoco.mjv_updateScene(
            self._model, self._data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        mujoco.mjr_render(self._view, self._scene, self._drawer)
        mujoco.mjr_readPixels(self._pixels, None, self._view, self._drawer)
        self._writer.send(np.ascontiguousarray(self._pixels[::-1]))
        self.frames += 1

    def close(self) -> None:
        """End the film; without a frame there is no file."""
        self._writer.close()
        self._drawer.free()
        self._context.free()
        if self.frames:
            self._temporary.replace(self.path)
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
