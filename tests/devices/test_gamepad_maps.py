"""Files of controllers: gym-hil's are read, bad ones are refused by file, key and what would fit."""

from __future__ import annotations

import json
import logging
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from hil_rllib.devices import make_device
from hil_rllib.devices.gamepad_maps import RawState, load_controller_config, load_maps

GOOD = {
    "axes": {"left_x": 0, "left_y": 1, "right_y": 3},
    "buttons": {"a": 0, "x": 2, "y": 3, "rb": 5, "lt": 6, "rt": 7},
}


def changed(section, **values):
    entry = {**GOOD, section: {**GOOD.get(section, {}), **values}}
    return {"My pad": {**entry, section: {k: v for k, v in entry[section].items() if v != "gone"}}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"My pad": {"axes": }', "not JSON, at line 1 column 21"),
        ([1], "must be an object of controllers by name"),
        ({}, "must be an object of controllers by name"),
        ({"My pad": 3}, "'My pad' must be an object with 'axes' and 'buttons'; got 3."),
        (
            {"My pad": {**GOOD, "button": {}}},
            "unknown key 'button'. Did you mean 'buttons'? Choose from axes,",
        ),
        ({"My pad": {"axes": GOOD["axes"]}}, "needs 'buttons', an object of a, b, x, y, lb, rb, lt, rt; got"),
        (changed("axes", right_y="gone"), "'My pad': axes lacks right_y."),
        (changed("buttons", rb="gone", y="gone"), "'My pad': buttons lacks y, rb."),
        (changed("buttons", r1=4), "'My pad': buttons: unknown key 'r1'."),
        (
            changed("axes", left_x="seven"),
            "axes.left_x is 'seven'; give an axis number, 'hat N x' or 'hat N y'.",
        ),
        (
            changed("buttons", a=-1),
            "buttons.a is -1; give a button number, 'axis N +', 'axis N -', 'hat N up",
        ),
        (changed("buttons", a=True), "buttons.a is True; give a button number"),
        (changed("axis_inversion", left_x="yes"), "axis_inversion.left_x is 'yes'; give true or false."),
        (changed("shape", axes=[6]), "shape.axes is [6]; give a count or [lowest, highest]."),
        ({"My pad": {**GOOD, "names": "pad"}}, "names is 'pad'; give a list of strings."),
    ],
)
def test_a_bad_file_is_refused_by_file_key_and_what_fits(tmp_path, content, says):
    path = tmp_path / "pads.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    for read in (
        lambda: load_controller_config("My pad", path),
        lambda: make_device("gamepad", controller_config=path),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*{re.escape(says)}"):
            read()


def test_gym_hils_own_file_means_the_same_here():
    path = Path(find_spec("gym_hil").submodule_search_locations[0]) / "controller_config.json"
    assert load_controller_config("PS4 Controller", path)["buttons"]["y"] == 2
    pad = load_maps(path)["default"]
    raw = RawState(axes=[1.0, -1.0, 0.0, -1.0], buttons=[False] * 7 + [True], hats=[])
    # gym-hil: x = left_y, y = left_x, z = right_y, each negated where axis_inversion says so
    assert [pad.stick(axis, raw) for axis in ("left_y", "left_x", "right_y")] == [1.0, 1.0, 1.0]
    assert pad.pressed(raw) == {"rt"}


def test_inversion_left_out_is_gym_hils(tmp_path):
    path = tmp_path / "pads.json"
    path.write_text(json.dumps({"My pad": GOOD}))
    pad = load_maps(path)["My pad"]
    raw = RawState(axes=[0.5, 0.5, 0.5, 0.5], buttons=[False] * 8, hats=[])
    assert [pad.stick(axis, raw) for axis in ("left_x", "left_y", "right_y")] == [0.5, -0.5, -0.5]


def test_a_controller_the_file_does_not_know_gets_its_default_and_a_warning(tmp_path, caplog):
    path = tmp_path / "pads.json"
    path.write_text(json.dumps({"My pad": GOOD, "default": {**GOOD, "names": ["Any"]}}))
    with caplog.at_level(logging.WARNING):
        assert load_controller_config("Other pad", path)["names"] == ["Any"]
        assert "pads.json has no map for 'Other pad': its 'default' is used." in caplog.text
        caplog.clear()
        assert load_controller_config("my pad", path) == GOOD
        assert load_controller_config(config_path=path)["names"] == ["Any"]
        assert load_controller_config("DualShock 4")["labels"]["a"] == "Cross"
        assert not caplog.records
    path.write_text(json.dumps({"My pad": GOOD}))
    with pytest.raises(ValueError, match=r"no map for 'Other pad' and no 'default'\. It has My pad"):
        load_controller_config("Other pad", path)
