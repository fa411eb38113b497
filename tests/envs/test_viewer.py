"""MuJoCo's viewer in a real X server: it shows, keeps out of the physics, and closes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import envs
from envs.viewer import SCENES, open_scene

PATIENCE = 60.0  # [s] for a window on a busy machine
VIEWER_SCRIPT = """
import sys, time
import gymnasium, numpy as np
import envs

task, image_obs = sys.argv[1], sys.argv[2] == "images"
kwargs = {"image_obs": image_obs, "render_quality": "fast"}
shown = gymnasium.make(f"hil/{task}Viewer-v0", **kwargs)
plain = gymnasium.make(f"hil/{task}Base-v0", **kwargs)
assert shown.get_wrapper_attr("is_running")
actions = np.random.default_rng(0).uniform(-0.02, 0.02, (20, 7))
for env in (shown, plain):
    env.reset(seed=0)
for action in actions:
    (seen, *_), (expected, *_) = (env.step(action) for env in (shown, plain))
np.testing.assert_array_equal(shown.unwrapped.get_state(), plain.unwrapped.get_state())
if image_obs:
    np.testing.assert_array_equal(seen["pixels"]["front"], expected["pixels"]["front"])
print("stepped", flush=True)
if sys.argv[3] == "person":
    while shown.get_wrapper_attr("is_running"):
        time.sleep(0.01)
    shown.step(actions[0])  # goes on without its window
else:
    sys.stdin.readline()
if sys.argv[3] != "nobody":
    shown.close()
    assert not shown.get_wrapper_attr("is_running")
    shown.get_wrapper_attr("close")()
print("closed", flush=True)
"""


def start(screen: str, code: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        cwd=Path(envs.__file__).parents[1],
        env={**os.environ, "DISPLAY": screen},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Screen:
    """What a person sees and clicks on the display."""

    def __init__(self, name: str) -> None:
        self._display = pytest.importorskip("Xlib.display").Display(name)
        self._root = self._display.screen().root

    def windows(self) -> list[Any]:
        return [w for w in self._root.query_tree().children if "MuJoCo" in (w.get_wm_name() or "")]

    def wait_until_painted(self) -> Any:
        """The one viewer window, once it shows a scene: many colours."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for window in self.windows():
                if window.get_attributes().map_state and len(np.unique(self._pixels(window))) > 200:
                    return window
            time.sleep(0.1)
        raise AssertionError(f"no painted viewer in {PATIENCE:.0f} s; windows: {self.windows()}")

    def click_close(self, window: Any) -> None:
        """What a window manager sends when the x is clicked."""
        from Xlib.protocol.event import ClientMessage

        data = (32, [self._display.intern_atom("WM_DELETE_WINDOW"), 0, 0, 0, 0])
        protocols = self._display.intern_atom("WM_PROTOCOLS")
        window.send_event(ClientMessage(window=window, client_type=protocols, data=data))
        self._display.sync()

    def _pixels(self, window: Any) -> np.ndarray:
        size = window.get_geometry()
        image = window.get_image(0, 0, size.width, size.height, 2, 0xFFFFFFFF)  # 2: ZPixmap
        return np.frombuffer(image.data, np.uint32)


@pytest.mark.parametrize(
    ("task", "observations", "who_closes"),
    [
        ("PandaPickCube", "images", "person"),
        ("PandaArrangeBoxes", "state", "program"),
        ("PandaPickCube", "state", "nobody"),
    ],
)
def test_viewer_shows_the_environment_changes_nothing_and_closes(
    screen: str, task: str, observations: str, who_closes: str
) -> None:
    process = start(screen, VIEWER_SCRIPT, task, observations, who_closes)
    eyes = Screen(screen)
    window = eyes.wait_until_painted()
    if who_closes == "person":
        assert process.stdout is not None
        assert process.stdout.readline() == "stepped\n"
        eyes.click_close(window)
    out, err = process.communicate("go on\n", timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert out.endswith("closed\n")
    assert eyes.windows() == []


@pytest.mark.parametrize("name", SCENES)
def test_scene_opens_and_ends_with_its_window(screen: str, name: str) -> None:
    process = start(screen, f"from envs.viewer import open_scene; open_scene({name!r})")
    eyes = Screen(screen)
    eyes.click_close(eyes.wait_until_painted())
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert eyes.windows() == []


@pytest.mark.parametrize("display", ["", ":987"])
def test_without_a_display_the_error_says_so_and_what_to_do(display: str) -> None:
    code = "import gymnasium, envs\ngymnasium.make('hil/PandaPickCubeViewer-v0')"
    process = start(display, code)
    _, err = process.communicate(timeout=PATIENCE)  # MuJoCo's own call would wait for ever
    assert "NoDisplayError: The viewer needs a display: X11: " in err
    assert "xvfb-run" in err
    assert "an id without Viewer" in err


def test_unknown_scene_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"Unknown scene 'kitchen'\. Choose from pick_cube, arrange_boxes, panda"
    ):
        open_scene("kitchen")
