"""Gamepads through SDL itself: a virtual joystick below pygame, with everything a real one does."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
from operator_rig import BACKWARDS, Rig, assert_drives
from virtual_joystick import sdl_mapping

from hil_rllib.contract import IDLE, EpisodeEnd, Gripper
from hil_rllib.devices import DeviceUnavailable, check_present, device_class, make_device
from hil_rllib.devices.browser.device import BrowserDevice
from hil_rllib.devices.controls import CONTROLS
from hil_rllib.devices.gamepad import GamepadDevice
from hil_rllib.devices.gamepad_maps import SHIPPED, shipped_maps
from hil_rllib.devices.sdl_joystick import Found, from_sdl

ENV = gymnasium.Env()
MAPS = json.loads(SHIPPED.read_text())
GYM_HIL_DEFAULT = {  # its numbers in SDL's notation
    **{
        "leftx": "a0",
        "lefty": "a1",
        "rightx": "a2",
        "righty": "a3",
        "a": "b0",
        "b": "b1",
        "x": "b2",
        "y": "b3",
    },
    **{"leftshoulder": "b4", "rightshoulder": "b5", "lefttrigger": "b6", "righttrigger": "b7"},
}
SDL_NAMES = {"lb": "leftshoulder", "rb": "rightshoulder", "lt": "lefttrigger", "rt": "righttrigger"}
STICKS = {  # SDL: up and left are negative
    **{"left_stick_up": ("lefty", -1), "left_stick_down": ("lefty", 1)},
    **{"left_stick_left": ("leftx", -1), "left_stick_right": ("leftx", 1)},
    **{"right_stick_up": ("righty", -1), "right_stick_down": ("righty", 1)},
}
EXPECTED = {  # without the trigger
    "+x": {"motion": (1, 0, 0)},
    "-x": {"motion": (-1, 0, 0)},
    "+y": {"motion": (0, 1, 0)},
    "-y": {"motion": (0, -1, 0)},
    "+z": {"motion": (0, 0, 1)},
    "-z": {"motion": (0, 0, -1)},
    "open": {"gripper": Gripper.OPEN},
    "close": {"gripper": Gripper.CLOSE},
    "intervene": {"intervening": True},
    "toggle": {"intervening": True},
    "success": {"end": EpisodeEnd.SUCCESS},
    "failure": {"end": EpisodeEnd.FAILURE},
    "rerecord": {"end": EpisodeEnd.RERECORD},
    "label": {"label": True},
}


def set_control(joystick, mapping, control, down):
    """Press or release what SDL's mapping says the control's button or stick is."""
    element, sign = STICKS.get(control.pad, (SDL_NAMES.get(control.pad, control.pad), 1))
    kind, index = mapping[element][0], int(mapping[element][1:])
    if kind == "b":
        joystick.button(index, down)
    elif control.pad in STICKS:
        joystick.axis(index, sign if down else 0)
    else:
        joystick.axis(index, 1 if down else -1)  # a trigger


def shape_of(name):
    shape = MAPS[name].get("shape", {"axes": 4, "buttons": 8, "hats": 0})
    return tuple(shape[part] if isinstance(shape[part], int) else shape[part][0] for part in shape)


def mapping_of(library, name):
    source = MAPS[name]["source"]
    return GYM_HIL_DEFAULT if name == "default" else sdl_mapping(library, source.split()[-1])


def plugged_in_as(plug, name):
    os_name = name if name == "default" or "(" not in name else MAPS[name]["names"][0]
    return plug(os_name, shape_of(name))


@pytest.mark.parametrize("name", MAPS)
def test_every_control_of_every_shipped_map_is_where_sdl_says(plug, sdl_library, name):
    joystick, mapping = plugged_in_as(plug, name), mapping_of(sdl_library, name)
    with make_device("gamepad") as device:
        device.start(ENV)
        for trigger in ("lefttrigger", "righttrigger"):
            if mapping[trigger][0] == "a":
                joystick.axis(int(mapping[trigger][1:]), -1)
        assert device.read() == IDLE
        assert device.labels == MAPS[name].get("labels", {})
        for control in CONTROLS:
            set_control(joystick, mapping, control, True)
            command = device.read()
            assert {key: getattr(command, key) for key in EXPECTED[control.name]} == EXPECTED[control.name]
            set_control(joystick, mapping, control, False)
            if control.name == "toggle":  # on until pressed again
                assert device.read().intervening
                set_control(joystick, mapping, control, True)
                assert not device.read().intervening
                set_control(joystick, mapping, control, False)
            assert device.read() == IDLE


def test_each_name_and_shape_means_one_map():
    device = GamepadDevice()
    for name, entry in MAPS.items():
        for os_name in [n for n in (name, *entry.get("names", [])) if "default" not in n]:
            if not (os_name == name and "(" in name):
                assert device.choose_map(Found(0, os_name, shape_of(name))).name == name


@pytest.fixture(scope="module")
def any_pad(sdl_library):
    return "PS4 Controller", mapping_of(sdl_library, "PS4 Controller")


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_every_control_drives_the_arm(plug, vector_env, any_pad, control):
    name, mapping = any_pad
    joystick = plugged_in_as(plug, name)
    takes_over = next(c for c in CONTROLS if c.name == "intervene")
    ends = control.name in ("success", "failure", "rerecord", "label")

    def press(pressed, down=True):
        set_control(joystick, mapping, pressed, down)
        if control.name != "toggle" and not ends:  # the sticks move the arm while RB is held
            set_control(joystick, mapping, takes_over, down)

    with make_device("gamepad") as device:
        rig = Rig(vector_env, device)
        assert_drives(rig, control, press, lambda released: press(released, False))


def test_the_sticks_alone_move_nothing(plug, vector_env, any_pad):
    joystick = plugged_in_as(plug, any_pad[0])
    with make_device("gamepad") as device:
        rig = Rig(vector_env, device)
        joystick.axis(1, -1)
        assert not any(rig.step()[1] for _ in range(3))


def test_unplugged_while_intervening_hands_over_at_once_with_one_message_and_resumes(
    plug, vector_env, any_pad, caplog
):
    name, mapping = any_pad
    joystick = plugged_in_as(plug, name)
    takes_over = next(c for c in CONTROLS if c.name == "intervene")
    with make_device("gamepad") as device, caplog.at_level(logging.WARNING, "hil_rllib"):
        rig = Rig(vector_env, device, retry_s=2.0)
        set_control(joystick, mapping, takes_over, True)
        joystick.axis(1, -1)
        assert [rig.step(BACKWARDS)[1] for _ in range(3)] == [True] * 3
        forward = rig.tcp()[0]
        joystick.unplug()
        for _ in range(30):  # three seconds: a retry fails in between
            action, flag, _ = rig.step(BACKWARDS)
            assert not flag
            assert action is BACKWARDS
        assert rig.tcp()[0] < forward - 0.05
        assert len(caplog.records) == 1
        assert f"{name!r} was unplugged. Plug it in again" in caplog.text
        joystick = plugged_in_as(plug, name)
        set_control(joystick, mapping, takes_over, True)
        for _ in range(20):  # by then a retry has found it
            rig.step(BACKWARDS)
        set_control(joystick, mapping, takes_over, False)
        rig.now += 1.0
        assert not rig.step(BACKWARDS)[1]
        set_control(joystick, mapping, takes_over, True)
        assert rig.step(BACKWARDS)[1]
        assert "is back" in caplog.records[-1].message
        assert len(caplog.records) == 2


def test_mode_toggle_makes_rb_a_toggle(plug, vector_env, any_pad):
    name, mapping = any_pad
    joystick = plugged_in_as(plug, name)
    takes_over = next(c for c in CONTROLS if c.name == "intervene")
    with make_device("gamepad") as device:
        rig = Rig(vector_env, device, mode="toggle")
        flags = []
        for _ in range(2):
            for down in (True, False):
                set_control(joystick, mapping, takes_over, down)
                flags.append(rig.step()[1])
        rig.now += 1.0  # past the debounce
        assert [*flags[:2], rig.step()[1]] == [True, True, False]


def test_a_tap_between_two_reads_counts_once(plug, any_pad):
    joystick = plugged_in_as(plug, any_pad[0])
    with make_device("gamepad") as device:
        device.start(ENV)
        joystick.button(2, True)
        device._poll()
        joystick.button(2, False)
        assert device.read().end is EpisodeEnd.SUCCESS
        assert device.read().end is EpisodeEnd.NONE
        joystick.button(2, True)
        device.reset()  # an episode begins: the press was about the last one
        assert device.read().end is EpisodeEnd.NONE


def test_what_is_down_when_plugged_in_was_not_pressed(plug, any_pad):
    joystick = plugged_in_as(plug, any_pad[0])
    joystick.button(4, True)  # the toggle
    joystick.button(3, True)  # rerecord
    with make_device("gamepad") as device:
        device.start(ENV)
        assert device.read() == IDLE


def test_motion_starts_at_zero_beyond_the_dead_zone(plug):
    joystick = plug("default", (4, 8, 0))
    with make_device("gamepad", dead_zone=0.2) as device:
        device.start(ENV)
        for deflection, motion in [(0.19, 0.0), (0.21, 0.0125), (0.6, 0.5), (1.0, 1.0), (-0.6, -0.5)]:
            joystick.axis(3, deflection)
            assert device.read().motion == pytest.approx((0.0, 0.0, -motion), abs=1e-3)


def test_an_unknown_controller_is_read_by_sdls_own_map(plug, sdl_library):
    joystick = plug("Exotic pad", (4, 12, 1), product=77)
    text = (
        f"{joystick.guid()},Exotic,a:b9,b:b8,x:b7,y:b6,leftshoulder:h0.8,rightshoulder:b1,lefttrigger:-a3,"
        "righttrigger:b2,leftx:a2~,lefty:a1,rightx:a3,righty:a0,"
    )
    assert sdl_library.SDL_GameControllerAddMapping(text.encode()) == 1
    with make_device("gamepad") as device:
        device.start(ENV)
        joystick.axis(0, -1)  # right stick up
        joystick.axis(2, 1)  # left stick left, as `~` says
        joystick.axis(3, -1)  # left trigger
        joystick.button(1, True)
        command = device.read()
        assert command.motion == (0.0, 1.0, 1.0)
        assert (command.gripper, command.intervening) == (Gripper.CLOSE, True)
        joystick.button(1, False)
        joystick.hat(0, (-1, 0))
        assert device.read().intervening


def test_sdls_notation_is_understood():
    mapping = {"leftx": "a0", "lefty": "a1~", "righty": "a4", "a": "b3", "x": "h0.4", "lefttrigger": "a5~"}
    entry = from_sdl(mapping)
    assert entry["axes"] == {"left_x": 0, "left_y": 1, "right_y": 4}
    assert entry["axis_inversion"] == {"left_x": True, "left_y": False, "right_y": True}
    assert {k: entry["buttons"][k] for k in ("a", "x", "lt", "rt")} == {
        **{"a": 3, "x": "hat 0 down", "lt": "axis 5 -", "rt": None}
    }
    assert from_sdl({"leftx": "a0", "lefty": "a1"}) is None  # without a right stick no z


def test_an_unknown_controller_without_any_map_gets_the_default_and_one_warning(plug, caplog):
    joystick = plug("Nameless", (4, 8, 0))
    device = GamepadDevice()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            device.start(ENV)
    joystick.button(5, True)
    assert device.read().intervening
    device.close()
    (record,) = [r for r in caplog.records if "Nameless" in r.message]
    assert "'default' is used" in record.message
    assert "--calibrate" in record.message


def test_a_map_that_looks_where_there_is_nothing_is_refused(plug):
    plug("Tiny", (2, 2, 0))
    with pytest.raises(
        DeviceUnavailable, match=r"'Tiny' has no right_x, right_y, x, .* where the map 'default'"
    ):
        GamepadDevice().start(ENV)


def test_ones_own_map_is_used_by_name(plug, tmp_path):
    own = {
        "PS4 Controller": {
            "axes": {"left_x": "hat 0 x", "left_y": "hat 0 y", "right_y": 0},
            "buttons": {"a": None, "x": None, "y": 0, "rb": 1, "lt": "axis 1 -", "rt": "axis 1 +"},
            "axis_inversion": {"left_x": True, "left_y": True, "right_y": False},
        }
    }
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(own))
    joystick = plug("PS4 Controller", (2, 2, 1))
    with make_device("gamepad", controller_config=path) as device:
        device.start(ENV)
        joystick.hat(0, (0, 1))
        joystick.axis(0, 1)
        joystick.axis(1, -1)
        command = device.read()
        assert command.motion == (1.0, 0.0, 1.0)
        assert command.gripper is Gripper.CLOSE


@pytest.fixture
def own_map(tmp_path):
    """A calibrated map: of one controller, without a default."""
    axes, buttons = {"left_x": 0, "left_y": 1, "right_y": 3}, {"a": 0, "x": 2, "y": 3, "rb": 1}
    path = tmp_path / "my_pad.json"
    path.write_text(json.dumps({"My pad": {"axes": axes, "buttons": {**buttons, "lt": None, "rt": None}}}))
    return path


def test_a_joystick_that_no_map_fits_does_not_stand_before_ones_own(plug, own_map, caplog):
    plug("Some receiver", (2, 2, 0))
    refused = (
        rf"{own_map} has no map for 'Some receiver' and no 'default', only My pad\. Plug in another gamepad, "
        "or make a map of your own: .* --calibrate"
    )
    with make_device("gamepad", controller_config=own_map) as device:
        for attempt in (
            lambda: check_present("gamepad", controller_config=own_map),
            lambda: device.start(ENV),
        ):
            with pytest.raises(DeviceUnavailable, match=refused):
                attempt()
        joystick = plug("My pad", (4, 4, 0))
        check_present("gamepad", controller_config=own_map)
        device.start(ENV)
        joystick.button(1, True)
        assert device.read().intervening
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_each_joystick_that_no_map_fits_is_named(plug):
    plug("Mouse", (2, 2, 0))
    plug("Wheel", (3, 20, 1))
    with pytest.raises(DeviceUnavailable, match=r"'Mouse' has no right_x.*'Wheel' has no right_y where"):
        check_present("gamepad")


def test_auto_passes_over_a_joystick_that_no_map_fits_and_says_so(plug, monkeypatch, caplog):
    monkeypatch.delenv("DISPLAY", raising=False)
    plug("Virtual USB Mouse", (2, 2, 0))
    with caplog.at_level(logging.INFO):
        assert isinstance(make_device("auto"), BrowserDevice)
    passed_over, taken = caplog.messages
    assert "'auto' is not the gamepad: 'Virtual USB Mouse' has no right_x" in passed_over
    assert taken == "Input device 'auto' is the browser."
    check_present("auto")
    plug("PS4 Controller", (6, 13, 1))
    assert device_class("auto") is GamepadDevice


def test_auto_takes_the_gamepad_that_ones_own_map_fits(plug, own_map, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    plug("My pad", (4, 4, 0))  # fewer buttons than the shipped default has
    assert isinstance(make_device("auto", controller_config=own_map), GamepadDevice)
    check_present("auto", controller_config=own_map)
    assert isinstance(make_device("auto"), BrowserDevice)


def test_looking_which_gamepad_fits_leaves_an_open_one_alone(plug):
    joystick = plug("PS4 Controller", (6, 13, 1))
    plug("Virtual USB Mouse", (2, 2, 0))
    with make_device("gamepad") as device:
        device.start(ENV)
        joystick.button(5, True)
        check_present("gamepad")
        assert device.read().intervening
        check_present("gamepad")
        joystick.button(5, False)
        assert not device.read().intervening


def test_other_joysticks_that_come_and_go_do_no_harm(plug):
    others = [plug("Virtual USB Mouse", (2, 2, 0)) for _ in range(2)]
    assert GamepadDevice.missing() is None
    for other in others:
        other.unplug()
    here, joystick = plug("Virtual USB Mouse", (2, 2, 0)), plug("PS4 Controller", (6, 13, 1))
    with make_device("gamepad") as device:
        device.start(ENV)
        joystick.button(5, True)
        assert device.read().intervening
        here.unplug()
        assert device.read().intervening
        later = plug("Virtual USB Mouse", (2, 2, 0))
        assert device.read().intervening
        later.unplug()
        assert device.read().intervening


def test_a_joystick_that_goes_while_it_is_looked_at_is_none(plug, monkeypatch):
    plug("PS4 Controller", (6, 13, 1))
    import pygame

    def gone(index):
        raise pygame.error("Joystick not found")

    monkeypatch.setattr("pygame.joystick.Joystick", gone)
    with pytest.raises(DeviceUnavailable, match="No gamepad is plugged in"):
        GamepadDevice().start(ENV)


def test_without_a_gamepad_it_says_what_to_do(sdl_library):
    for attempt in (lambda: check_present("gamepad"), lambda: GamepadDevice().start(ENV)):
        with pytest.raises(DeviceUnavailable, match=r"No gamepad is plugged in\. Plug one in, or choose"):
            attempt()


def test_auto_takes_the_gamepad_that_is_plugged_in(plug):
    plug("PS4 Controller", (6, 13, 1))
    assert isinstance(make_device("auto"), GamepadDevice)


def test_it_opens_no_window_and_leaves_signals_alone():
    code = (
        "import os, signal, gymnasium; from hil_rllib.devices import make_device, DeviceUnavailable\n"
        "try: make_device('gamepad').start(gymnasium.Env())\n"
        "except DeviceUnavailable: pass\n"
        "import pygame\n"
        "print(pygame.display.get_driver(), pygame.display.get_surface(), pygame.mixer.get_init(),"
        " os.environ.get('SDL_VIDEODRIVER'), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGTERM); signal.pause()"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SDL_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.split() == ["dummy", "None", "None", "None"]
    assert done.returncode == -signal.SIGTERM


def test_shipped_maps_cover_the_controllers_people_own():
    for controller in (
        *("default", "Xbox 360 Controller", "Xbox One Controller", "Xbox Series X Controller"),
        *("DualShock 4", "PS4 Controller", "DualSense", "Logitech Gamepad F310", "Logitech RumblePad 2"),
        *("Logitech Cordless RumblePad 2", "Logitech Wireless Gamepad F710", "8BitDo Pro 2", "Switch Pro"),
    ):
        assert any(shipped.is_called(controller) for shipped in shipped_maps().values()), controller
