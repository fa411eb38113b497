"""Which OpenGL can draw without a display, and its context.

MuJoCo's own choice defaults to GLFW, which needs a screen. Here EGL is taken where a device answers, else
OSMesa. `MUJOCO_GL` still overrides: `egl`, `osmesa` or `glfw`.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from typing import Any

_CHOICES = ("egl", "osmesa", "glfw")
_INSTALL = (
    "Install one of them, on Debian or Ubuntu `apt-get install libegl1 libgl1-mesa-dri libopengl0` for EGL "
    "or `apt-get install libosmesa6` for OSMesa, or do without images (image_obs=False)."
)


class HeadlessGLError(RuntimeError):
    """No way to draw without a display on this machine."""


@functools.cache
def find_backend() -> str | None:
    """`egl`, `osmesa` or `glfw`: what images are drawn with on this machine; None if nothing is there.

    Looks at libraries and counts EGL devices, creates no context.
    """
    asked = os.environ.get("MUJOCO_GL", "").strip().lower()
    if asked in _CHOICES:
        return asked
    if not sys.platform.startswith("linux"):
        return "glfw"
    if _egl_device_count() > 0:
        return "egl"
    if _loads("libOSMesa.so.8") or _loads("libOSMesa.so.6") or _loads("libOSMesa.so"):
        return "osmesa"
    return None


def prefer_headless() -> None:
    """Set `MUJOCO_GL` for a MuJoCo imported later, and Mesa's threads; the user's own choices stay."""
    # Images are small: drawing threads gain nothing on idle cores and double the time beside a busy learner.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    backend = find_backend()
    if backend is not None and backend != "glfw":
        os.environ.setdefault("MUJOCO_GL", backend)


def require_headless_gl() -> str:
    """The backend's name, once a context could be made with it.

    Raises `HeadlessGLError`, which says what to install. Call it before any long work that will need images.
    """
    make_context(8, 8).free()
    return str(find_backend())


def make_context(width: int, height: int) -> Any:
    """A GL context (methods `make_current`, `free`) that can draw `width` x `height` off screen.

    Raises `HeadlessGLError`.
    """
    backend = find_backend()
    if backend is None:
        message = "Images need OpenGL, but neither EGL with a device nor OSMesa is here."
        raise HeadlessGLError(f"{message} {_INSTALL}")
    try:
        if backend == "egl":
            from mujoco.egl import GLContext
        elif backend == "osmesa":
            from mujoco.osmesa import GLContext
        else:
            from mujoco.glfw import GLContext
        return GLContext(width, height)
    except Exception as error:  # PyOpenGL and the drivers raise a dozen unrelated types here
        message = f"OpenGL through '{backend}' is installed but does not work: {error}. {_INSTALL}"
        raise HeadlessGLError(message) from error


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _egl_device_count() -> int:
    """How many devices EGL can draw on (a software one counts); 0 without EGL or desktop OpenGL."""
    if not _loads("libOpenGL.so.0"):  # PyOpenGL's EGL platform draws through it
        return 0
    try:
        egl = ctypes.CDLL("libEGL.so.1")
        egl.eglGetProcAddress.restype = ctypes.c_void_p
        address = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    except (OSError, AttributeError):
        return 0
    if not address:
        return 0
    # EGLBoolean eglQueryDevicesEXT(EGLint max_devices, EGLDeviceEXT *devices, EGLint *num_devices)
    signature = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))
    count = ctypes.c_int(0)
    return count.value if signature(address)(0, None, ctypes.byref(count)) else 0
