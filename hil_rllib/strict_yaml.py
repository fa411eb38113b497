"""YAML into frozen dataclasses, strictly: every error names the file, the key, what came and what fits.

The dataclasses are the schema. A field's annotation says its type (`bool`, `int`, `float`, `str`, `Literal`,
`tuple[T, ...]`, `T | None`, another dataclass), and `Annotated[T, Range(...)]` what it may hold.

Scalars follow the YAML 1.2 core schema, not 1.1: `1e-3` is a number, `off`, `no` and `none` are text, and
only `true`, `false` and `null` (or `~`, or nothing) are special.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

T = TypeVar("T")
Leaves = dict[str, Any]  # dotted key -> checked value


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the file and the key."""


@dataclass(frozen=True)
class Range:
    """Bounds of a number, or of each number of a list; `above` is an exclusive lower bound."""

    low: float | None = None
    high: float | None = None
    above: float | None = None

    def holds(self, value: float) -> bool:
        return (
            (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.high is None or value <= self.high)
        )

    def __str__(self) -> str:
        lower = f"at least {self.low:g}" if self.low is not None else ""
        lower = f"above {self.above:g}" if self.above is not None else lower
        upper = f"at most {self.high:.10g}" if self.high is not None else ""
        return " and ".join(part for part in (lower, upper) if part)


@dataclass(frozen=True)
class NotEmpty:
    """Text or a list that must hold something."""

    def holds(self, value: Any) -> bool:
        return not isinstance(value, (str, tuple)) or len(value) > 0

    def __str__(self) -> str:
        return "not empty"


# --- text to plain values -------------------------------------------------------------------------------

_SCALARS = {  # tag -> (pattern, first characters); YAML 1.2 core schema, digits may be grouped by "_"
    "null": (r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    "bool": (r"(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    "int": (r"[-+]?(?:0|[1-9][0-9_]*)$", list("-+0123456789")),
    "float": (
        r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|\.(?:inf|Inf|INF|nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
}


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars above and no duplicate keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's protocol)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"line {line}: a key must be a plain word.")
            key = key_node.value
            if key in mapping:
                raise ConfigError(f"line {line}: key '{key}' is given twice. Keep one.")
            mapping[key] = self.construct_object(value_node, deep=True)
        return mapping


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes text which YAML 1.1 or 1.2 would read as something else."""


_Dumper.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeDumper.yaml_implicit_resolvers.items()}
for _tag, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_mapping)


def parse(text: str, origin: str) -> Any:
    """Plain values of one YAML document. Raises ConfigError, prefixed by `origin`, on bad syntax."""
    try:
        return yaml.load(text, Loader=_Loader)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: not valid YAML: {' '.join(str(error).split())}") from None
    except ValueError:  # Python's own limit, on integers of more than 4300 digits
        raise ConfigError(f"{origin}: holds a number that is too long.") from None
    except RecursionError:
        raise ConfigError(f"{origin}: is nested too deeply.") from None


def dump(values: Mapping[str, Any]) -> str:
    """YAML text which `parse` reads back to the same values."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


# --- plain values to checked leaves ---------------------------------------------------------------------


def _hints(schema: type) -> dict[str, Any]:
    return get_type_hints(schema, include_extras=True)


def flatten(schema: type, values: Any, origin: str, prefix: str = "") -> Leaves:
    """Check a mapping against a dataclass; return its leaves by dotted key. Only given keys appear."""
    where = prefix.rstrip(".") or "the top level"
    if not isinstance(values, Mapping):
        raise ConfigError(f"{origin}: {where} must be a section of keys, got {_show(values)}.")
    hints = _hints(schema)
    leaves: Leaves = {}
    for key, value in values.items():
        if key not in hints:
            raise ConfigError(f"{origin}: {_unknown_key(schema, key, prefix)}")
        if dataclasses.is_dataclass(hints[key]):
            leaves |= flatten(cast(type, hints[key]), value, origin, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = _convert(hints[key], value, f"{origin}: {prefix}{key}")
    return leaves


def build(schema: type[T], leaves: Leaves, prefix: str = "") -> T:
    """The dataclass that holds checked `leaves`, and its own defaults elsewhere."""
    arguments: dict[str, Any] = {}
    for key, hint in _hints(schema).items():
        if dataclasses.is_dataclass(hint):
            arguments[key] = build(cast(type, hint), leaves, f"{prefix}{key}.")
        elif prefix + key in leaves:
            arguments[key] = leaves[prefix + key]
    return schema(**arguments)


def nest(dotted: str, value: Any) -> Any:
    """`nest("a.b", 1) == {"a": {"b": 1}}`."""
    for key in reversed(dotted.split(".")):
        value = {key: value}
    return value


def _unknown_key(schema: type, key: str, prefix: str) -> str:
    valid = list(_hints(schema))
    near = difflib.get_close_matches(key, valid, n=1) or [
        path for path in _paths(schema) if path.endswith(f".{key}")
    ]
    advice = f"Did you mean '{near[0]}'?" if near else f"Choose from {', '.join(valid)}."
    return f"Unknown key '{key}'{' in ' + prefix.rstrip('.') if prefix else ''}. {advice}"


def _paths(schema: type, prefix: str = "") -> Iterator[str]:
    for key, hint in _hints(schema).items():
        if dataclasses.is_dataclass(hint):
            yield from _paths(cast(type, hint), f"{prefix}{key}.")
        else:
            yield prefix + key


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the annotation wants it, or a ConfigError that starts with `where`."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        bare, *bounds = get_args(option) if get_origin(option) is Annotated else (option,)
        fitted = _fits(bare, value)
        if fitted is None:
            continue
        for bound in bounds:
            items = fitted[0] if isinstance(fitted[0], tuple) and isinstance(bound, Range) else fitted
            if not all(bound.holds(item) for item in items):
                raise ConfigError(f"{where} must be {bound}, got {_show(value)}.")
        return fitted[0]
    words = [word for option in options if get_origin(option) is Literal for word in get_args(option)]
    if words and isinstance(value, str):
        near = difflib.get_close_matches(value, words, n=1)
        advice = f"Did you mean '{near[0]}'? " if near else ""
        choices = ", ".join(words)
        raise ConfigError(f"{where}: unknown choice '{value}'. {advice}Choose from {choices}.")
    wants_text = _describe(hint).startswith("text") and isinstance(value, (bool, int, float))
    advice = " Quote it to make it text." if wants_text else ""
    raise ConfigError(f"{where} must be {_describe(hint)}, got {_show(value)}.{advice}")


def _fits(hint: Any, value: Any) -> tuple[Any] | None:
    """(converted value,) where the value is of the annotated type without loss, else None."""
    if get_origin(hint) is tuple:
        items = [_fits(get_args(hint)[0], item) for item in value] if isinstance(value, list) else [None]
        return None if None in items else (tuple(item[0] for item in items if item),)
    if get_origin(hint) is Literal:
        return (value,) if isinstance(value, str) and value in get_args(hint) else None
    # Compared, not converted: a whole number may be larger than any float. No comparison holds for NaN.
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and -1e308 < value < 1e308
    if hint is float:
        return (float(value),) if number else None
    if hint is int:
        return (int(value),) if number and value == int(value) else None
    return (value,) if isinstance(value, hint) else None


def _describe(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        inner, *bounds = get_args(hint)
        return f"{_describe(inner)} ({', '.join(map(str, bounds))})"
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_describe(option) for option in get_args(hint))
    if get_origin(hint) is tuple:
        return f"a list, each {_describe(get_args(hint)[0])}"
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(get_args(hint))
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a finite number",
        str: "text",
        type(None): "null",
    }
    return names[hint]


def _show(value: Any) -> str:
    if value is None:
        return "nothing (null)"
    kinds = {bool: "true/false", int: "a whole number", float: "a number", str: "text"}
    kinds |= {list: "a list", dict: "a section", tuple: "a list"}
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    return f"{shown} ({kinds.get(type(value), type(value).__name__)})"


def read_text(path: Path) -> str:
    """The file's text, or a ConfigError that says why it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = sorted(file.name for file in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        advice = f" {path.parent} has {', '.join(near)}." if near else ""
        raise ConfigError(f"{path}: no such file.{advice}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
