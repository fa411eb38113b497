"""A device that fails must not take the run with it."""

from __future__ import annotations

import logging
import math

import gymnasium
import pytest

from hil_rllib.contract import Command
from hil_rllib.devices import DeviceUnavailable, TeleopDevice
from hil_rllib.devices.guard import DeviceGuard

ENV = gymnasium.Env()
HELP = Command(motion=(1.0, 0.0, 0.0), intervening=True)


class Flaky(TeleopDevice):
    """Raises from `start` or `read` while the attribute of that name holds an error."""

    def __init__(self) -> None:
        self.start_error: Exception | None = None
        self.read_error: Exception | None = None
        self.command = HELP
        self.starts = self.closes = 0

    def start(self, env: gymnasium.Env) -> None:
        self.starts += 1
        if self.start_error:
            raise self.start_error

    def read(self) -> Command:
        if self.read_error:
            raise self.read_error
        return self.command

    def close(self) -> None:
        self.closes += 1


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def rig():
    device, clock = Flaky(), Clock()
    return device, clock, DeviceGuard(device, retry_s=2.0, clock=clock)


def test_lost_device_is_said_once_closed_and_retried_every_two_seconds(rig, caplog):
    device, clock, guard = rig
    guard.start(ENV)
    assert guard.read() == HELP
    device.read_error = device.start_error = OSError("unplugged")
    for tenth in range(50):  # five seconds at 10 Hz
        clock.now = tenth / 10
        assert guard.read() is None
    assert device.closes == 1
    assert device.starts == 1 + 2  # the first, then at 2 s and 4 s
    assert len(caplog.records) == 1
    assert "OSError: unplugged" in caplog.text


def test_why_a_lost_device_does_not_come_back_is_said_when_it_changes(rig, caplog):
    device, clock, guard = rig
    guard.start(ENV)
    device.read_error = OSError("unplugged")
    nothing, unknown = DeviceUnavailable("none is plugged in"), DeviceUnavailable("no map for 'Other'")
    device.missing = lambda: str(nothing)
    told = []
    for error in (nothing, nothing, unknown, unknown, nothing, unknown, OSError("no access")):
        device.start_error = error
        guard.read()
        clock.now += 2.0
        told.append(len(caplog.records))
    assert guard.read() is None
    messages = [record.getMessage() for record in caplog.records]
    assert "is lost (OSError: unplugged)" in messages[0]
    still = "Flaky is still lost ({})."
    assert messages[1:] == [
        still.format("DeviceUnavailable: no map for 'Other'"),
        still.format("DeviceUnavailable: no map for 'Other'"),
        still.format("OSError: no access"),
    ]
    assert told == [1, 1, 2, 2, 2, 3, 4]
    device.missing = lambda: 1 / 0  # whatever it does, the run goes on
    device.start_error = OSError("another")
    clock.now += 2.0
    assert guard.read() is None
    assert "OSError: another" in caplog.text


def test_device_that_comes_back_is_used_again(rig, caplog):
    device, clock, guard = rig
    guard.start(ENV)
    device.read_error = OSError("unplugged")
    assert guard.read() is None
    device.read_error = None
    clock.now = 1.9
    assert guard.read() is None
    clock.now = 2.0
    assert guard.read() == HELP
    assert "is back" in caplog.text


def test_device_absent_at_the_start_is_awaited(rig):
    device, clock, guard = rig
    device.start_error = DeviceUnavailable("no gamepad is plugged in")
    guard.start(ENV)
    assert guard.read() is None
    device.start_error = None
    clock.now = 2.0
    assert guard.read() == HELP


def test_a_mistake_at_the_start_is_raised(rig):
    device, _, guard = rig
    device.start_error = AttributeError("no tcp_pos")
    with pytest.raises(AttributeError, match="tcp_pos"):
        guard.start(ENV)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_commands_are_ignored_and_logged_once_per_burst(rig, caplog, bad):
    device, _, guard = rig
    guard.start(ENV)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            device.command = Command(motion=(0.0, bad, 0.0), intervening=True)
            assert [guard.read() for _ in range(5)] == [None] * 5
            device.command = HELP
            assert guard.read() == HELP
    assert len(caplog.records) == 2
    assert device.closes == 0


def test_what_is_no_command_at_all_counts_as_a_fault(rig):
    device, _, guard = rig
    guard.start(ENV)
    device.command = "left"
    assert guard.read() is None
    assert device.closes == 1


def test_a_device_that_nobody_is_at_stays_open(rig, caplog):
    device, _, guard = rig
    guard.start(ENV)
    device.command = None
    assert guard.read() is None
    assert device.closes == 0
    assert caplog.records == []
