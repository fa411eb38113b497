"""Draws the scene's cameras off screen."""

from __future__ import annotations

import atexit
import contextlib
import weakref
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs import gl

_OPEN: weakref.WeakSet[CameraRenderer] = weakref.WeakSet()


def _close_all() -> None:
    for renderer in list(_OPEN):
        renderer.close()


class CameraRenderer:
    """Draws several cameras into one buffer, side by side, and reads it back once.

    Use it in the thread that made it: an OpenGL context belongs to one thread at a time.
    """

    def __init__(self, model: mujoco.MjModel, cameras: dict[str, str], size: int) -> None:
        """cameras: observation name -> camera name in the scene. size: side of each image [px].

        Raises `envs.gl.HeadlessGLError` where nothing can draw.
        """
        self._context: Any = gl.make_context(size * len(cameras), size)
        self._context.make_current()
        _OPEN.add(self)
        # Registered after MuJoCo's own exit hook and so run before it: freeing a context needs EGL alive.
        atexit.unregister(_close_all)
        atexit.register(_close_all)
        model.vis.global_.offwidth, model.vis.global_.offheight = size * len(cameras), size
        self._model = model
        self._mjr = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._mjr)
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + 16)
        self._option = mujoco.MjvOption()
        self._perturb = mujoco.MjvPerturb()
        self._size = size
        self._cameras: dict[str, mujoco.MjvCamera] = {}
        for name, camera in cameras.items():
            self._cameras[name] = mujoco.MjvCamera()
            self._cameras[name].type = mujoco.mjtCamera.mjCAMERA_FIXED
            self._cameras[name].fixedcamid = model.camera(camera).id
        self._rects = [mujoco.MjrRect(i * size, 0, size, size) for i in range(len(cameras))]
        self._whole = mujoco.MjrRect(0, 0, size * len(cameras), size)
        self._pixels = np.empty((size, size * len(cameras), 3), np.uint8)

    def render(self, data: mujoco.MjData) -> dict[str, NDArray[np.uint8]]:
        """name -> uint8 (size, size, 3), freshly allocated, top row first."""
        self._context.make_current()
        scene = self._scene
        for camera, rect in zip(self._cameras.values(), self._rects, strict=True):
            mujoco.mjv_updateScene(
                self._model, data, self._option, self._perturb, camera, mujoco.mjtCatBit.mjCAT_ALL, scene
            )
            for geom in scene.geoms[: scene.ngeom]:
                if geom.type == mujoco.mjtGeom.mjGEOM_PLANE:
                    # Decoration casts no shadow: nothing lies below the floor, and drawing it into the shadow
                    # maps takes a third of the time.
                    geom.category = mujoco.mjtCatBit.mjCAT_DECOR
            mujoco.mjr_render(rect, scene, self._mjr)
        mujoco.mjr_readPixels(self._pixels, None, self._whole, self._mjr)
        return {
            name: self._pixels[::-1, i * self._size : (i + 1) * self._size].copy()
            for i, name in enumerate(self._cameras)
        }

    def close(self) -> None:
        """Give the GL context back; the renderer cannot be used afterwards. A second call does nothing."""
        context, self._context = self._context, None
        if context is not None:
            context.make_current()  # else the buffers of whichever context is current would be freed
            self._mjr.free()
            context.free()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # __init__ did not get as far as a context
            self.close()
