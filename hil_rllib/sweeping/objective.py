"""What a sweep optimises, from a trial's reports as they come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hil_rllib.config import Config
from hil_rllib.contract import CONTROL_DT

THRESHOLD = 0.9  # greedy success


@dataclass
class Objective:
    """Adds `objective` to every report, and what it is made of, so that schedulers can compare at any time.

    success: of the latest greedy evaluation, 0 before the first; more is better.
    human_seconds_to_90: a person's time [s], demonstrations included, when an evaluation first showed 90 %;
    less is better. Of a trial that is not there yet it is more than any can spend, and falls with its best
    success.
    """

    name: str
    config: Config
    best: float = 0.0
    reached_at_s: float | None = None
    state_keys: tuple[str, ...] = field(default=("best", "reached_at_s"), repr=False)

    @property
    def mode(self) -> str:
        return "max" if self.name == "success" else "min"

    def add_to(self, result: dict[str, Any]) -> None:
        success = float(result.get("evaluation", {}).get("success", 0.0))
        human_s = float(result["hil"]["demo_seconds"]) + float(result["hil"]["human_seconds"])
        self.best = max(self.best, success)
        if self.reached_at_s is None and success >= THRESHOLD:
            self.reached_at_s = human_s
        result["objective"] = success if self.name == "success" else self._human_seconds(human_s)
        result["human_seconds_to_90"] = self.reached_at_s

    def _human_seconds(self, human_s: float) -> float:
        if self.reached_at_s is not None:
            return self.reached_at_s
        most = human_s + self.config.stop.env_steps * CONTROL_DT
        return most * (2.0 - self.best)

    def state(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in self.state_keys}

    def restore(self, state: dict[str, Any]) -> None:
        for key in self.state_keys:
            setattr(self, key, state[key])
