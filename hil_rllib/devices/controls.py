"""The one table of what a person can do and where on each device it is.

The devices, the help texts and the README's table all come from `CONTROLS`, so they cannot disagree.
Directions are the robot's own: forward is away from its base, left as seen from the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hil_rllib.contract import EpisodeEnd, Gripper


@dataclass(frozen=True)
class Control:
    """One thing to do.

    key: the keyboard's, by pynput's name of a special key or as the character it types.
    pad: the gamepad's, a button or a stick's direction in `PAD_INPUTS`; hidapi's gamepads have the same.
    """

    name: str
    does: str
    key: str | None
    pad: str | None


CONTROLS = (
    Control("+x", "move forward (+x)", "up", "left_stick_up"),
    Control("-x", "move back (−x)", "down", "left_stick_down"),
    Control("+y", "move left (+y)", "left", "left_stick_left"),
    Control("-y", "move right (−y)", "right", "left_stick_right"),
    Control("+z", "move up (+z)", "shift_r", "right_stick_up"),
    Control("-z", "move down (−z)", "shift_l", "right_stick_down"),
    Control("open", "open the gripper", "ctrl_r", "rt"),
    Control("close", "close the gripper", "ctrl_l", "lt"),
    Control("intervene", "take over while held", None, "rb"),
    Control("toggle", "take over, or give back", "space", "lb"),
    Control("success", "end the episode: success", "enter", "y"),
    Control("failure", "end the episode: failure", "esc", "a"),
    Control("rerecord", "throw the episode away", "r", "x"),
    Control("label", "while held: this is success (record --label)", "l", "b"),
)

MOTION = ("x", "y", "z")
GRIPPER = {"open": Gripper.OPEN, "close": Gripper.CLOSE}
ENDS = {"success": EpisodeEnd.SUCCESS, "failure": EpisodeEnd.FAILURE, "rerecord": EpisodeEnd.RERECORD}

PAD_BUTTONS = ("a", "b", "x", "y", "lb", "rb", "lt", "rt")
PAD_AXES = ("left_x", "left_y", "right_x", "right_y")
# A stick's direction: its axis and the sign on it, after `axis_inversion` (which makes up and left positive).
PAD_STICKS = {
    "left_stick_up": ("left_y", +1),
    "left_stick_down": ("left_y", -1),
    "left_stick_left": ("left_x", +1),
    "left_stick_right": ("left_x", -1),
    "right_stick_up": ("right_y", +1),
    "right_stick_down": ("right_y", -1),
}
PAD_INPUTS = (*PAD_BUTTONS, *PAD_STICKS)

_KEY_LABELS = {
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
    "shift_l": "left Shift",
    "shift_r": "right Shift",
    "ctrl_l": "left Ctrl",
    "ctrl_r": "right Ctrl",
    "space": "Space",
    "enter": "Enter",
    "esc": "Esc",
}
_STICK_LABELS = {"up": "↑", "down": "↓", "left": "←", "right": "→"}
PLAYSTATION = {
    "a": "Cross",
    "b": "Circle",
    "x": "Square",
    "y": "Triangle",
    "lb": "L1",
    "rb": "R1",
    "lt": "L2",
    "rt": "R2",
}
NINTENDO = {"lb": "L", "rb": "R", "lt": "ZL", "rt": "ZR"}

# What browsers call them: `KeyboardEvent.code` of special keys, and the standard layout of gamepads.
KEY_CODES = {
    "up": "ArrowUp",
    "down": "ArrowDown",
    "left": "ArrowLeft",
    "right": "ArrowRight",
    "shift_l": "ShiftLeft",
    "shift_r": "ShiftRight",
    "ctrl_l": "ControlLeft",
    "ctrl_r": "ControlRight",
    "space": "Space",
    "enter": "Enter",
    "esc": "Escape",
}
STANDARD_BUTTONS = {name: index for index, name in enumerate(PAD_BUTTONS)}
STANDARD_AXES = {name: index for index, name in enumerate(PAD_AXES)}

KEYBOARD_NOTE = "A motion or gripper key takes over while held."
PAD_NOTE = "The sticks move the arm while you are in charge."


def label(device: str, control: Control, names: Mapping[str, str] | None = None) -> str:
    """What is printed on the key or button; empty where the device has none for this control."""
    if device == "keyboard":
        key = control.key
        return "" if key is None else _KEY_LABELS.get(key, key.upper())
    if control.pad is None:
        return ""
    if control.pad in PAD_STICKS:
        side, _, direction = control.pad.split("_")
        return f"{side} stick {_STICK_LABELS[direction]}"
    return (names or {}).get(control.pad, control.pad.upper())


def help_text(device: str, names: Mapping[str, str] | None = None) -> str:
    """The device's controls as aligned lines, one control a line, with its note last.

    names: what this controller prints on its buttons, by `PAD_BUTTONS`' names, as `ControllerMap.labels`.
    `auto` gives gamepad and keyboard, one after the other; a device without controls an empty text.
    """
    if device == "auto":
        return f"Gamepad\n{help_text('gamepad', names)}\n\nKeyboard\n{help_text('keyboard')}"
    if device not in ("keyboard", "gamepad", "hid"):
        return ""
    rows = [(label(device, control, names), control.does) for control in CONTROLS]
    rows = [row for row in rows if row[0]]
    width = max(len(where) for where, _ in rows)
    lines = [f"  {where:<{width}}  {does}" for where, does in rows]
    return "\n".join([*lines, "  " + (KEYBOARD_NOTE if device == "keyboard" else PAD_NOTE)])


def page_controls() -> dict[str, Any]:
    """The table for the web page, as JSON: where each control is on keyboard and gamepad, its name there.

    `code` or `char` of its key, `button` of its pad; `sticks`: the axes for x, y, z and the sign on each.
    """
    rows = [
        {
            "name": control.name,
            "does": control.does,
            "code": KEY_CODES.get(control.key or ""),
            "char": control.key if control.key and len(control.key) == 1 else None,
            "key": label("keyboard", control),
            "pad": label("gamepad", control),
            "button": STANDARD_BUTTONS.get(control.pad or ""),
        }
        for control in CONTROLS
    ]
    positive = {
        control.name[1]: control.pad for control in CONTROLS if control.name[0] == "+" and control.pad
    }
    sticks = []
    for axis in MOTION:
        name, sign = PAD_STICKS[positive[axis]]
        sticks.append([STANDARD_AXES[name], -sign])  # browsers count down and right as positive
    return {"controls": rows, "sticks": sticks}


def markdown_table() -> str:
    """The table for the README: one row a control, one column a kind of device."""
    head = ("", "keyboard", "gamepad", "PlayStation")
    rows = [
        (
            control.does,
            label("keyboard", control) or "any key above",
            label("gamepad", control),
            label("gamepad", control, PLAYSTATION),
        )
        for control in CONTROLS
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))
