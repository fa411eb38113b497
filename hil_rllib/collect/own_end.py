"""An env that keeps its own opinion to itself."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium


class OwnEndHidden(gymnasium.Wrapper):
    """Neither rewards nor ends an episode; a time limit outside and the operator still do.

    What the env itself thinks stays in info["succeed"]. For robots without a sensor of success, simulated.
    """

    STATE: ClassVar[tuple[str, ...]] = ()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, _, _, truncated, info = self.env.step(action)
        return observation, 0.0, False, truncated, info
