"""Input devices by name.

`with make_device("scripted", seed=3) as device:` then `device.start(env)` and one `device.read()` per step.
A device's module is imported when it is asked for, so its driver library is needed by its users only.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
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
    "device_class",
    "make_device",
]

logger = logging.getLogger(__name__)

NAMES = ("auto", "browser", "gamepad", "hid", "keyboard", "none", "scripted")
_BUILT = {"none": "none:NoDevice", "scripted": "scripted:ScriptedHuman"}  # name -> module:class


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


def make_device(name: str, **options: Any) -> TeleopDevice:
    """The device of that name, not yet started. See `device_class` and the class for what may be raised."""
    check_device(name, **options)
    if name == "auto":
        logger.warning("operator.device: auto found no input device to use; the policy acts alone ('none').")
    return device_class(name)(**options)


def _resolve(name: str) -> str:
    """What `auto` stands for here. Every device it could prefer is yet to be built, so nobody ('none')."""
    return "none" if name == "auto" else name


def _hint(name: str, choices: Iterable[str]) -> str:
    choices = sorted(choices)
    near = difflib.get_close_matches(name, choices, n=1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return f"{guess} Choose from {', '.join(choices)}."
