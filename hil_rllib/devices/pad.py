"""What all gamepads do with their sticks and buttons, however these are read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

from hil_rllib.contract import Command
from hil_rllib.devices.base import TeleopDevice
from hil_rllib.devices.controls import CONTROLS
from hil_rllib.devices.held import Held
from hil_rllib.devices.mode import InterventionMode

DEAD_ZONE = 0.1  # [-] of full deflection; a worn stick rests at up to a few per cent
_CONTROL_OF = {control.pad: control.name for control in CONTROLS if control.pad}


class PadDevice(TeleopDevice):
    """Base of the gamepads. RB takes over while held, LB until the next LB.

    dead_zone: deflection [-] below which a stick is at rest; above it motion begins at 0 and ends at 1.
    """

    one_per_machine: ClassVar[bool] = True  # each takes the first that fits

    def __init__(self, dead_zone: float = DEAD_ZONE) -> None:
        if not 0 <= dead_zone < 1:
            raise ValueError(f"dead_zone must be at least 0 and below 1; got {dead_zone}.")
        self.dead_zone = dead_zone
        self._held = Held(motion_intervenes=False)

    @property
    def labels(self) -> Mapping[str, str]:
        """What the open controller prints on its buttons, for `controls.help_text`."""
        return {}

    def intervention_mode(self, kind: str) -> InterventionMode:
        """`toggle` makes RB a second toggle; the switch itself is in the device, so the mode only holds."""
        self._held.trigger_toggles = kind == "toggle"
        return super().intervention_mode("hold" if kind == "toggle" else kind)

    def read(self) -> Command:
        """What the gamepad commands. Raises `DeviceUnavailable` once it is unplugged."""
        self._poll()
        return self._held.read()

    def reset(self) -> None:
        """Unread taps and verdicts belonged to the last episode. What is held or toggled stays."""
        self._poll()
        self._held.forget()

    def _poll(self) -> None:
        """Apply everything that has happened since the last time, in order."""
        raise NotImplementedError

    def _apply(self, pressed: Collection[str], left_x: float, left_y: float, right_y: float) -> None:
        """pressed: names of `controls.PAD_BUTTONS`; sticks in [-1, 1], up and left positive."""
        for pad, control in _CONTROL_OF.items():
            if pad in pressed:
                self._held.press(control)
            else:
                self._held.release(control)
        self._held.deflect(*(self._beyond_dead_zone(value) for value in (left_y, left_x, right_y)))

    def _open(self, pressed: Collection[str]) -> None:
        """Forget everything of before. pressed: buttons that are down already, which count as held only."""
        self._held.clear(_CONTROL_OF[name] for name in pressed if name in _CONTROL_OF)

    def _beyond_dead_zone(self, value: float) -> float:
        size = (abs(value) - self.dead_zone) / (1.0 - self.dead_zone)
        return 0.0 if size <= 0 else min(size, 1.0) * (1 if value > 0 else -1)
