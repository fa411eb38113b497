"""What every input device offers: `start`, `read`, `close`.

A device turns whatever a person does into one `Command` per control step. It knows nothing of RLlib; the
intervention connector reads it just before each env step, so a command is as fresh as it can be.
"""

from __future__ import annotations

import abc
from typing import ClassVar, Self

import gymnasium

from hil_rllib.contract import Command
from hil_rllib.devices.mode import InterventionMode


class DeviceUnavailable(RuntimeError):  # noqa: N818 - reads as a condition, like FileNotFoundError's kin
    """The device cannot be used: not built, not plugged in, no display. The message says what to do."""


class TeleopDevice(abc.ABC):
    """An input device, real or synthetic.

    It is made in the process that steps the env, never sent there, and used as
    `start(env)`, then per episode `reset()` and one `read()` per control step, then `close()`.
    `close` may be followed by another `start`; that is how a lost device comes back.
    """

    realtime: ClassVar[bool] = True
    """A person at a real clock is behind it: the env must be paced, the trigger debounced."""

    @classmethod
    def missing(cls) -> str | None:
        """Why the device cannot be used here and now, and what to do; None where it can."""
        return None

    def intervention_mode(self, kind: str) -> InterventionMode:
        """Who is in charge with this device, in mode `kind` (hold, toggle, auto).

        A device with a toggle of its own settles here what mode `toggle` makes of its trigger.
        """
        return InterventionMode(kind)

    @abc.abstractmethod
    def start(self, env: gymnasium.Env) -> None:
        """Open the device. env: the single env being driven; only the synthetic human looks at it.

        Raises `DeviceUnavailable` if the device is not there now; it may be tried again later.
        """

    @abc.abstractmethod
    def read(self) -> Command:
        """The command for this control step. Never blocks; called once per step.

        `Command.intervening` is the raw trigger (button or key held); `InterventionMode` decides from it.
        """

    def reset(self) -> None:  # noqa: B027 - most devices keep nothing between episodes
        """An episode begins: forget what belonged to the last one, such as an unread end-of-episode key."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release the hardware. Calling it twice is fine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
