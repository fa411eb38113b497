"""A step's frames as JPEG, for all who look at the page; drawn here where the run sees none."""

from __future__ import annotations

import importlib
import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hil_rllib.devices.browser.link import Link

QUALITY = 85  # of JPEG: a frame of 128 px takes some 5 KB
DRAWN_PX = 256  # side of frames drawn for the page alone


class Pictures:
    """Arrays of a step → one binary message: the stamp (float64), the JPEGs' lengths (uint32), the JPEGs.

    Little endian. Call `message` in one thread only: an OpenGL context belongs to the one that made it.

    arrays: shapes and dtypes of what lies in the link's slots: a frame per camera, or the simulator's state.
    draw: module and name of the env's class, one of `envs`, where its state has to be drawn.
    """

    def __init__(self, arrays: list[tuple[list[int], str]], draw: list[str] | None) -> None:
        self._like = [(tuple(shape), dtype) for shape, dtype in arrays]
        self._draw = draw
        self._base: Any = None
        self._renderer: Any = None

    def fetch(self, link: Link, slot: int) -> list[NDArray[Any]]:
        """Copies of a slot's arrays; from any thread."""
        return link.get(slot, self._like)

    def message(self, arrays: list[NDArray[Any]], stamp: float) -> bytes:
        """The binary message of a step. stamp: [s] of the server's clock."""
        frames = arrays if self._draw is None else self._drawn(arrays[0])
        jpegs = [_jpeg(frame) for frame in frames]
        lengths = [len(jpeg) for jpeg in jpegs]
        return struct.pack(f"<d{len(jpegs)}I", stamp, *lengths) + b"".join(jpegs)

    def _drawn(self, state: NDArray[np.float64]) -> list[NDArray[np.uint8]]:
        if self._renderer is None:
            from envs.panda import CAMERAS
            from envs.render import CameraRenderer

            assert self._draw is not None
            module, name = self._draw
            self._base = getattr(importlib.import_module(module), name)()
            self._renderer = CameraRenderer(self._base.model, CAMERAS, DRAWN_PX)
        self._base.set_state(state)
        return list(self._renderer.render(self._base.data).values())


def _jpeg(frame: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
