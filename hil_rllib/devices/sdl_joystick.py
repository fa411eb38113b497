"""One joystick through pygame (SDL), without a window and without the rest of pygame."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from hil_rllib.devices.base import DeviceUnavailable
from hil_rllib.devices.gamepad_maps import RawState

_HINTS = {
    "SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS": "1",  # there is no window that could have the focus
    "SDL_NO_SIGNAL_HANDLERS": "1",  # SIGTERM must go on ending the process
    "PYGAME_HIDE_SUPPORT_PROMPT": "1",
}
# SDL's names of what a map needs, by ours.
_SDL_AXES = {"left_x": "leftx", "left_y": "lefty", "right_x": "rightx", "right_y": "righty"}
_SDL_BUTTONS = {
    "a": "a",
    "b": "b",
    "x": "x",
    "y": "y",
    "lb": "leftshoulder",
    "rb": "rightshoulder",
    "lt": "lefttrigger",
    "rt": "righttrigger",
}
_HATS = {"1": "up", "2": "right", "4": "down", "8": "left"}


@dataclass(frozen=True)
class Found:
    """A joystick that is plugged in. index: SDL's, valid until one comes or goes; shape: `RawState.shape`."""

    index: int
    name: str
    shape: tuple[int, int, int]


def count() -> int:
    """How many joysticks are plugged in; opens none. Raises `DeviceUnavailable` as `connected`."""
    pygame = _sdl()
    pygame.event.pump()  # SDL notices new devices while it looks for events
    return pygame.joystick.get_count()


def connected() -> list[Found]:
    """What is plugged in now. Raises `DeviceUnavailable` where pygame cannot be used."""
    found = []
    pygame = _sdl()
    for index in range(count()):
        try:
            joystick = pygame.joystick.Joystick(index)
        except pygame.error:  # gone since it was counted
            continue
        shape = joystick.get_numaxes(), joystick.get_numbuttons(), joystick.get_numhats()
        found.append(Found(index, joystick.get_name(), shape))
    return found


def sdl_map(found: Found) -> dict[str, Any] | None:
    """SDL's own map of it (by vendor, product, driver and platform) in our JSON's form, if it has one."""
    _sdl()
    try:
        from pygame._sdl2 import controller
    except ImportError:  # pygame calls this module experimental
        return None
    controller.init()  # and no `quit`: that may take the joysticks down too
    controller.set_eventstate(False)  # nobody reads these
    if not controller.is_controller(found.index):
        return None
    opened = controller.Controller(found.index)
    mapping = opened.get_mapping()
    opened.quit()
    return from_sdl(mapping)


def from_sdl(mapping: dict[str, str]) -> dict[str, Any] | None:
    """SDL's `{"a": "b0", "leftx": "a0", "righttrigger": "a5~", "x": "h0.8", …}` in our JSON's form.

    None if it lacks a stick. Source of the notation: SDL_gamecontroller.h, SDL_GameControllerAddMapping.
    """
    axes, inversion = {}, {}
    for ours, theirs in _SDL_AXES.items():
        if axis := re.fullmatch(r"a(\d+)(~?)", mapping.get(theirs, "")):
            axes[ours] = int(axis[1])
            inversion[ours] = axis[2] != "~"
    buttons = {ours: _sdl_button(mapping.get(theirs, "")) for ours, theirs in _SDL_BUTTONS.items()}
    if not {"left_x", "left_y", "right_y"} <= set(axes):
        return None
    return {"axes": axes, "buttons": buttons, "axis_inversion": inversion}


def _sdl_button(text: str) -> int | str | None:
    if button := re.fullmatch(r"b(\d+)", text):
        return int(button[1])
    if hat := re.fullmatch(r"h(\d+)\.([1248])", text):
        return f"hat {hat[1]} {_HATS[hat[2]]}"
    if axis := re.fullmatch(r"([+-]?)a(\d+)(~?)", text):
        positive = (axis[1] == "-") == (axis[3] == "~")
        return f"axis {axis[2]} {'+' if positive else '-'}"
    return None


class SdlJoystick:
    """An open joystick."""

    def __init__(self, found: Found) -> None:
        pygame = self._pygame = _sdl()
        self.name = found.name
        self._joystick = pygame.joystick.Joystick(found.index)
        self._id = self._joystick.get_instance_id()
        self._types = [
            pygame.JOYAXISMOTION,
            pygame.JOYBUTTONDOWN,
            pygame.JOYBUTTONUP,
            pygame.JOYHATMOTION,
            pygame.JOYDEVICEADDED,
            pygame.JOYDEVICEREMOVED,
        ]
        # What happened before is not ours; `get` would raise for a joystick that came and went unnoticed.
        pygame.event.clear(self._types)
        self.raw = self._now()

    def changes(self) -> Iterator[RawState]:
        """The state after each event since the last call; the same object every time.

        Raises `DeviceUnavailable` once the joystick is unplugged, before anything else: SDL releases its
        buttons first, which nobody did.
        """
        pygame = self._pygame
        events = [e for e in pygame.event.get(self._types) if getattr(e, "instance_id", None) == self._id]
        if any(event.type == pygame.JOYDEVICEREMOVED for event in events) or not self._joystick.get_init():
            raise DeviceUnavailable(f"{self.name!r} was unplugged. Plug it in again to go on.")
        for event in events:
            if event.type == pygame.JOYAXISMOTION:
                self.raw.axes[event.axis] = event.value
            elif event.type == pygame.JOYHATMOTION:
                self.raw.hats[event.hat] = event.value
            elif event.type in (pygame.JOYBUTTONDOWN, pygame.JOYBUTTONUP):
                self.raw.buttons[event.button] = event.type == pygame.JOYBUTTONDOWN
            yield self.raw

    def close(self) -> None:
        """Let it go. pygame itself stays up, to notice when it is plugged in again."""
        if self._joystick.get_init():
            self._joystick.quit()

    def _now(self) -> RawState:
        joystick = self._joystick
        return RawState(
            axes=[joystick.get_axis(i) for i in range(joystick.get_numaxes())],
            buttons=[bool(joystick.get_button(i)) for i in range(joystick.get_numbuttons())],
            hats=[joystick.get_hat(i) for i in range(joystick.get_numhats())],
        )


def _sdl() -> ModuleType:
    """pygame with joysticks and events up, nothing else."""
    for hint, value in _HINTS.items():
        os.environ.setdefault(hint, value)
    try:
        import pygame
    except ImportError as error:
        raise DeviceUnavailable(f"Gamepads are read through pygame, which does not load: {error}.") from error
    if not pygame.display.get_init():  # its events need a display; the dummy one needs no screen
        before = os.environ.get("SDL_VIDEODRIVER")
        os.environ["SDL_VIDEODRIVER"] = "dummy"
        try:
            pygame.display.init()
        finally:
            if before is None:
                del os.environ["SDL_VIDEODRIVER"]
            else:
                os.environ["SDL_VIDEODRIVER"] = before
    if not pygame.joystick.get_init():
        pygame.joystick.init()
    return pygame
