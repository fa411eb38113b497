"""A gamepad through pygame; its numbers of sticks and buttons come from a map."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path

import gymnasium

from hil_rllib.devices import sdl_joystick
from hil_rllib.devices.base import DeviceUnavailable
from hil_rllib.devices.gamepad_maps import SHIPPED, ControllerMap, load_maps, parse_map, shipped_maps
from hil_rllib.devices.pad import DEAD_ZONE, PadDevice
from hil_rllib.devices.sdl_joystick import Found, SdlJoystick

logger = logging.getLogger(__name__)

NONE_PLUGGED_IN = (
    "No gamepad is plugged in. Plug one in, or choose another device: browser, keyboard, scripted, none."
)
CALIBRATE = "python -m hil_rllib.teleop --calibrate"


class GamepadDevice(PadDevice):
    """Left stick x and y, right stick z, triggers the gripper; RB takes over while held.

    controller_config  a JSON file of maps (`gamepad_maps`) in place of those that ship with the package
    dead_zone          of the sticks [-]
    """

    def __init__(
        self,
        *,
        controller_config: str | Path | None = None,
        dead_zone: float = DEAD_ZONE,
    ) -> None:
        super().__init__(dead_zone)
        self._own = load_maps(controller_config) if controller_config is not None else None
        self._maps = self._own if self._own is not None else shipped_maps()
        self._path = Path(controller_config) if controller_config is not None else SHIPPED
        self._joystick: SdlJoystick | None = None
        self._map: ControllerMap | None = None
        self._warned: set[str] = set()

    @classmethod
    def missing(cls) -> str | None:
        """Why no gamepad can be read here and now."""
        try:
            return None if sdl_joystick.count() else NONE_PLUGGED_IN
        except DeviceUnavailable as error:
            return str(error)

    @property
    def labels(self) -> Mapping[str, str]:
        return self._map.labels if self._map is not None else {}

    def blocked(self) -> str | None:
        """Why none of the joysticks that are plugged in can be used with these maps."""
        try:
            if found := sdl_joystick.connected():
                self._first_fit(found)
        except DeviceUnavailable as error:
            return str(error)
        return None

    def start(self, env: gymnasium.Env) -> None:
        """Open the first gamepad a map fits. Raises `DeviceUnavailable` if there is none."""
        self.close()
        found = sdl_joystick.connected()
        if not found:
            raise DeviceUnavailable(NONE_PLUGGED_IN)
        first, controller_map = self._first_fit(found)
        if first.name not in self._warned and self._known_map(first) is None:
            self._warned.add(first.name)
            logger.warning(
                "%s has no map for %r with %d axes, %d buttons, %d hats: %r is used. If the controls are "
                "wrong, make a map: %s.",
                self._path.name,
                first.name,
                *first.shape,
                controller_map.name,
                CALIBRATE,
            )
        self._map, self._joystick = controller_map, SdlJoystick(first)
        self._open(controller_map.pressed(self._joystick.raw))
        self._follow()
        logger.info("Gamepad %r, read by the map %r.", first.name, controller_map.name)

    def _first_fit(self, found: list[Found]) -> tuple[Found, ControllerMap]:
        """The first that a map fits, and the map. Raises `DeviceUnavailable` with why each does not fit."""
        reasons = []
        for candidate in found:
            controller_map = self.choose_map(candidate)
            if controller_map is None:
                why = f"{self._path} has no map for {candidate.name!r} and no 'default', only"
                reasons.append(f"{why} {', '.join(self._maps)}.")
            elif lacking := controller_map.lacking(candidate.shape):
                why = f"{candidate.name!r} has no {', '.join(lacking)}"
                reasons.append(f"{why} where the map {controller_map.name!r} looks.")
            else:
                return candidate, controller_map
        raise DeviceUnavailable(
            f"{' '.join(reasons)} Plug in another gamepad, or make a map of your own: {CALIBRATE}."
        )

    def choose_map(self, found: Found) -> ControllerMap | None:
        """The map of one's own file, or the shipped one of its name and shape, or SDL's, or a default."""
        if (known := self._known_map(found)) is not None:
            return known
        fits = (m for m in self._maps_called(found.name) if not m.lacking(found.shape))
        return next(fits, self._maps.get("default"))

    def _known_map(self, found: Found) -> ControllerMap | None:
        """The map that is meant for it, if there is one.

        Numbers differ between systems, and the shipped ones are Linux's: elsewhere SDL comes first.
        """
        called = self._maps_called(found.name)
        if called and self._own is not None:
            return next((m for m in called if m.is_made_for(found.shape)), called[0])
        made_for = [m for m in called if m.is_made_for(found.shape)] if sys.platform == "linux" else []
        if made_for:
            return made_for[0]
        if self._own is None and (entry := sdl_joystick.sdl_map(found)) is not None:
            return parse_map(entry, found.name, "SDL")
        return None

    def _maps_called(self, name: str) -> list[ControllerMap]:
        return [m for m in self._maps.values() if m.is_called(name)]

    def close(self) -> None:
        if self._joystick is not None:
            self._joystick.close()
            self._joystick = None

    def _poll(self) -> None:
        if self._joystick is None:
            raise DeviceUnavailable(NONE_PLUGGED_IN)
        for _ in self._joystick.changes():
            self._follow()

    def _follow(self) -> None:
        assert self._joystick is not None
        assert self._map is not None
        raw, pad = self._joystick.raw, self._map
        self._apply(pad.pressed(raw), *(pad.stick(axis, raw) for axis in ("left_x", "left_y", "right_y")))
