"""Which number a controller gives to which stick and button: JSON maps, and what is read through them.

A file holds controllers by name, in gym-hil's layout:

    {"My pad": {"axes":    {"left_x": 0, "left_y": 1, "right_x": 2, "right_y": 3},
                "buttons": {"a": 0, "b": 1, "x": 2, "y": 3, "lb": 4, "rb": 5, "lt": "axis 4 +", "rt": 7},
                "axis_inversion": {"left_x": true, "left_y": true, "right_y": true}}}

A button is its number, or `axis N +` / `axis N -` (a trigger), or `hat N up|down|left|right`, or null where
the controller has none. An axis is its number, or `hat N x` / `hat N y`. `axis_inversion` says which axes to
negate so that up and left are positive. Optional: `names`, what the operating system may call the controller;
`shape`, how many axes, buttons and hats it has where the same name has several layouts; `labels`, what is
printed on its buttons; `source`, where the numbers come from.
"""

from __future__ import annotations

import difflib
import functools
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hil_rllib.devices.controls import PAD_AXES, PAD_BUTTONS

logger = logging.getLogger(__name__)

SHIPPED = Path(__file__).with_name("controllers.json")
NEEDED_AXES = ("left_x", "left_y", "right_y")
NEEDED_BUTTONS = ("a", "x", "y", "rb", "lt", "rt")
SHAPE = ("axes", "buttons", "hats")
KEYS = ("axes", "buttons", "axis_inversion", "names", "shape", "labels", "source")
INVERTED = {"left_x": False, "left_y": True, "right_x": False, "right_y": True}  # gym-hil 0.1.14's defaults
PRESSED = 0.25  # [-] of a trigger's axis, −1 at rest, 1 pressed; one that has not moved yet may read 0

BUTTON_FITS = "a button number, 'axis N +', 'axis N -', 'hat N up|down|left|right', or null for none"
AXIS_FITS = "an axis number, 'hat N x' or 'hat N y'"
_HAT = {"up": (1, 1), "down": (1, -1), "left": (0, -1), "right": (0, 1)}  # which of (x, y), and its sign


@dataclass
class RawState:
    """A joystick as SDL numbers it: axes in [-1, 1], right and down positive; hats (x, y), up positive."""

    axes: list[float]
    buttons: list[bool]
    hats: list[tuple[int, int]]

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many axes, buttons, hats."""
        return len(self.axes), len(self.buttons), len(self.hats)


@dataclass(frozen=True)
class Binding:
    """Where one stick axis or button is read. kind: button, axis or hat; sign 0 for all of an axis."""

    kind: str
    index: int
    part: int = 0  # of a hat: 0 its x, 1 its y
    sign: int = 0

    def value(self, raw: RawState) -> float:
        """In [-1, 1], right and down positive."""
        if self.kind == "axis":
            return max(-1.0, min(1.0, raw.axes[self.index]))
        return float(raw.hats[self.index][self.part] * (-1 if self.part else 1))

    def pressed(self, raw: RawState) -> bool:
        if self.kind == "button":
            return raw.buttons[self.index]
        if self.kind == "axis":
            return raw.axes[self.index] * self.sign > PRESSED
        return raw.hats[self.index][self.part] == self.sign

    def fits(self, shape: tuple[int, int, int]) -> bool:
        """Whether a joystick of that shape has it."""
        return self.index < dict(zip(("axis", "button", "hat"), shape, strict=True))[self.kind]


@dataclass(frozen=True)
class ControllerMap:
    """One controller. axes: by `PAD_AXES`' names; buttons: by `PAD_BUTTONS`' names, None if it has none."""

    name: str
    axes: Mapping[str, Binding]
    buttons: Mapping[str, Binding | None]
    inverted: Mapping[str, bool]
    names: Sequence[str] = ()
    shape: Mapping[str, Sequence[int]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def stick(self, axis: str, raw: RawState) -> float:
        """In [-1, 1]; up and left positive, as the map's inversion says."""
        binding = self.axes.get(axis)
        if binding is None:
            return 0.0
        return binding.value(raw) * (-1 if self.inverted[axis] else 1)

    def pressed(self, raw: RawState) -> set[str]:
        """The names of the buttons that are down."""
        return {name for name, at in self.buttons.items() if at is not None and at.pressed(raw)}

    def is_called(self, name: str) -> bool:
        """Whether the operating system may mean this controller by that name."""
        return name.casefold() in {other.casefold() for other in (self.name, *self.names)}

    def is_made_for(self, shape: tuple[int, int, int]) -> bool:
        """Whether a joystick of that shape is this controller as the map knows it."""
        counts = dict(zip(SHAPE, shape, strict=True))
        return not self.lacking(shape) and all(
            low <= counts[part] <= high for part, (low, high) in self.shape.items()
        )

    def lacking(self, shape: tuple[int, int, int]) -> list[str]:
        """What the map reads and a joystick of that shape does not have."""
        bound = {**self.axes, **self.buttons}
        return [name for name, at in bound.items() if at is not None and not at.fits(shape)]


def load_controller_config(
    controller_name: str | None = None, config_path: str | Path | None = None
) -> dict[str, Any]:
    """A controller's map as it stands in the file, the shipped one unless `config_path` names another.

    A controller the file does not know gets its `default`, and a warning says so.
    Raises ValueError for a file that cannot be used, FileNotFoundError for one that is not there.
    """
    path = Path(config_path) if config_path is not None else SHIPPED
    content = _read_json(path)
    for name, entry in content.items():
        parsed = parse_map(entry, name, str(path))
        if controller_name is not None and parsed.is_called(controller_name):
            return entry
    if "default" not in content:
        raise ValueError(
            f"{path}: no map for {controller_name!r} and no 'default'. It has {', '.join(content)}."
        )
    if controller_name not in (None, "default"):
        logger.warning("%s has no map for %r: its 'default' is used.", path.name, controller_name)
    return content["default"]


def load_maps(path: str | Path | None = None) -> dict[str, ControllerMap]:
    """Every controller of a file, by name, in its order. Raises as `load_controller_config`."""
    path = Path(path) if path is not None else SHIPPED
    return {name: parse_map(entry, name, str(path)) for name, entry in _read_json(path).items()}


def parse_map(entry: Any, name: str, path: str) -> ControllerMap:
    """One entry of a file. Raises ValueError that names file, key, what came and what fits."""
    where = f"{path}: {name!r}"
    if not isinstance(entry, dict):
        raise ValueError(f"{where} must be an object with 'axes' and 'buttons'; got {entry!r}.")
    _known(entry, KEYS, where)
    axes = _section(entry, "axes", where, PAD_AXES, NEEDED_AXES)
    buttons = _section(entry, "buttons", where, PAD_BUTTONS, NEEDED_BUTTONS)
    inversion = _section(entry, "axis_inversion", where, PAD_AXES) if "axis_inversion" in entry else {}
    for axis, value in inversion.items():
        if not isinstance(value, bool):
            raise ValueError(f"{where}: axis_inversion.{axis} is {value!r}; give true or false.")
    return ControllerMap(
        name=name,
        axes={key: _axis(value, f"{where}: axes.{key}") for key, value in axes.items()},
        buttons={key: _button(value, f"{where}: buttons.{key}") for key, value in buttons.items()},
        inverted={**INVERTED, **inversion},
        names=_names(entry.get("names", []), where),
        shape=_shape(entry.get("shape", {}), where),
        labels=dict(_section(entry, "labels", where, PAD_BUTTONS)) if "labels" in entry else {},
    )


@functools.cache
def shipped_maps() -> dict[str, ControllerMap]:
    """The maps of the package."""
    return load_maps()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_int=_integer)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not JSON, which is UTF-8: {error}.") from None
    except RecursionError:
        raise ValueError(f"{path}: is nested too deeply for a controller's map.") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: not JSON, at line {error.lineno} column {error.colno}: {error.msg}."
        ) from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: must be an object of controllers by name, like {SHIPPED.name} here.")
    return content


def _integer(digits: str) -> int | float:
    """JSON's integers; one longer than Python reads becomes a float, which no place takes."""
    return int(digits) if len(digits) < 20 else float(digits)


def _section(
    entry: dict[str, Any], key: str, where: str, names: Sequence[str], needed: Sequence[str] = ()
) -> dict[str, Any]:
    section = entry.get(key)
    if not isinstance(section, dict):
        raise ValueError(f"{where}: needs {key!r}, an object of {', '.join(names)}; got {section!r}.")
    _known(section, names, f"{where}: {key}")
    if missing := [name for name in needed if name not in section]:
        raise ValueError(f"{where}: {key} lacks {', '.join(missing)}.")
    return section


def _names(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{where}: names is {value!r}; give a list of strings.")
    return tuple(value)


def _shape(value: Any, where: str) -> dict[str, tuple[int, int]]:
    """Lowest and highest count of each part. value: a count, or a list of both."""
    if not isinstance(value, dict):
        raise ValueError(f"{where}: shape is {value!r}; give an object of {', '.join(SHAPE)}.")
    _known(value, SHAPE, f"{where}: shape")
    shape = {}
    for part, counts in value.items():
        low_high = [counts, counts] if _is_index(counts) else counts
        if not (isinstance(low_high, list) and len(low_high) == 2 and all(map(_is_index, low_high))):
            raise ValueError(f"{where}: shape.{part} is {counts!r}; give a count or [lowest, highest].")
        shape[part] = (low_high[0], low_high[1])
    return shape


def _known(entry: Iterable[str], names: Sequence[str], where: str) -> None:
    for key in entry:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            guess = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{where}: unknown key {key!r}.{guess} Choose from {', '.join(names)}.")


def _axis(value: Any, where: str) -> Binding:
    if _is_index(value):
        return Binding("axis", value)
    if isinstance(value, str) and (found := re.fullmatch(r"hat (\d+) ([xy])", value)):
        return Binding("hat", int(found[1]), part="xy".index(found[2]))
    raise ValueError(f"{where} is {value!r}; give {AXIS_FITS}.")


def _button(value: Any, where: str) -> Binding | None:
    if value is None:
        return None
    if _is_index(value):
        return Binding("button", value)
    if isinstance(value, str):
        if found := re.fullmatch(r"axis (\d+) ([+-])", value):
            return Binding("axis", int(found[1]), sign=1 if found[2] == "+" else -1)
        if found := re.fullmatch(r"hat (\d+) (up|down|left|right)", value):
            part, sign = _HAT[found[2]]
            return Binding("hat", int(found[1]), part=part, sign=sign)
    raise ValueError(f"{where} is {value!r}; give {BUTTON_FITS}.")


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
