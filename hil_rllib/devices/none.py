"""Nobody at the controls."""

from __future__ import annotations

from typing import ClassVar

import gymnasium

from hil_rllib.contract import IDLE, Command
from hil_rllib.devices.base import TeleopDevice


class NoDevice(TeleopDevice):
    """Never intervenes: the policy acts alone."""

    realtime: ClassVar[bool] = False

    def start(self, env: gymnasium.Env) -> None:
        """Nothing to open."""

    def read(self) -> Command:
        """Always `IDLE`."""
        return IDLE

    def close(self) -> None:
        """Nothing to release."""
