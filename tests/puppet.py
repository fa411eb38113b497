"""An input device that does what a test wrote down."""

from __future__ import annotations

from typing import ClassVar

from hil_rllib.contract import IDLE, Command, EpisodeEnd, Gripper
from hil_rllib.devices import TeleopDevice


class Puppet(TeleopDevice):
    """Gives `commands` one by one, then nothing. An exception among them is raised."""

    realtime: ClassVar[bool] = False

    def __init__(self, *commands):
        self.commands = list(commands)
        self.started = self.closed = self.resets = 0

    def start(self, env):
        self.started += 1

    def read(self):
        command = self.commands.pop(0) if self.commands else IDLE
        if isinstance(command, Exception):
            raise command
        return command

    def reset(self):
        self.resets += 1

    def close(self):
        self.closed += 1


def move(x=0.0, y=0.0, z=0.0, gripper=Gripper.HOLD):
    return Command((x, y, z), gripper, intervening=True)


SUCCESS, FAILURE, RERECORD = (
    Command(end=end) for end in (EpisodeEnd.SUCCESS, EpisodeEnd.FAILURE, EpisodeEnd.RERECORD)
)
