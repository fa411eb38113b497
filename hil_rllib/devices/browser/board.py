"""What the page shows beside the cameras: the episode as it goes, and the run so far."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

POINTS = 400  # of a curve; with more, every second is dropped
EPISODES = 20  # outcomes of the last ones
CURVES = ("success_rate", "intervention_rate")


@dataclass
class Board:
    """Takes in the runner's messages; gives the parts of those to the pages."""

    step: dict[str, Any] = field(default_factory=dict)
    who: str = ""  # of each step of the episode, the first letter of who acted
    outcomes: deque[str] = field(default_factory=lambda: deque(maxlen=EPISODES))
    values: dict[str, Any] = field(default_factory=dict)
    robots: list[dict[str, Any]] = field(default_factory=list)  # where one person minds several
    points: list[list[float | None]] = field(default_factory=list)  # env steps, then CURVES
    _every: int = 1  # values taken for one point
    _skipped: int = 0

    def take_step(self, message: dict[str, Any]) -> None:
        """One step, or the beginning of an episode."""
        if message["step"] == 0:
            self.who = ""
        else:
            # The steps of a page that was too slow, or of a server that is new, are unknown.
            self.who = self.who[: message["step"] - 1].ljust(message["step"] - 1, "?") + message["who"][0]
        if message["end"]:
            self.outcomes.append(message["end"])
        self.step = {name: value for name, value in message.items() if name not in ("kind", "slot")}

    def take_values(self, values: dict[str, Any]) -> None:
        """The run's newest metrics."""
        self.robots = values.pop("robots", [])
        self.values = values
        self._skipped += 1
        if self._skipped < self._every or "env_steps" not in values:
            return
        self._skipped = 0
        point = [values["env_steps"], *(values.get(name) for name in CURVES)]
        if self.points and self.points[-1][0] == point[0]:
            self.points[-1] = point
        else:
            self.points.append(point)
        if len(self.points) > POINTS:
            self.points, self._every = self.points[::2], 2 * self._every

    def now(self) -> dict[str, Any]:
        """The step, as a page gets it."""
        return {**self.step, "timeline": self.who, "outcomes": list(self.outcomes)}

    def run(self) -> dict[str, Any]:
        """The run, as a page gets it."""
        return {"type": "run", "values": self.values, "points": self.points, "robots": self.robots}
