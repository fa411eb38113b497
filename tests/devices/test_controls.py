"""One table of controls. That each does what it says is tested with the devices: keyboard, gamepad, hid."""

from __future__ import annotations

import re
from pathlib import Path

from hil_rllib.devices.controls import (
    CONTROLS,
    ENDS,
    GRIPPER,
    MOTION,
    NINTENDO,
    PAD_INPUTS,
    PLAYSTATION,
    help_text,
    markdown_table,
)


def test_no_key_or_button_does_two_things_and_nothing_is_without_one():
    keys = [c.key for c in CONTROLS if c.key]
    pads = [c.pad for c in CONTROLS]
    assert len(set(keys)) == len(keys)
    assert len(set(pads)) == len(pads)
    assert set(pads) <= set(PAD_INPUTS)
    names = {f"{sign}{axis}" for axis in MOTION for sign in "+-"} | set(GRIPPER) | set(ENDS)
    assert {c.name for c in CONTROLS} == names | {"intervene", "toggle", "label"}


def test_help_has_one_aligned_line_for_each_control_of_the_device():
    for device, controls in {"keyboard": [c for c in CONTROLS if c.key], "gamepad": CONTROLS}.items():
        *lines, note = help_text(device).splitlines()
        assert [re.split(r"\s{2,}", line.strip())[1] for line in lines] == [c.does for c in controls]
        assert len({line.index(c.does) for line, c in zip(lines, controls, strict=True)}) == 1
        assert "charge" in note or "held" in note
    assert help_text("hid") == help_text("gamepad")
    assert help_text("none") == help_text("scripted") == ""
    assert help_text("keyboard") in help_text("auto")
    assert help_text("gamepad") in help_text("auto")


def test_help_names_what_is_printed_on_the_controller():
    assert re.search(r"Triangle +end the episode: success", help_text("gamepad", PLAYSTATION))
    assert re.search(r"ZR +open the gripper", help_text("gamepad", NINTENDO))
    assert re.search(r"RT +open the gripper", help_text("gamepad"))


def test_the_readmes_table_has_the_same_rows():
    head, _, *rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in markdown_table().splitlines()
    ]
    assert head == ["", "keyboard", "gamepad", "PlayStation"]
    assert [row[0] for row in rows] == [c.does for c in CONTROLS]
    for column, text in [
        (1, help_text("keyboard")),
        (2, help_text("gamepad")),
        (3, help_text("hid", PLAYSTATION)),
    ]:
        for row in rows:
            where = row[column]
            assert where == "any key above" or re.search(
                rf"^  {re.escape(where)} +{re.escape(row[0])}$", text, re.M
            )


def test_the_readme_has_this_very_table():
    assert markdown_table() in (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
