"""Who is in charge, as pure logic: one control step every 0.1 s."""

from __future__ import annotations

import pytest

from hil_rllib.contract import IDLE, Command, Gripper
from hil_rllib.devices import InterventionMode

PRESSED = Command(intervening=True)
MOVING = Command(motion=(0.0, 0.5, 0.0))


def run(mode: InterventionMode, commands: list[Command], dt: float = 0.1) -> list[bool]:
    return [mode.update(command, k * dt) for k, command in enumerate(commands)]


def test_hold_is_in_charge_while_the_trigger_is_held():
    assert run(InterventionMode("hold", release_s=0.0), [IDLE, PRESSED, PRESSED, IDLE]) == [0, 1, 1, 0]


def test_hold_releases_only_after_the_debounce():
    assert run(InterventionMode("hold", release_s=0.15), [PRESSED, IDLE, IDLE, IDLE]) == [1, 1, 0, 0]


def test_key_repeat_does_not_flicker():
    assert all(run(InterventionMode("hold"), [PRESSED, IDLE] * 10))


def test_toggle_flips_on_each_press():
    commands = [IDLE, PRESSED, PRESSED, IDLE, IDLE, IDLE, PRESSED, IDLE]
    assert run(InterventionMode("toggle"), commands) == [0, 1, 1, 1, 1, 1, 0, 0]


def test_a_bouncing_press_toggles_once():
    assert run(InterventionMode("toggle"), [PRESSED, IDLE, PRESSED, IDLE, IDLE, IDLE]) == [1] * 6


def test_auto_takes_over_on_motion_until_idle():
    mode = InterventionMode("auto", idle_s=0.25)
    assert run(mode, [IDLE, MOVING, IDLE, IDLE, IDLE, MOVING]) == [0, 1, 1, 1, 0, 1]


@pytest.mark.parametrize("axis", range(3))
def test_auto_ignores_a_stick_at_rest(axis):
    motion = [0.0, 0.0, 0.0]
    motion[axis] = -0.09
    assert run(InterventionMode("auto", dead_zone=0.1), [Command(motion=tuple(motion))]) == [0]


def test_auto_takes_over_on_a_gripper_command():
    assert run(InterventionMode("auto"), [Command(gripper=Gripper.CLOSE)]) == [1]


@pytest.mark.parametrize("kind", ["hold", "toggle", "auto"])
def test_reset_gives_control_back(kind):
    mode = InterventionMode(kind)
    assert mode.update(PRESSED, 0.0)
    mode.reset()
    assert not mode.update(IDLE, 0.01)


def test_unknown_mode_names_the_choices():
    with pytest.raises(
        ValueError, match=r"Unknown intervention mode 'press'. Choose from hold, toggle, auto"
    ):
        InterventionMode("press")
