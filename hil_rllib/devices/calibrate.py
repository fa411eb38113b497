"""Makes a map of a gamepad by asking for each control in turn.

`calibrate(path)` runs in a terminal: it names a stick or button, takes the first thing that moves, waits
until it is let go, and goes on. Typing s skips a control, r goes back to the one before, q gives up.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hil_rllib.devices import sdl_joystick
from hil_rllib.devices.base import DeviceUnavailable
from hil_rllib.devices.controls import CONTROLS, PAD_STICKS
from hil_rllib.devices.gamepad_maps import NEEDED_AXES, RawState, load_maps, parse_map

MOVED = 0.6  # [-] of a stick or trigger, away from where it rests; ours
LET_GO = 0.3  # [-] likewise: below it, the control is back at rest
STILL = 0.1  # [-] of a stick or trigger: it has stopped if it goes no further
STILL_S = 0.2  # [s] for as long as this
HELD_S = 2.0  # [s] after which whoever holds a control is told to let it go
LOOK_S = 0.02  # [s] between two looks at the gamepad

Reading = tuple[str, int, int]  # what moved, "axis" | "button" | "hat x" | "hat y"; its number; which way


class Aborted(Exception):  # noqa: N818 - reads as what happened
    """The person gave up; nothing was written."""


@dataclass(frozen=True)
class Question:
    """One control to ask for. section, key: where its answer goes in the map."""

    section: str
    key: str
    ask: str


def questions() -> list[Question]:
    """One per stick axis, by its positive direction, and one per button that has a use."""
    asked = []
    for control in CONTROLS:
        if control.pad in PAD_STICKS:
            axis, sign = PAD_STICKS[control.pad]
            if sign > 0:
                side, _, direction = control.pad.split("_")
                ask = f"Push the {side} stick {direction.upper()} ({control.does})"
                asked.append(Question("axes", axis, ask))
        elif control.pad is not None:
            asked.append(Question("buttons", control.pad, f"Press the button for: {control.does}"))
    return asked


def calibrate(
    output_path: str | Path,
    *,
    name: str | None = None,
    say: Callable[[str], None] = print,
    typed: Callable[[], str | None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Ask for each control of the first gamepad and write the map to `output_path`, keeping its other maps.

    name: of the map; None takes the operating system's name, so that it is found again by itself.
    say: shows a line. typed: the line typed since the last call, or None; never blocks.

    Raises `DeviceUnavailable` without a gamepad (or when it is unplugged on the way), `Aborted` when the
    person gives up, ValueError if `output_path` is a file that is no map. In all these cases it is untouched.
    """
    path = Path(output_path)
    others = json.loads(path.read_text(encoding="utf-8")) if path.exists() and load_maps(path) else {}
    found = sdl_joystick.connected()
    if not found:
        raise DeviceUnavailable("No gamepad is plugged in. Plug in the one to calibrate.")
    joystick = sdl_joystick.SdlJoystick(found[0])
    try:
        say("{}: {} axes, {} buttons, {} hats.".format(joystick.name, *found[0].shape))
        say("Let go of everything. Type s to skip a control, r to go back to the one before, q to give up.")
        answers = _ask_all(joystick, say, typed or _typed_line, sleep)
    finally:
        joystick.close()
    entry = _entry(answers)
    parse_map(entry, name or joystick.name, str(path))
    _write({**others, name or joystick.name: entry}, path)
    say(f"Written to {path}. Use it with --controller-config {path}")
    say(f"and in a run with operator.controller_config={path}")
    return path


def _ask_all(
    joystick: sdl_joystick.SdlJoystick,
    say: Callable[[str], None],
    typed: Callable[[], str | None],
    sleep: Callable[[float], None],
) -> dict[Question, Reading | None]:
    asked = questions()
    answers: dict[Question, Reading | None] = {}
    # Everything is compared with how it rested before the question: a trigger may rest at any value, and one
    # that has never moved may have been read wrongly.
    rest = _settled(joystick, sleep)
    k = 0
    while k < len(asked):
        question = asked[k]
        say(f"[{k + 1}/{len(asked)}] {question.ask}")
        word, reading = _answer(joystick, rest, question.section, typed, sleep)
        if word == "r":
            k = max(0, k - 1)
            answers.pop(asked[k], None)
            continue
        taken = next((q for q, other in answers.items() if _same(q, other, reading)), None)
        if taken is not None:
            say(f"  That is what you gave for: {taken.ask}. Take another, or skip this one with s.")
        elif reading is None and (question.key in NEEDED_AXES or question.key == "rb"):
            say("  The arm cannot be driven without it. Give it, or give up with q.")
        else:
            answers[question] = reading
            say(f"  {'skipped' if reading is None else _spelled(reading)}")
            k += 1
        if reading is not None:
            rest = _let_go(joystick, rest, reading, say, typed, sleep)
    return answers


def _answer(
    joystick: sdl_joystick.SdlJoystick,
    rest: RawState,
    section: str,
    typed: Callable[[], str | None],
    sleep: Callable[[float], None],
) -> tuple[str, Reading | None]:
    """What moves, an axis once it has stopped; or s or r, if that is typed first.

    A trigger that has never moved may have been read as 0 while it rests at one end: then it is on that side
    of 0 first and gets to the other, and the other is meant.
    """
    first = reading = None
    stopped_at, still_s = math.inf, 0.0
    while True:
        for raw in joystick.changes():
            if first is None:
                first = reading = _moved(raw, rest, section)
            elif first[0] == "axis" and _way(raw.axes[first[1]], rest.axes[first[1]]) == -first[2]:
                reading = "axis", first[1], -first[2]
        word = _heard(typed)
        if first is None:
            if word in ("s", "r"):
                return word, None
        elif first[0] != "axis":
            return "", reading
        elif abs((now := joystick.raw.axes[first[1]]) - stopped_at) > STILL:
            stopped_at, still_s = now, 0.0
        elif still_s >= STILL_S:
            return "", reading
        sleep(LOOK_S)
        still_s += LOOK_S


def _heard(typed: Callable[[], str | None]) -> str:
    """The first letter of what was typed. Raises `Aborted` for q."""
    word = (typed() or "").strip().lower()[:1]
    if word == "q":
        raise Aborted("Given up; nothing was written.")
    return word


def _settled(joystick: sdl_joystick.SdlJoystick, sleep: Callable[[float], None]) -> RawState:
    """The state, once what is on its way has arrived."""
    for _ in range(10):
        list(joystick.changes())
        sleep(LOOK_S)
    raw = joystick.raw
    return RawState(list(raw.axes), list(raw.buttons), list(raw.hats))


def _moved(raw: RawState, rest: RawState, section: str) -> Reading | None:
    """What has moved and can answer a question of that section: a button is no axis."""
    for i, (value, before) in enumerate(zip(raw.axes, rest.axes, strict=True)):
        if way := _way(value, before):
            return "axis", i, way
    for i, (hat, before_hat) in enumerate(zip(raw.hats, rest.hats, strict=True)):
        for part, axis in enumerate("xy"):
            if hat[part] != before_hat[part]:
                return f"hat {axis}", i, hat[part]
    if section == "buttons":
        for i, (down, before_down) in enumerate(zip(raw.buttons, rest.buttons, strict=True)):
            if down and not before_down:
                return "button", i, 1
    return None


def _way(value: float, rest: float) -> int:
    """Which way an axis has moved away from its rest; 0 if it has not."""
    return 0 if abs(value - rest) <= MOVED else 1 if value > rest else -1


def _let_go(
    joystick: sdl_joystick.SdlJoystick,
    rest: RawState,
    reading: Reading,
    say: Callable[[str], None],
    typed: Callable[[], str | None],
    sleep: Callable[[float], None],
) -> RawState:
    """Wait until what was moved is back, and say so if it takes long; the state then."""
    kind, index, sign = reading

    def away() -> bool:
        if kind == "button":
            return joystick.raw.buttons[index]
        if kind == "axis":
            return (joystick.raw.axes[index] - rest.axes[index]) * sign > LET_GO
        return joystick.raw.hats[index]["xy".index(kind[-1])] == sign

    looks = 0
    while away():
        if looks == round(HELD_S / LOOK_S):
            say("  Let go of it. If it stays where it is, move it back by hand, or give up with q.")
        looks += 1
        _heard(typed)
        sleep(LOOK_S)
        list(joystick.changes())
    return _settled(joystick, sleep)


def _same(question: Question, answer: Reading | None, reading: Reading | None) -> bool:
    """Whether `reading` has been given already: that button or end of a trigger, or any end of that stick."""
    if answer is None or reading is None:
        return False
    return answer == reading or (question.section == "axes" and answer[:2] == reading[:2])


def _spelled(reading: Reading) -> str:
    kind, index, sign = reading
    return f"{kind} {index}" if kind == "button" else f"{kind} {index} {'+' if sign > 0 else '-'}"


def _entry(answers: dict[Question, Reading | None]) -> dict[str, Any]:
    """The answers in the form of a map."""
    entry: dict[str, Any] = {"axes": {}, "buttons": {}, "axis_inversion": {}, "source": "calibrated"}
    for question, reading in answers.items():
        if question.section == "buttons":
            entry["buttons"][question.key] = _button(reading)
        elif reading is not None:
            kind, index, sign = reading
            entry["axes"][question.key] = index if kind == "axis" else f"hat {index} {kind[-1]}"
            downwards = sign if kind != "hat y" else -sign  # a hat's y counts upwards, an axis downwards
            entry["axis_inversion"][question.key] = downwards < 0
    return entry


def _button(reading: Reading | None) -> int | str | None:
    if reading is None:
        return None
    kind, index, sign = reading
    if kind == "button":
        return index
    if kind == "axis":
        return f"axis {index} {'+' if sign > 0 else '-'}"
    names = ("left", "right") if kind == "hat x" else ("down", "up")
    return f"hat {index} {names[sign > 0]}"


def _write(content: dict[str, Any], path: Path) -> None:
    """All or nothing: a file that is there stays whole if this is interrupted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _typed_line() -> str | None:
    """The line typed in the terminal since the last call."""
    if not sys.stdin or not sys.stdin.isatty():
        return None
    ready, _, _ = select.select([sys.stdin], [], [], 0)
    return sys.stdin.readline() if ready else None
