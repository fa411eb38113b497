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
# The first of these that can be used here and now; the last always can.
_AUTO = (*(("hid",) if sys.platform == "darwin" else ()), "gamepad", "keyboard", "browser")


def device_class(name: str) -> type[TeleopDevice]:
    """The class behind a device name; `auto` is what can be used on this machine, without options.

    Raises ValueError for an unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"Unknown device {name!r}.{_hint(name, NAMES)}")
    module, attribute = _BUILT[_resolve(name, {})].split(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def check_device(name: str, **options: Any) -> None:
    """Raise now what `make_device` would raise later about the name or the names of the options.

    `auto` takes the options of whatever it may stand for; each device then gets its own.
    """
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
    check_device(name, **options)
    chosen = _resolve(name, options)
    if reason := _why_not(chosen, options):
        raise DeviceUnavailable(reason)


def make_device(name: str, **options: Any) -> TeleopDevice:
    """The device of that name, not yet started. See `device_class` and the class for what may be raised."""
    check_device(name, **options)
    chosen = _resolve(name, options)
    if name == "auto":
        for other in _AUTO[: _AUTO.index(chosen)]:
            if device_class(other).missing() is None:  # it is here, so whoever plugged it in will wonder
                logger.info("Input device 'auto' is not the %s: %s", other, _make(other, options).blocked())
        logger.info("Input device 'auto' is the %s.", chosen)
    return _make(chosen, options)


def _make(name: str, options: dict[str, Any]) -> TeleopDevice:
    """The device of that name, with those of the options that it knows."""
    made = device_class(name)
    known = inspect.signature(made).parameters
    return made(**{option: value for option, value in options.items() if option in known})


def _options(name: str) -> set[str]:
    return set(inspect.signature(device_class(name)).parameters)


def _resolve(name: str, options: dict[str, Any]) -> str:
    """What `auto` stands for here and now: a gamepad if one can be used, else the keyboard, else a page."""
    if name != "auto":
        return name
    return next((choice for choice in _AUTO[:-1] if _why_not(choice, options) is None), _AUTO[-1])


def _why_not(name: str, options: dict[str, Any]) -> str | None:
    """Why the device of that name cannot be used here and now."""
    return device_class(name).missing() or _make(name, options).blocked()


def _hint(name: str, choices: Iterable[str]) -> str:
    choices = sorted(choices)
    near = difflib.get_close_matches(name, choices, n=1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return f"{guess} Choose from {', '.join(choices)}."
