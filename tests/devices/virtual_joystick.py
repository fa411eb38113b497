"""SDL's own virtual joystick, attached below pygame: the same events, hot-plug included, as of a real one."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

_JOYSTICK = 0x00000200 | 0x00002000  # SDL_INIT_JOYSTICK | SDL_INIT_GAMECONTROLLER
_HATS = {(0, 0): 0, (0, 1): 1, (1, 0): 2, (0, -1): 4, (-1, 0): 8}


class _Guid(ctypes.Structure):
    _fields_ = [("data", ctypes.c_uint8 * 16)]


class _Description(ctypes.Structure):
    """SDL_VirtualJoystickDesc of SDL_joystick.h."""

    _fields_ = [
        *((name, ctypes.c_uint16) for name in ("version", "type", "axes", "buttons", "hats")),
        *((name, ctypes.c_uint16) for name in ("vendor", "product", "padding")),
        *((name, ctypes.c_uint32) for name in ("button_mask", "axis_mask")),
        ("name", ctypes.c_char_p),
        *((f"unused_{k}", ctypes.c_void_p) for k in range(7)),
    ]


def sdl():
    """The SDL library that pygame has loaded, joysticks up."""
    import pygame  # noqa: F401 - loads it

    path = next(
        (
            line.split()[-1]
            for line in Path("/proc/self/maps").read_text().splitlines()
            if "/libSDL2-2" in line
        ),
        None,
    )
    if path is None:
        pytest.skip("this pygame's SDL2 library was not found, so no virtual joystick")
    library = ctypes.CDLL(path)
    library.SDL_JoystickOpen.restype = ctypes.c_void_p
    for name, kind in {"Axis": ctypes.c_int16, "Button": ctypes.c_uint8, "Hat": ctypes.c_uint8}.items():
        function = getattr(library, f"SDL_JoystickSetVirtual{name}")
        function.argtypes = [ctypes.c_void_p, ctypes.c_int, kind]
    library.SDL_JoystickClose.argtypes = [ctypes.c_void_p]
    library.SDL_GUIDFromString.restype = _Guid
    library.SDL_JoystickGetDeviceGUID.restype = _Guid
    library.SDL_GameControllerMappingForGUID.argtypes = [_Guid]
    library.SDL_GameControllerMappingForGUID.restype = ctypes.c_void_p
    library.SDL_InitSubSystem(_JOYSTICK)
    return library


def sdl_mapping(library, guid: str) -> dict[str, str]:
    """What SDL says of the controller with that GUID: {"a": "b0", "leftx": "a0", …}."""
    text = library.SDL_GameControllerMappingForGUID(library.SDL_GUIDFromString(guid.encode()))
    fields = ctypes.string_at(text).decode().split(",")[2:]
    return dict(field.split(":", 1) for field in fields if ":" in field)


class VirtualJoystick:
    """A joystick that is plugged in from now until `unplug`. shape: axes, buttons, hats."""

    def __init__(self, library, name: str, shape: tuple[int, int, int], product: int = 1) -> None:
        axes, buttons, hats = shape
        self._sdl, self.name, self.shape = library, name, shape
        description = _Description(1, 0, axes, buttons, hats, 0x1234, product, 0, 0, 0, name.encode())
        index = library.SDL_JoystickAttachVirtualEx(ctypes.byref(description))
        assert index >= 0
        self._id = library.SDL_JoystickGetDeviceInstanceID(index)
        self._handle = library.SDL_JoystickOpen(index)

    @property
    def index(self) -> int:
        count = self._sdl.SDL_NumJoysticks()
        return next(i for i in range(count) if self._sdl.SDL_JoystickGetDeviceInstanceID(i) == self._id)

    def guid(self) -> str:
        text = ctypes.create_string_buffer(33)
        self._sdl.SDL_JoystickGetGUIDString(self._sdl.SDL_JoystickGetDeviceGUID(self.index), text, 33)
        return text.value.decode()

    def axis(self, index: int, value: float) -> None:
        assert self._sdl.SDL_JoystickSetVirtualAxis(self._handle, index, round(value * 32767)) == 0

    def button(self, index: int, down: bool) -> None:
        assert self._sdl.SDL_JoystickSetVirtualButton(self._handle, index, int(down)) == 0

    def hat(self, index: int, value: tuple[int, int]) -> None:
        assert self._sdl.SDL_JoystickSetVirtualHat(self._handle, index, _HATS[value]) == 0

    def unplug(self) -> None:
        if self._handle is not None:
            self._sdl.SDL_JoystickDetachVirtual(self.index)
            self._sdl.SDL_JoystickClose(self._handle)
            self._handle = None
