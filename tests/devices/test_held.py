"""What is held, tapped and toggled, as pure logic."""

from __future__ import annotations

import pytest

from hil_rllib.contract import IDLE, Command, EpisodeEnd, Gripper
from hil_rllib.devices.held import Held


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def keys(clock):
    return Held(motion_intervenes=True, bounce_s=0.04, clock=clock)


def test_stick_and_key_add_up_to_full_deflection(clock):
    held = Held(motion_intervenes=False, clock=clock)
    held.deflect(0.7, -0.2, 0.0)
    held.press("+x")
    held.press("-y")
    assert held.read() == Command(motion=(1.0, -1.0, 0.0))


def test_both_gripper_controls_at_once_hold(keys):
    keys.press("open")
    assert keys.read().gripper is Gripper.OPEN
    keys.press("close")
    assert keys.read().gripper is Gripper.HOLD


def test_a_repeated_press_after_a_bounce_is_no_press(keys, clock):
    keys.press("toggle")
    for _ in range(10):
        keys.release("toggle")
        clock.now += 0.03
        keys.press("toggle")
        assert keys.read().intervening
    keys.release("toggle")
    clock.now += 0.05
    keys.press("toggle")
    assert not keys.read().intervening


def test_a_verdict_is_given_once_and_the_last_one_counts(keys):
    keys.press("success")
    keys.press("rerecord")
    assert keys.read().end is EpisodeEnd.RERECORD
    assert keys.read().end is EpisodeEnd.NONE


def test_clearing_forgets_the_toggle_and_what_was_held(keys, clock):
    keys.press("toggle")
    keys.press("+x")
    keys.deflect(0.0, 1.0, 0.0)
    keys.clear()
    assert keys.read() == IDLE
