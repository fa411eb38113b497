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
    "browser": "browser.device:BrowserDevice",
    "gamepad": "gamepad:GamepadDevice",
    "hid": "hid_gamepad:HidDevice",
    "keyboard": "keyboard:KeyboardDevice",
    "none": "none:NoDevice",
    "scripted": "scripted:ScriptedHuman",
}
# The first of these that can be used here and now.
_AUTO = (*(("hid",) if sys.platform == "darwin" else ()), "gamepad", "keyboard", "browser")


def device_class(name: str) -> type[TeleopDevice]:
    """The class behind a device name; `auto` is what exists on this machine.

    Raises ValueError for an unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"Unknown device {name!r}.{_hint(name, NAMES)}")
    module, attribute = _BUILT[_resolve(name)].split(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def check_device(name: str, **options: Any) -> None:
    """Raise now what `make_device` would raise later about the name or the names of the options.

    `auto` takes the options of whatever it may stand for; each device then gets its own.
    """
    device_class(name)
    names = _AUTO if name == "auto" else (name,)
    known = {option for candidate in names for option in _options(candidate)}
    for option in options:
        if option not in known:
            choices = _hint(option, known) if known else " It takes none."
            raise ValueError(f"Unknown option {option!r} of device {name!r}.{choices}")


def check_present(name: str, **options: Any) -> None:
    """Raise `DeviceUnavailable` now if the device cannot be used on this machine as it is; says what to do.

    options: those that `make_device` will get, where they decide whether it can be used.

    To be called before any work, where no person can be waited for: a display does not come later, and
    whoever starts a teleoperation wants to hear at once that the gamepad is not plugged in.
    """
    if reason := device_class(name).missing() or _make(name, options).blocked():
        raise DeviceUnavailable(reason)


def make_device(name: str, **options: Any) -> TeleopDevice:
    """The device of that name, not yet started. See `device_class` and the class for what may be raised."""
    if name == "auto":
        logger.info("Input device 'auto' is the %s.", _resolve(name))
    return _make(name, options)


def _make(name: str, options: dict[str, Any]) -> TeleopDevice:
    check_device(name, **options)
    made = device_class(name)
    known = inspect.signature(made).parameters
    return made(**{option: value for option, value in options.items() if option in known})


def _options(name: str) -> set[str]:
    return set(inspect.signature(device_class(name)).parameters)


def _resolve(name: str) -> str:
    """What `auto` stands for here and now: a gamepad if one is plugged in, else the keyboard, else a page."""
    if name != "auto":
        return name
    return next((choice for choice in _AUTO if device_class(choice).missing() is None), _AUTO[-1])


def _hint(name: str, choices: Iterable[str]) -> str:
    choices = sorted(choices)
    near = difflib.get_close_matches(name, choices, n=1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return f"{guess} Choose from {', '.join(choices)}."
