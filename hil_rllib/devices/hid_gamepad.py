"""A gamepad through hidapi, as raw reports: for macOS, whose own joystick layer pygame may not get to."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import gymnasium

from hil_rllib.devices.base import DeviceUnavailable
from hil_rllib.devices.hid_reports import GAMEPADS, HidGamepad, gamepad_of
from hil_rllib.devices.pad import DEAD_ZONE, PadDevice

logger = logging.getLogger(__name__)

REPORT_BYTES = 128  # the longest known is 78
MOST_REPORTS = 1000  # in one read: a DualShock sends 1000 a second
# (usage page, usage): joystick, game pad (HID usage tables 1.4, 4.1); zeros where the system does not tell
GAMEPAD_USES = {(1, 4), (1, 5), (0, 0)}


class HidDevice(PadDevice):
    """Left stick x and y, right stick z, triggers the gripper; RB takes over while held.

    dead_zone: of the sticks [-]
    """

    def __init__(self, *, dead_zone: float = DEAD_ZONE) -> None:
        super().__init__(dead_zone)
        self._device: Any = None  # hid.device
        self._gamepad: HidGamepad | None = None
        self._first = True

    @classmethod
    def missing(cls) -> str | None:
        """Why no gamepad can be read here and now."""
        try:
            return None if _connected() else _none_found()
        except DeviceUnavailable as error:
            return str(error)

    @property
    def labels(self) -> Mapping[str, str]:
        return self._gamepad.labels if self._gamepad is not None else {}

    def start(self, env: gymnasium.Env) -> None:
        """Open the first gamepad whose reports are known. Raises `DeviceUnavailable` if there is none."""
        self.close()
        found = _connected()
        if not found:
            raise DeviceUnavailable(_none_found())
        import hid

        gamepad, path = found[0]
        device = hid.device()
        try:
            device.open_path(path)
            device.set_nonblocking(True)
        except OSError as error:
            raise DeviceUnavailable(
                f"{gamepad.name} is plugged in but cannot be opened ({error}). On macOS switch the terminal "
                "on in Privacy & Security → Input Monitoring; on Linux /dev/hidraw* must be readable for you."
            ) from error
        self._device, self._gamepad = device, gamepad
        self._open(())
        self._first = True
        logger.info("Gamepad %s, read through hidapi.", gamepad.name)

    def close(self) -> None:
        if self._device is not None:
            self._device.close()
            self._device = None

    def _poll(self) -> None:
        if self._device is None:
            raise DeviceUnavailable(_none_found())
        assert self._gamepad is not None
        for _ in range(MOST_REPORTS):
            try:
                report = bytes(self._device.read(REPORT_BYTES))
            except (OSError, ValueError) as error:
                raise DeviceUnavailable(
                    f"{self._gamepad.name} was unplugged ({error}). Plug it in again to go on."
                ) from error
            if not report:
                break
            state = self._gamepad.parse(report)
            if state is None:
                continue
            if self._first:  # what is down already was not pressed for us
                self._open(state.pressed)
                self._first = False
            self._apply(state.pressed, state.left_x, state.left_y, state.right_y)


def _connected() -> list[tuple[HidGamepad, bytes]]:
    """The known gamepads that are plugged in, with hidapi's paths."""
    try:
        import hid
    except ImportError as error:
        raise DeviceUnavailable(
            f"This device needs hidapi, which does not load: {error}. Install it (pip install hidapi), or "
            "choose the device gamepad."
        ) from error
    found = []
    for info in hid.enumerate():
        gamepad = gamepad_of(info["vendor_id"], info["product_id"])
        use = info.get("usage_page", 0), info.get("usage", 0)
        if gamepad is not None and use in GAMEPAD_USES:
            found.append((gamepad, info["path"]))
    return found


def _none_found() -> str:
    known = ", ".join(pad.name for pad in GAMEPADS)
    return f"No gamepad that hidapi can read is plugged in. Known: {known}. Or choose browser or gamepad."
