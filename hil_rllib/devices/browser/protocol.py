"""What a page may say, checked strictly: anything else ends its connection.

All messages are JSON objects with a `type`. `seen` is the newest stamp that the page has had from the server
and `held_ms` how long ago, by the page's clock: so the server knows the round trip, and how old a message is
at most, without comparing clocks.

    input   what is held now: `hands` (keys and touch, which take over by themselves) and `pad` (a gamepad's
            buttons) as names of `controls.CONTROLS`, `touch` and `sticks` as motion (3,) in [-1, 1]
    seen    nothing but `seen` and `held_ms`
    ask     for the controls        give    them back
    answer  `accept`: whether whoever asks gets them
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hil_rllib.devices.controls import CONTROLS

MAX_BYTES = 1024  # of one message; the longest that a page sends has about 300
PER_SECOND, BURST = 100.0, 100.0  # messages of one page; it sends 25 a second, and one at every change
NAMES = frozenset(control.name for control in CONTROLS)


class BadMessage(ValueError):  # noqa: N818 - reads as a condition
    """Not a message of this protocol; says why."""


def parse(text: str) -> dict[str, Any]:
    """A page's message. Raises `BadMessage` unless it is exactly one of the above."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise BadMessage(f"longer than {MAX_BYTES} bytes")
    try:
        message = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"no JSON: {error}") from error
    if not isinstance(message, dict):
        raise BadMessage("no object")
    fields = _FIELDS.get(message["type"]) if isinstance(message.get("type"), str) else None
    if fields is None:
        raise BadMessage(f"type must be one of {', '.join(_FIELDS)}")
    if message.keys() != {"type", *fields}:
        raise BadMessage(f"{message['type']} must have {', '.join(('type', *fields))}")
    for name, check in fields.items():
        if not check(message[name]):
            raise BadMessage(f"{name} is out of range")
    return message


class Allowance:
    """How much may still be said: `per_second` on average, `burst` at once. A token bucket."""

    def __init__(self, per_second: float = PER_SECOND, burst: float = BURST) -> None:
        self._per_second, self._burst = per_second, burst
        self._left, self._at = burst, -math.inf

    def take(self, now: float) -> bool:
        """One more at `now` [s]; False where it is one too many."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


@dataclass
class Freshness:
    """The round trip to a page, and how old what it says may be. Times are the server's clock [s]."""

    sent_at: float = 0.0  # newest stamp that was sent
    acknowledged: float = 0.0  # newest stamp that the page has seen
    round_trip_ms: float | None = None

    def note(self, seen: float, held_ms: float, now: float) -> float:
        """Take in a page's `seen` and `held_ms`; the greatest age [s] its message can have.

        Infinite for a stamp that was never sent.
        """
        if seen > self.sent_at or seen <= 0.0:
            return math.inf
        self.acknowledged = max(self.acknowledged, seen)
        self.round_trip_ms = max(0.0, 1000.0 * (now - seen) - held_ms)
        return now - seen


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e12 < value < 1e12


def _is_time(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_motion(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_is_number(v) and -1 <= v <= 1 for v in value)


def _are_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(name, str) for name in value)
        and len(set(value)) == len(value)
        and NAMES.issuperset(value)
    )


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key comes twice")
    return values


_Check = Callable[[Any], bool]
_SEEN: dict[str, _Check] = {"seen": _is_time, "held_ms": _is_time}
_FIELDS: dict[str, dict[str, _Check]] = {
    "input": {"hands": _are_names, "touch": _is_motion, "pad": _are_names, "sticks": _is_motion, **_SEEN},
    "seen": _SEEN,
    "ask": {},
    "give": {},
    "answer": {"accept": lambda value: isinstance(value, bool)},
}
