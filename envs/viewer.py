"""MuJoCo's interactive viewer: beside a running environment, or alone with one of the bundled scenes."""

from __future__ import annotations

import atexit
import contextlib
import sys
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.arrange_boxes import PandaArrangeBoxesEnv
from envs.panda import ARM_JOINTS, PandaEnv
from envs.scene import load_scene

SCENES = {  # name -> (file, the arm's home [rad])
    "pick_cube": (PandaEnv.scene_file, PandaEnv.home),
    "arrange_boxes": (PandaArrangeBoxesEnv.scene_file, PandaArrangeBoxesEnv.home),
    "panda": ("panda.xml", PandaEnv.home),
}
HOLD_STIFFNESS = np.array([600, 600, 600, 600, 250, 150, 50.0])  # [N m/rad] ours: yields to the mouse
HOLD_DAMPING = np.array([50, 50, 50, 50, 20, 15, 5.0])  # [N m s/rad] ours
_CLOSING = 5.0  # [s] for the window to go

_OPEN: weakref.WeakSet[PassiveViewerWrapper] = weakref.WeakSet()
_Wrapper = gymnasium.Wrapper[dict[str, Any], NDArray[np.float32], dict[str, Any], NDArray[np.float32]]


class NoDisplayError(RuntimeError):
    """No window can be opened on this machine."""


def _close_all() -> None:
    for wrapper in list(_OPEN):
        wrapper._close_window()


class PassiveViewerWrapper(_Wrapper):
    """Shows the environment in MuJoCo's viewer, brought up to date after each reset and step.

    The environment goes on when its window is closed; `is_running` tells. Pulling at bodies with the mouse
    moves them. Steps are as fast as without a window: the caller keeps the time.
    """

    def __init__(
        self,
        env: gymnasium.Env[dict[str, Any], NDArray[np.float32]],
        show_left_ui: bool = False,
        show_right_ui: bool = False,
    ) -> None:
        """show_left_ui, show_right_ui: MuJoCo's panels. Raises `NoDisplayError`."""
        super().__init__(env)
        base = env.unwrapped
        if not isinstance(base, PandaEnv):
            raise TypeError(f"PassiveViewerWrapper shows a PandaEnv, not {type(base).__name__}.")
        viewer = _viewer_module()
        before = set(threading.enumerate())
        self._viewer = viewer.launch_passive(
            base.model, base.data, show_left_ui=show_left_ui, show_right_ui=show_right_ui
        )
        self._threads = set(threading.enumerate()) - before
        _OPEN.add(self)
        # Registered after GLFW's own exit hook and so run before it: a window needs GLFW alive.
        atexit.unregister(_close_all)
        atexit.register(_close_all)

    @property
    def is_running(self) -> bool:
        """Whether the window is open."""
        return bool(self._viewer.is_running())

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        with self._viewer.lock():
            result = self.env.reset(seed=seed, options=options)
        self._viewer.sync()
        return result

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        with self._viewer.lock():
            result = self.env.step(action)
        self._viewer.sync()
        return result

    def close(self) -> None:
        """Close the window, then the environment. A second call does nothing."""
        self._close_window()
        super().close()

    def _close_window(self) -> None:
        self._viewer.close()
        for thread in self._threads:
            thread.join(_CLOSING)  # else it might draw on while the interpreter goes down

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # __init__ did not get as far as a window
            self._viewer.close()


def open_scene(name: str) -> None:
    """Open a scene of `SCENES` in MuJoCo's viewer, with physics running, until its window is closed.

    The arm is held at home. Raises ValueError on another name, `NoDisplayError`.
    """
    if name not in SCENES:
        raise ValueError(f"Unknown scene '{name}'. Choose from {', '.join(SCENES)}.")
    viewer = _viewer_module()
    file, home = SCENES[name]
    model = load_scene(file)
    data = mujoco.MjData(model)
    data.qpos[:ARM_JOINTS] = home

    def hold(model: mujoco.MjModel, data: mujoco.MjData) -> None:
        error, velocity = home - data.qpos[:ARM_JOINTS], data.qvel[:ARM_JOINTS]
        torque = HOLD_STIFFNESS * error - HOLD_DAMPING * velocity
        data.ctrl[:ARM_JOINTS] = torque + data.qfrc_bias[:ARM_JOINTS]

    mujoco.set_mjcb_control(hold)
    try:
        viewer.launch(model, data)
    finally:
        mujoco.set_mjcb_control(None)


def _viewer_module() -> ModuleType:
    """`mujoco.viewer`, once a window could be made; without one `launch_passive` would wait for ever."""
    if sys.platform == "darwin":
        import mujoco.viewer

        if mujoco.viewer._MJPYTHON is None:
            raise NoDisplayError(
                "On macOS windows need the main thread: start with `mjpython`, not `python`."
            )
        return mujoco.viewer
    with ThreadPoolExecutor(1) as thread:  # a thread where images are drawn without a display takes no window
        reason = thread.submit(_why_no_window).result()
    if reason:
        raise NoDisplayError(
            f"The viewer needs a display: {reason}. Run it on a desktop, over ssh with `ssh -X`, or to try "
            "it without a screen as `xvfb-run -a python …`. Or do without a window: an id without Viewer; "
            "for Gamepad and Keyboard ids pass use_viewer=False."
        )
    import mujoco.viewer

    return mujoco.viewer


def _why_no_window() -> str | None:
    """None if GLFW can make a window with OpenGL, else its own words."""
    try:
        import glfw
    except ImportError as error:
        return f"GLFW does not load ({error})"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GLFW's errors, which come as warnings: asked for below
        window = None
        if glfw.init():
            glfw.window_hint(glfw.VISIBLE, glfw.FALSE)
            window = glfw.create_window(16, 16, "", None, None)
            glfw.default_window_hints()
        if window:
            glfw.destroy_window(window)
            return None
        description: Any = glfw.get_error()[1]  # bytes, though its annotation says str
    return description.decode() if description else "GLFW gives no reason"
