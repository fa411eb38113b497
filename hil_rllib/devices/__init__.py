"""Input devices by name.

`with make_device("scripted", seed=3) as device:` then `device.start(env)` and one `device.read()` per step.
A device's module is imported when it is asked for, so its driver library is needed by its users only.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import sys
from collections.abc import Iterable
from typing import Any

from hil_rllib.devices.base import DeviceUnavailable, TeleopDevice
from hil_rllib.devices.mode import InterventionMode

__all__ = [
    "NAMES",
    "DeviceUnavailable",
    "InterventionMode",
    "TeleopDevice",
    "check_device",
    "check_present",
    "device_class",
    "make_device",
]

logger = logging.getLogger(__name__)

NAMES = ("auto", "browser", "gamepad", "hid", "keyboard", "none", "scripted")
_BUILT = {  # name -> module:class
    "gamepad": "gamepad:GamepadDevice",
    "hid": "hid_gamepad:HidDevice",
    "keyboard": "keyboard:KeyboardDevice",
    "none": "none:NoDevice",
    "scripted": "scripted:ScriptedHuman",
}
# The first of these that can be used here and now.
_AUTO = ("hid", "gamepad", "keyboard") if sys.platform == "darwin" else ("gamepad", "keyboard")


def device_class(name: str) -> type[TeleopDevice]:
    """The class behind a device name; `auto` is what exists on this machine.

    Raises ValueError for an unknown name, `DeviceUnavailable` for one this version does not have.
    """
    if name not in NAMES:
        raise ValueError(f"Unknown device {name!r}.{_hint(name, NAMES)}")
    name = _resolve(name)
    if name not in _BUILT:
        choices = ", ".join(["auto", *sorted(_BUILT)])
        raise DeviceUnavailable(f"Device {name!r} is not part of this version. Choose from {choices}.")
    module, attribute = _BUILT[name].split(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def check_device(name: str, **options: Any) -> None:
    """Raise now what `make_device` would raise later about the name or the names of the options."""
    known = inspect.signature(device_class(name)).parameters
    for option in options:
        if option not in known:
            choices = _hint(option, known) if known else " It takes none."
            raise ValueError(f"Unknown option {option!r} of device {name!r}.{choices}")


def check_present(name: str) -> None:
    """Raise `DeviceUnavailable` now if the device cannot be used on this machine as it is; says what to do.

    To be called before any work, where no person can be waited for: a display does not come later, and
    whoever starts a teleoperation wants to hear at once that the gamepad is not plugged in.
    """
    if reason := device_class(name).missing():
        raise DeviceUnavailable(reason)


def make_device(name: str, **options: Any) -> TeleopDevice:
    """The device of that name, not yet started. See `device_class` and the class for what may be raised."""
    resolved = _resolve(name)
    check_device(resolved, **options)
    if name == "auto" and resolved == "none":
        logger.warning(
            "Input device 'auto': no gamepad is plugged in and there is no display to read the keyboard "
            "through. The policy acts alone ('none')."
        )
    elif name == "auto":
        logger.info("Input device 'auto' is the %s.", resolved)
    return device_class(resolved)(**options)


def _resolve(name: str) -> str:
    """What `auto` stands for here and now: a gamepad if one is plugged in, else the keyboard, else nobody."""
    if name != "auto":
        return name
    return next((choice for choice in _AUTO if device_class(choice).missing() is None), "none")


def _hint(name: str, choices: Iterable[str]) -> str:
    choices = sorted(choices)
    near = difflib.get_close_matches(name, choices, n=1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return f"{guess} Choose from {', '.join(choices)}."
