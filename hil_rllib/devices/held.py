"""From presses and deflections to a `Command`: the part all devices in a person's hands share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from hil_rllib.contract import Command, EpisodeEnd, Gripper
from hil_rllib.devices.controls import ENDS, GRIPPER, MOTION


class Held:
    """Which controls (`controls.CONTROLS`, by name) are held, from any thread; what that commands.

    A tap between two reads counts at the next one. The toggle and the sticks stay as they were left, across
    episodes too; a verdict on the episode is given once.

    motion_intervenes: a motion or gripper control, or a deflection, is a trigger by itself, as on a keyboard.
    bounce_s: a release followed by a press within this time [s] is none.
    trigger_toggles: the trigger flips the toggle instead of counting while it is held.
    """

    def __init__(
        self,
        *,
        motion_intervenes: bool,
        bounce_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.motion_intervenes = motion_intervenes
        self.bounce_s = bounce_s
        self.trigger_toggles = False
        self._clock = clock
        self._lock = threading.Lock()
        self.clear()

    def clear(self, down: Iterable[str] = ()) -> None:
        """A device has just been opened: nothing is toggled, `down` is held without having been pressed."""
        with self._lock:
            self._down = set(down)
            self._tapped: set[str] = set()
            self._released_s: dict[str, float] = {}
            self._deflection = [0.0, 0.0, 0.0]
            self._toggled = False
            self._end = EpisodeEnd.NONE

    def forget(self) -> None:
        """Drop taps and a verdict that nobody has read: they were meant for the last episode."""
        with self._lock:
            self._tapped.clear()
            self._end = EpisodeEnd.NONE

    def press(self, name: str) -> None:
        """The control's key or button went down; again while it is down changes nothing."""
        with self._lock:
            repeated = name in self._down or self._bouncing(name)
            self._down.add(name)
            if repeated:
                return
            self._tapped.add(name)
            if name == "toggle" or (name == "intervene" and self.trigger_toggles):
                self._toggled = not self._toggled
            self._end = ENDS.get(name, self._end)

    def release(self, name: str) -> None:
        """The control's key or button went up."""
        with self._lock:
            if name in self._down:
                self._down.discard(name)
                self._released_s[name] = self._clock()

    def deflect(self, x: float, y: float, z: float) -> None:
        """The sticks' motion, each in [-1, 1]."""
        with self._lock:
            self._deflection = [x, y, z]

    def down(self) -> set[str]:
        """The controls held at this moment."""
        with self._lock:
            return set(self._down)

    def read(self) -> Command:
        """The command for this control step."""
        with self._lock:
            held = self._down | self._tapped | {name for name in self._released_s if self._bouncing(name)}
            self._tapped.clear()
            end, self._end = self._end, EpisodeEnd.NONE
            motion = [
                max(-1.0, min(1.0, stick + (f"+{axis}" in held) - (f"-{axis}" in held)))
                for axis, stick in zip(MOTION, self._deflection, strict=True)
            ]
            grips = [gripper for name, gripper in GRIPPER.items() if name in held]
            keys = held & {f"{sign}{axis}" for axis in MOTION for sign in "+-"}
            acting = bool(keys or grips or any(self._deflection))
            trigger = "intervene" in held and not self.trigger_toggles
            return Command(
                motion=(motion[0], motion[1], motion[2]),
                gripper=grips[0] if len(grips) == 1 else Gripper.HOLD,
                intervening=self._toggled or trigger or (self.motion_intervenes and acting),
                end=end,
                label="label" in held,
            )

    def _bouncing(self, name: str) -> bool:
        released = self._released_s.get(name)
        return released is not None and self._clock() - released < self.bounce_s
