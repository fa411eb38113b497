"""Real key events, through an X server and pynput, to the arm."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import gymnasium
import pytest
from operator_rig import BACKWARDS, Rig, assert_drives
from xvfb import Fingers, Xvfb

from hil_rllib.contract import IDLE, EpisodeEnd
from hil_rllib.devices import DeviceUnavailable, check_present, make_device
from hil_rllib.devices.controls import CONTROLS
from hil_rllib.devices.keyboard import WATCH_S, KeyboardDevice

ENV = gymnasium.Env()
X11_NAMES = {
    **{"up": "Up", "down": "Down", "left": "Left", "right": "Right", "space": "space", "enter": "Return"},
    **{"shift_l": "Shift_L", "shift_r": "Shift_R", "ctrl_l": "Control_L", "ctrl_r": "Control_R"},
    **{"esc": "Escape", "r": "r", "l": "l"},
}
PATIENCE_S = 5.0


@pytest.fixture(scope="module")
def server():
    server = Xvfb()
    yield server
    server.stop()


@pytest.fixture
def fingers(server, monkeypatch):
    monkeypatch.setenv("DISPLAY", server.name)
    monkeypatch.delenv("XDG_SESSION_TYPE", raising=False)
    fingers = Fingers(server.name)
    yield fingers
    for name in X11_NAMES.values():
        fingers.key(name, False)
    fingers.close()


@pytest.fixture
def lay_out(server, fingers):
    """Give the server another layout; the fingers still know the keys by what they type on the US one."""

    def choose(layout, variant=""):
        chosen = ["-display", server.name, "-layout", layout, "-variant", variant]
        subprocess.run(["setxkbmap", *chosen], check=True)

    yield choose
    choose("us")


@pytest.fixture
def keyboard(fingers):
    with make_device("keyboard") as device:
        device.start(ENV)
        listening(fingers, device)
        yield device


def arrives(device, done, read=None):
    """Wait until what was typed has come through the server and pynput's thread."""
    deadline = time.monotonic() + PATIENCE_S
    while not done(read() if read else device._held):
        assert time.monotonic() < deadline, "the key event did not arrive"
        time.sleep(0.002)


def watched(device, name=None):
    """The keys of that name, or all, that pynput says are pressed from now on."""
    seen, before = [], device._listener.on_press

    def on_press(key, *args):
        if name is None or getattr(key, "name", "") == name:
            seen.append(key)
        before(key, *args)

    device._listener.on_press = on_press
    return seen


def listening(fingers, device):
    """pynput says it is ready some milliseconds before it hears the first key."""
    seen, deadline = watched(device), time.monotonic() + PATIENCE_S
    while not seen:
        assert time.monotonic() < deadline, "pynput does not listen"
        for down in (True, False):
            fingers.key("F9", down)
        time.sleep(0.005)
    settled(fingers, device)


def settled(fingers, device):
    """Everything typed so far has arrived: events keep their order, so one more, that means nothing here."""
    seen = watched(device, "f10")
    fingers.key("F10", True)
    fingers.key("F10", False)
    arrives(device, lambda _: seen)
    time.sleep(device._held.bounce_s)


@pytest.mark.parametrize("control", [c for c in CONTROLS if c.key], ids=lambda control: control.key)
def test_every_key_drives_the_arm(fingers, vector_env, control):
    with make_device("keyboard") as device:
        rig = Rig(vector_env, device)
        listening(fingers, device)
        assert_drives(
            rig,
            control,
            press=lambda c: fingers.key(X11_NAMES[c.key], True),
            release=lambda c: fingers.key(X11_NAMES[c.key], False),
            settle=lambda: settled(fingers, device),
        )


def test_space_toggles_and_stays_toggled_in_modes_hold_and_toggle(fingers, vector_env):
    for mode in ("hold", "toggle"):
        with make_device("keyboard") as device:
            rig = Rig(vector_env, device, mode=mode)
            listening(fingers, device)
            for expected in (True, False):
                for down in (True, False):
                    fingers.key("space", down)
                settled(fingers, device)
                rig.now += 1.0  # past the debounce
                assert [rig.step()[1] for _ in range(20)] == [expected] * 20
                rig.reset()  # another episode changes nothing
                assert rig.step()[1] == expected
            fingers.key("Up", True)  # in both modes a motion key takes over while held, however often
            fingers.key("Up", False)
            settled(fingers, device)
            assert rig.step()[1]
            rig.now += 1.0
            assert not rig.step()[1]


def test_the_servers_key_repeat_is_neither_a_release_nor_a_press(fingers, keyboard):
    presses = watched(keyboard)
    fingers.key("space", True)
    arrives(keyboard, lambda command: command.intervening, keyboard.read)
    deadline = time.monotonic() + PATIENCE_S
    while len(presses) < 6:  # the X server repeats the key by itself after half a second
        assert keyboard.read().intervening
        assert time.monotonic() < deadline, "the server repeats no keys"
        time.sleep(0.001)
    fingers.key("space", False)
    fingers.key("Up", True)
    arrives(keyboard, lambda command: command.motion[0] == 1.0, keyboard.read)
    presses.clear()
    while len(presses) < 6:
        assert keyboard.read().motion == (1.0, 0.0, 0.0)
        time.sleep(0.001)


def test_a_repeat_that_comes_as_release_and_press_is_none_either(fingers, keyboard):
    fingers.key("space", True)
    for _ in range(5):  # as X servers tell clients that did not ask for less
        fingers.key("space", False)
        fingers.key("space", True)
        settled(fingers, keyboard)
        assert keyboard.read().intervening


def test_a_tap_between_two_reads_counts_once(fingers, keyboard):
    for down in (True, False):
        fingers.key("Return", down)
        fingers.key("Left", down)
    settled(fingers, keyboard)
    command = keyboard.read()
    assert (command.motion, command.end) == ((0.0, 1.0, 0.0), EpisodeEnd.SUCCESS)
    assert keyboard.read() == IDLE


def test_a_verdict_on_the_last_episode_does_not_end_the_next(fingers, keyboard):
    fingers.key("Escape", True)
    fingers.key("Up", True)
    settled(fingers, keyboard)
    keyboard.reset()
    command = keyboard.read()
    assert (command.end, command.motion) == (EpisodeEnd.NONE, (1.0, 0.0, 0.0))  # what is held is still held


def test_opposite_keys_cancel_and_other_keys_do_nothing(fingers, keyboard):
    for name in ("Up", "Down", "Control_L", "Control_R"):
        fingers.key(name, True)
    settled(fingers, keyboard)
    command = keyboard.read()
    assert (command.motion, int(command.gripper), command.intervening) == ((0.0, 0.0, 0.0), 1, True)
    for name in ("Up", "Down", "Control_L", "Control_R"):
        fingers.key(name, False)
    for name in ("a", "Tab", "F5"):
        fingers.key(name, True)
        fingers.key(name, False)
    settled(fingers, keyboard)
    assert keyboard.read() == IDLE


def test_r_counts_while_shift_is_held_for_z(fingers, keyboard):
    fingers.key("Shift_R", True)
    fingers.key("r", True)
    fingers.key("r", False)
    settled(fingers, keyboard)
    assert keyboard.read().end is EpisodeEnd.RERECORD


@pytest.mark.parametrize("layout", ["ru", "ru,us", "gr", "il", "ara"])
@pytest.mark.parametrize("control", [c for c in CONTROLS if c.key in ("r", "l")], ids=lambda c: c.key)
def test_a_layout_without_latin_letters_has_r_and_l_at_their_places(
    fingers, lay_out, vector_env, layout, control
):
    lay_out(layout)
    with make_device("keyboard") as device:
        rig = Rig(vector_env, device)
        listening(fingers, device)
        assert_drives(
            rig,
            control,
            press=lambda c: fingers.key(c.key, True),
            release=lambda c: fingers.key(c.key, False),
            settle=lambda: settled(fingers, device),
        )


def test_l_and_r_at_their_places_count_as_long_as_held_and_with_shift(fingers, lay_out):
    lay_out("ru")
    with make_device("keyboard") as device:
        device.start(ENV)
        listening(fingers, device)
        fingers.key("l", True)
        settled(fingers, device)
        time.sleep(3 * WATCH_S)  # the watcher knows which key it is
        assert device.read().label
        fingers.key("l", False)
        fingers.key("Shift_R", True)
        fingers.key("r", True)
        settled(fingers, device)
        command = device.read()
        assert (command.label, command.end) == (False, EpisodeEnd.RERECORD)


def test_another_latin_layout_has_r_where_it_types_it(fingers, lay_out):
    lay_out("us", "dvorak")
    with make_device("keyboard") as device:
        device.start(ENV)
        listening(fingers, device)
        for name, end in (("r", EpisodeEnd.NONE), ("o", EpisodeEnd.RERECORD)):  # they type p and r
            fingers.key(name, True)
            fingers.key(name, False)
            settled(fingers, device)
            assert device.read().end is end


def test_keys_that_type_nothing_mean_nothing(fingers, lay_out):
    lay_out("ara", "buckwalter")  # shifted R and L type nothing, as e does
    with make_device("keyboard") as device:
        device.start(ENV)
        listening(fingers, device)
        fingers.key("e", True)
        settled(fingers, device)
        assert device.read() == IDLE
        fingers.key("e", False)
        settled(fingers, device)


def test_a_release_that_never_arrives_is_noticed(keyboard, fingers):
    fingers.key("Up", True)
    settled(fingers, keyboard)
    keyboard._held.press("+y")  # as if another program had taken the release of ←
    assert keyboard.read().motion == (1.0, 1.0, 0.0)
    arrives(keyboard, lambda command: command.motion == (1.0, 0.0, 0.0), keyboard.read)


def test_read_never_blocks(keyboard):
    slowest = 0.0
    for _ in range(1000):
        start = time.perf_counter()
        keyboard.read()
        slowest = max(slowest, time.perf_counter() - start)
    assert slowest < 0.05


def test_a_display_that_goes_away_hands_over_at_once_with_one_message(vector_env, monkeypatch, caplog):
    server = Xvfb()
    monkeypatch.setenv("DISPLAY", server.name)
    with make_device("keyboard") as device, caplog.at_level(logging.WARNING, "hil_rllib"):
        rig = Rig(vector_env, device)
        fingers = Fingers(server.name)
        listening(fingers, device)
        fingers.key("Up", True)
        settled(fingers, device)
        assert rig.step(BACKWARDS)[1]
        server.stop()
        deadline = time.monotonic() + PATIENCE_S
        while device._listener is not None and device._listener.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not any(rig.step(BACKWARDS)[1] for _ in range(50))
        (record,) = caplog.records
        assert "the display is gone" in record.message


@pytest.mark.parametrize(
    ("display", "reason"), [(None, "DISPLAY is not set"), (":4711", "none answers at DISPLAY=:4711")]
)
def test_without_a_display_it_says_what_to_do(monkeypatch, display, reason):
    monkeypatch.delenv("DISPLAY", raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", display)
    for attempt in (lambda: check_present("keyboard"), lambda: make_device("keyboard").start(ENV)):
        with pytest.raises(DeviceUnavailable, match=f"{re.escape(reason)}.*Run on a desktop.*another device"):
            attempt()


def test_without_pynput_it_says_what_to_install(fingers, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DeviceUnavailable, match="pip install pynput"):
        check_present("keyboard")


def test_auto_takes_the_keyboard_where_there_is_a_display_and_no_gamepad(fingers, sdl_library):
    assert isinstance(make_device("auto"), KeyboardDevice)


def test_wayland_is_warned_of(fingers, monkeypatch, caplog):
    monkeypatch.setenv("XDG_SESSION_TYPE", "wayland")
    with caplog.at_level(logging.WARNING), make_device("keyboard") as device:
        device.start(ENV)
    assert "only while an X11 window has the focus" in caplog.text


def test_macos_without_the_right_to_listen_says_where_to_give_it(monkeypatch):
    listener = SimpleNamespace(
        IS_TRUSTED=False,
        run=print,
        start=lambda: None,
        wait=lambda: None,
        stop=lambda: None,
        is_alive=lambda: True,
    )
    fake = SimpleNamespace(Key=SimpleNamespace(**dict.fromkeys(X11_NAMES)), Listener=lambda **_: listener)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "pynput", SimpleNamespace(keyboard=fake))
    with pytest.raises(DeviceUnavailable, match="Accessibility and under Input Monitoring"):
        KeyboardDevice().start(ENV)
