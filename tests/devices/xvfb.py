"""A real X server without a screen, and a person's fingers on its keyboard (XTEST)."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


class Xvfb:
    """Starts on a free display of its own choosing; `name` is its DISPLAY."""

    def __init__(self) -> None:
        if shutil.which("Xvfb") is None:
            pytest.skip("Xvfb is not installed; apt-get install xvfb")
        read, write = os.pipe()
        self._process = subprocess.Popen(
            ["Xvfb", "-displayfd", str(write), "-screen", "0", "64x64x24", "-nolisten", "tcp", "-noreset"],
            pass_fds=[write],
            stderr=subprocess.DEVNULL,
        )
        os.close(write)
        with os.fdopen(read) as announced:  # it writes once it accepts connections
            self.name = f":{announced.readline().strip()}"

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


class Fingers:
    """Presses keys by their X11 name, through the server's own input queue."""

    def __init__(self, display_name: str) -> None:
        from Xlib import display

        self._display = display.Display(display_name)

    def key(self, keysym_name: str, down: bool) -> None:
        from Xlib import XK, X
        from Xlib.ext import xtest

        code = self._display.keysym_to_keycode(XK.string_to_keysym(keysym_name))
        assert code, keysym_name
        xtest.fake_input(self._display, X.KeyPress if down else X.KeyRelease, code)
        self._display.sync()

    def close(self) -> None:
        self._display.close()
