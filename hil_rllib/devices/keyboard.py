"""The keyboard, wherever its focus is, through pynput.

pynput's thread tells of presses and releases; `read` only looks at what is held. A release that never
arrives (screen locked, another program grabs the keyboard) would keep the arm moving: on X11 a watcher asks
the server which keys are really down.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium

from hil_rllib.contract import Command
from hil_rllib.devices.base import DeviceUnavailable, TeleopDevice
from hil_rllib.devices.controls import CONTROLS
from hil_rllib.devices.held import Held
from hil_rllib.devices.mode import InterventionMode

logger = logging.getLogger(__name__)

BOUNCE_S = 0.04  # [s] X11 repeats a held key as release and press, 1 ms apart, more when busy; ours
WATCH_S = 0.25  # [s] between looks for releases that got lost; ours
OPEN_S = 5.0  # [s] for pynput's thread to come up
KEYS = {control.key: control.name for control in CONTROLS if control.key}
LETTER_CODES = {"r": [27], "l": [46]}  # X11 keycodes (evdev), for a layout that has no Latin letters
LAST_LATIN = 0x3FF  # X11 keysym; X11/keysymdef.h, Latin-1 to Latin-4
NO_DISPLAY = (
    "The keyboard is read through the X server, and {reason}. Run on a desktop, with DISPLAY set "
    "(over ssh: ssh -X), or choose another device: browser, gamepad, scripted, none."
)


class KeyboardDevice(TeleopDevice):
    """A motion or gripper key takes over while held; Space takes over until the next Space."""

    one_per_machine: ClassVar[bool] = True

    def __init__(self) -> None:
        self._held = Held(motion_intervenes=True, bounce_s=BOUNCE_S)
        self._listener: Any = None  # pynput.keyboard.Listener
        self._watcher: _ReleaseWatcher | None = None

    @classmethod
    def missing(cls) -> str | None:
        """Why no key can be read here, and what to do."""
        if importlib.util.find_spec("pynput") is None:
            return (
                "The keyboard needs pynput: pip install pynput, or choose browser, gamepad, scripted, none."
            )
        if sys.platform != "linux":
            return None
        if not os.environ.get("DISPLAY"):
            return NO_DISPLAY.format(reason="DISPLAY is not set")
        from Xlib import display, error

        try:
            server = display.Display()
        except (error.DisplayError, error.XError, OSError, ValueError) as failure:
            reason = f"none answers at DISPLAY={os.environ['DISPLAY']} ({failure})"
            return NO_DISPLAY.format(reason=reason)
        with contextlib.closing(server):
            if not server.has_extension("RECORD"):
                return NO_DISPLAY.format(reason="this one lacks its RECORD extension")
        return None

    def intervention_mode(self, kind: str) -> InterventionMode:
        """`toggle` is what `hold` is: Space toggles in both, a motion key takes over while held in both."""
        return super().intervention_mode("hold" if kind == "toggle" else kind)

    def start(self, env: gymnasium.Env) -> None:
        """Listen to the keyboard. Raises `DeviceUnavailable` without a display or the right to listen."""
        if reason := self.missing():
            raise DeviceUnavailable(reason)
        if os.environ.get("XDG_SESSION_TYPE") == "wayland":
            logger.warning(
                "This is a Wayland session: keys arrive only while an X11 window has the focus. If they do "
                "not, log in with an X11 session, or use a gamepad."
            )
        from pynput import keyboard

        self.close()
        self._held.clear()
        special = {getattr(keyboard.Key, key): name for key, name in KEYS.items() if len(key) > 1}
        foreign = _foreign_letters() if sys.platform == "linux" else {}

        def control_of(key: Any) -> str | None:
            char = getattr(key, "char", None)  # with Shift held, as for z, 'r' comes as 'R'
            if char and (name := KEYS.get(char.lower())):
                return name
            return special.get(key) or foreign.get(getattr(key, "vk", 0))

        def on_press(key: Any) -> None:
            if (name := control_of(key)) is not None:
                self._held.press(name)

        def on_release(key: Any) -> None:
            if (name := control_of(key)) is not None:
                self._held.release(name)

        self._listener = keyboard.Listener(on_press=on_press, on_release=on_release)
        self._listener.run = _quietly(self._listener.run)
        self._listener.start()
        self._wait_until_ready()
        if not getattr(self._listener, "IS_TRUSTED", True):  # macOS
            self.close()
            raise DeviceUnavailable(
                "macOS keeps the keyboard from this program. In System Settings → Privacy & Security "
                "switch its terminal on under Accessibility and under Input Monitoring."
            )
        if sys.platform == "linux":
            self._watcher = _ReleaseWatcher(self._held)
            self._watcher.start()

    def read(self) -> Command:
        """What the held keys command. Raises `DeviceUnavailable` when the display is gone."""
        if self._listener is None or not self._listener.is_alive():
            raise DeviceUnavailable("The keyboard is no longer read: the display is gone.")
        return self._held.read()

    def reset(self) -> None:
        """An unread Enter, Esc or R belonged to the last episode. What is held or toggled stays."""
        self._held.forget()

    def close(self) -> None:
        """Stop listening."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher = None
        if self._listener is not None:
            self._listener.stop()
            self._listener = None

    def _wait_until_ready(self) -> None:
        """Until pynput listens; its own `wait` would block for ever where its thread fails to."""
        waiting = threading.Thread(target=self._listener.wait, daemon=True)
        waiting.start()
        waiting.join(OPEN_S)
        if waiting.is_alive() or not self._listener.is_alive():
            self.close()
            raise DeviceUnavailable("pynput could not listen to the keyboard. " + (self.missing() or ""))


def _quietly(run: Callable[[], None]) -> Callable[[], None]:
    """Without the traceback when the display goes away: that the thread has ended is what `read` reports."""

    def quiet() -> None:
        try:
            run()
        except Exception as error:
            logger.debug("pynput ended: %s", error, exc_info=True)

    return quiet


def _keycodes(server: Any) -> dict[str, list[int]]:
    """The X11 keycodes of each control's key, by the control's name. server: Xlib.display.Display."""
    from pynput.keyboard import Key

    codes: dict[str, list[int]] = {}
    for key, name in KEYS.items():
        keysym = ord(key) if len(key) == 1 else getattr(Key, key).value.vk
        found = [code for code, _ in server.keysym_to_keycodes(keysym)]
        codes[name] = found or LETTER_CODES.get(key, [])
    return codes


def _foreign_letters() -> dict[int, str]:
    """What R's and L's keys type, with Shift and without, on a layout that is not Latin: keysym → control."""
    from Xlib import display, error

    letters: dict[int, str] = {}
    # When the server is gone, pynput fails as well, and that is what `start` reports.
    with (
        contextlib.suppress(error.DisplayError, error.ConnectionClosedError, OSError),
        contextlib.closing(display.Display()) as server,
    ):
        codes = _keycodes(server)
        controls = {code: KEYS[key] for key in LETTER_CODES for code in codes[KEYS[key]]}
        for code, shift in itertools.product(controls, (0, 1)):
            keysym = server.keycode_to_keysym(code, shift)
            typed_by = {typing for typing, _ in server.keysym_to_keycodes(keysym)}
            if keysym > LAST_LATIN and typed_by == {code}:  # by no other key, which would end episodes too
                letters[keysym] = controls[code]
    return letters


class _ReleaseWatcher(threading.Thread):
    """Releases held controls whose keys the X server says are up. Its own connection, its own thread."""

    def __init__(self, held: Held) -> None:
        super().__init__(name="keyboard-release-watcher", daemon=True)
        self._held = held
        self._stopping = threading.Event()

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        from Xlib import display, error

        # When the server goes, pynput's thread goes too, and that is what `read` reports.
        with (
            contextlib.suppress(error.DisplayError, error.ConnectionClosedError, OSError),
            contextlib.closing(display.Display()) as server,
        ):
            codes = _keycodes(server)
            while not self._stopping.wait(WATCH_S):
                before = self._held.down()
                if before:
                    bits = server.query_keymap()
                    for name in before:
                        if not any(bits[code // 8] >> code % 8 & 1 for code in codes[name]):
                            self._held.release(name)
