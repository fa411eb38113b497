"""Calibration with a person who answers each question on a virtual joystick."""

from __future__ import annotations

import json
import os
import re

import gymnasium
import pytest

from hil_rllib.contract import EpisodeEnd, Gripper
from hil_rllib.devices import DeviceUnavailable, make_device
from hil_rllib.devices.calibrate import Aborted, calibrate, questions

ENV = gymnasium.Env()
# An odd pad: sticks on axes 4 and 2 and on a hat, one the wrong way round; triggers that rest at −1 and +1.
ODD = {
    "left_y": ("axis", 4, 1.0),  # up is positive
    "left_x": ("axis", 2, -1.0),
    "right_y": ("hat", 1, (0, 1)),
    "rt": ("axis", 0, 1.0),
    "lt": ("axis", 1, -1.0),
    "rb": ("button", 9, True),
    "lb": ("button", 0, True),
    "y": ("hat", 0, (0, -1)),
    "a": ("hat", 0, (1, 0)),
    "x": ("button", 3, True),
    "b": ("button", 5, True),
}
REST = {0: -1.0, 1: 1.0}
SHAPE = (5, 10, 2)


class Person:
    """Does what is asked, twenty milliseconds at a time; `types` maps a question to what is typed instead."""

    def __init__(self, joystick, pad=ODD, types=None):
        self.joystick, self.pad, self.types = joystick, pad, dict(types or {})
        self.said, self.todo, self.typing, self.looks = [], [], None, 0
        for axis, value in REST.items():
            joystick.axis(axis, value)

    def say(self, line):
        self.said.append(line)
        if asked := re.match(r"\[(\d+)/\d+\]", line):
            key = questions()[int(asked[1]) - 1].key
            if words := self.types.get(key):
                self.typing = words.pop(0)
                if self.typing is not None:
                    return
            self.todo = [lambda: self.move(key, True), lambda: None, lambda: self.move(key, False)]

    def typed(self):
        word, self.typing = self.typing, None
        return word

    def sleep(self, _):
        self.looks += 1
        assert self.looks < 5000, f"nothing goes on after: {self.said[-1]}"
        if self.todo:
            self.todo.pop(0)()

    def move(self, key, down):
        kind, index, value = self.pad[key]
        if kind == "axis":
            self.joystick.axis(index, value if down else REST.get(index, 0.0))
        elif kind == "hat":
            self.joystick.hat(index, value if down else (0, 0))
        else:
            self.joystick.button(index, down)

    def calibrate(self, path, **options):
        return calibrate(path, say=self.say, typed=self.typed, sleep=self.sleep, **options)


def test_a_calibrated_map_drives_every_control(plug, tmp_path):
    joystick = plug("Odd pad", SHAPE)
    person = Person(joystick)
    path = person.calibrate(tmp_path / "new" / "odd.json")
    assert path.read_text().startswith('{\n  "Odd pad"')
    assert f"--controller-config {path}" in person.said[-2]
    assert f"operator.controller_config={path}" in person.said[-1]
    with make_device("gamepad", controller_config=path) as device:
        device.start(ENV)

        def command(*keys):
            for key in keys:
                person.move(key, True)
            read = device.read()
            for key in keys:
                person.move(key, False)
            device.read()
            return read

        assert command("left_y", "left_x", "right_y").motion == (1.0, 1.0, 1.0)
        joystick.axis(4, -1.0)
        joystick.axis(2, 1.0)
        joystick.hat(1, (0, -1))
        assert device.read().motion == (-1.0, -1.0, -1.0)
        assert command("rt").gripper is Gripper.OPEN
        assert command("lt").gripper is Gripper.CLOSE
        assert command("rb").intervening
        assert (command("lb").intervening, command("lb").intervening) == (True, False)
        ends = [command(key).end for key in ("y", "a", "x")]
        assert ends == [EpisodeEnd.SUCCESS, EpisodeEnd.FAILURE, EpisodeEnd.RERECORD]


def test_skipped_controls_are_left_out_and_r_asks_again(plug, tmp_path):
    joystick = plug("Odd pad", SHAPE)
    # At the second question r: the first is asked again. lt is skipped. rb cannot be.
    person = Person(joystick, types={"left_x": ["r"], "lt": ["s"], "rb": ["s"]})
    path = person.calibrate(tmp_path / "odd.json", name="Mine")
    entry = json.loads(path.read_text())["Mine"]
    assert (entry["buttons"]["lt"], entry["buttons"]["rt"]) == (None, "axis 0 +")
    asked = [int(found[1]) for line in person.said if (found := re.match(r"\[(\d+)/", line))]
    rb = [question.key for question in questions()].index("rb") + 1
    assert asked == [1, 2, 1, 2, *range(3, rb), rb, rb, *range(rb + 1, len(questions()) + 1)]
    assert any("cannot be driven without it" in line for line in person.said)


def test_one_button_cannot_be_given_twice(plug, tmp_path):
    joystick = plug("Odd pad", SHAPE)
    person = Person(joystick, pad={**ODD, "x": ODD["y"]}, types={"x": [None, "s"]})
    entry = json.loads(person.calibrate(tmp_path / "odd.json").read_text())["Odd pad"]
    assert entry["buttons"]["x"] is None
    assert any(
        "That is what you gave for: Press the button for: end the episode: suc" in s for s in person.said
    )


PRESSED_SLOWLY = (-0.95, -0.5, 0.0, 0.5, 1.0)


@pytest.mark.parametrize("ends", [(0.5, -0.5, -1.0), (*[1.0] * 20, -1.0)], ids=["tapped", "held"])
@pytest.mark.parametrize("way", [1, -1])
def test_a_trigger_whose_rest_was_read_wrongly_is_taken_the_way_it_was_pressed(plug, tmp_path, ends, way):
    joystick = plug("Odd pad", SHAPE)
    person = Person(joystick)  # of axis 3 SDL knows nothing before it moves, and says 0
    said = person.say

    def say(line):
        said(line)
        if "open the gripper" in line:
            path = (*PRESSED_SLOWLY, *ends)
            person.todo = [lambda value=value: joystick.axis(3, way * value) for value in path]

    person.say = say
    entry = json.loads(person.calibrate(tmp_path / "odd.json").read_text())["Odd pad"]
    assert entry["buttons"]["rt"] == f"axis 3 {'+' if way > 0 else '-'}"
    assert entry["buttons"]["lt"] == "axis 1 -"


@pytest.mark.parametrize("then", ["q", "moved back"])
def test_who_holds_a_control_is_told_to_let_it_go_and_is_heard(plug, tmp_path, then):
    joystick = plug("Odd pad", SHAPE)
    person = Person(joystick, pad={**ODD, "left_y": ("axis", 3, -1.0)})  # a throttle, which stays
    said, move = person.say, person.move
    person.move = lambda key, down: move(key, down) if down or key != "left_y" else None

    def say(line):
        said(line)
        if "Let go of it" in line:
            if then == "q":
                person.typing = "q"
            else:
                joystick.axis(3, 0.0)

    person.say = say
    if then == "q":
        with pytest.raises(Aborted, match="nothing was written"):
            person.calibrate(tmp_path / "odd.json")
    else:
        assert person.calibrate(tmp_path / "odd.json").is_file()
    assert [line for line in person.said if "give up with q" in line] == [
        "  Let go of it. If it stays where it is, move it back by hand, or give up with q."
    ]


def test_other_maps_in_the_file_stay(plug, tmp_path):
    joystick = plug("Odd pad", SHAPE)
    path = tmp_path / "pads.json"
    axes, buttons = (
        {"left_x": 0, "left_y": 1, "right_y": 3},
        dict.fromkeys(("a", "x", "y", "rb", "lt", "rt"), 0),
    )
    other = {"Other": {"axes": axes, "buttons": buttons}}
    path.write_text(json.dumps(other))
    Person(joystick).calibrate(path)
    assert json.loads(path.read_text())["Other"] == other["Other"]
    assert sorted(json.loads(path.read_text())) == ["Odd pad", "Other"]


@pytest.mark.parametrize("how", ["typed", "unplugged", "interrupted"])
def test_giving_up_leaves_the_file_as_it_was(plug, tmp_path, monkeypatch, how):
    joystick = plug("Odd pad", SHAPE)
    path = tmp_path / "odd.json"
    Person(joystick).calibrate(path)
    before = path.read_bytes()
    person = Person(joystick, types={"rb": ["q"]} if how == "typed" else {})
    expected = {"typed": Aborted, "unplugged": DeviceUnavailable, "interrupted": KeyboardInterrupt}[how]
    if how == "unplugged":
        person.move = lambda key, down: joystick.unplug()
    if how == "interrupted":  # at the worst moment: the new file is written and not yet in place
        monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(expected):
        person.calibrate(path, name="Again")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_typed_in_the_terminal_is_heard(plug, tmp_path, monkeypatch):
    plug("Odd pad", SHAPE)
    ours, theirs = os.openpty()
    said = []

    def say(line):
        said.append(line)
        if line.startswith("[1/"):
            os.write(ours, b"q\n")

    with os.fdopen(theirs) as terminal, os.fdopen(ours):
        monkeypatch.setattr("sys.stdin", terminal)
        with pytest.raises(Aborted):
            calibrate(tmp_path / "odd.json", say=say)
    assert len([line for line in said if line.startswith("[")]) == 1


def test_without_a_gamepad_or_over_another_kind_of_file_nothing_is_asked(plug, tmp_path, sdl_library):
    with pytest.raises(DeviceUnavailable, match="Plug in the one to calibrate"):
        calibrate(tmp_path / "odd.json", say=pytest.fail)
    path = tmp_path / "notes.json"
    path.write_text('{"my": "notes"}')
    with pytest.raises(ValueError, match=r"notes\.json: 'my' must be an object"):
        calibrate(path, say=pytest.fail)
