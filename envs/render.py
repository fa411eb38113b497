"""Draws the scene's cameras off screen."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs import gl


class CameraRenderer:
    """Draws several cameras into one buffer, side by side, and reads it back once."""

    def __init__(self, model: mujoco.MjModel, cameras: dict[str, str], size: int) -> None:
        """cameras: observation name -> camera name in the scene. size: side of each image [px].

        Raises `envs.gl.HeadlessGLError` where nothing can draw.
        """
        self._context = gl.make_context(size * len(cameras), size)
        self._context.make_current()
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
        for camera, rect in zip(self._cameras.values(), self._rects, strict=True):
            mujoco.mjv_updateScene(
                self._model, data, self._option, self._perturb, camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
            )
            mujoco.mjr_render(rect, self._scene, self._mjr)
        mujoco.mjr_readPixels(self._pixels, None, self._whole, self._mjr)
        return {
            name: self._pixels[::-1, i * self._size : (i + 1) * self._size].copy()
            for i, name in enumerate(self._cameras)
        }

    def close(self) -> None:
        """Give the GL context back; the renderer cannot be used afterwards."""
        if self._context is not None:
            self._context.make_current()
            self._mjr.free()
            self._context.free()
            self._context = None
