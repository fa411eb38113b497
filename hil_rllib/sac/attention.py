"""Which of several robots needs the one person beside them: what the critics think, and who gets nowhere.

For every operator's runner, from the newest observation of it that was stored:
    value         mean of the critics for the policy's own action: discounted reward to come
    disagreement  their standard deviation: how little they know the situation
    stuck_s       [s] since the value last rose by `RISE` above all it had been in this episode
The one that has been stuck longest, for `STUCK_S` at least and with nobody's hands on it, is suggested.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from hil_rllib.contract import CONTROL_DT, IS_INTERVENTION
from hil_rllib.data.replay import Nested, stacked

EVERY_S = 1.0  # [s] between looks at all of them
RISE = 0.02  # of value that counts as getting on; ours, where success is worth 1
SILENT_S = 10.0  # [s] of nothing heard, after which a robot is left out: its runner is gone
STUCK_S = 3.0  # [s] of no progress that deserve a look; ours: the policy's episodes last about 2

Judge = Callable[[Nested], tuple[NDArray[np.float32], NDArray[np.float32]]]


@dataclass
class _Robot:
    observation: Nested
    episode: str
    step: int  # of the episode, as stored
    by_hand: bool
    heard_at: float  # [s] by the clock
    best: float = -np.inf
    best_step: int = 0


class Attention:
    """Takes note of fragments as they arrive; reports on all robots once a second.

    judge: observations (N, …) to value (N,) and disagreement (N,).
    """

    def __init__(self, judge: Judge, clock: Callable[[], float] = time.monotonic) -> None:
        self._judge, self._clock = judge, clock
        self._robots: dict[str, _Robot] = {}
        self._at = -np.inf
        self._report: list[dict[str, Any]] = []

    def note(self, robot: str, episode: SingleAgentEpisode) -> None:
        """A fragment of the robot's."""
        if len(episode) == 0:
            return
        known = self._robots.get(robot)
        flags = episode.get_extra_model_outputs(IS_INTERVENTION)
        by_hand = bool(flags[-1] > 0)
        new = _Robot(episode.get_observations(-1), str(episode.id_), episode.t, by_hand, self._clock())
        if known is not None and known.episode == new.episode:
            new.best, new.best_step = known.best, known.best_step
        self._robots[robot] = new

    def report(self) -> list[dict[str, Any]]:
        """A row for each robot that was heard of lately, by name."""
        if self._robots and self._clock() - self._at >= EVERY_S:
            self._at = self._clock()
            heard = {name: r for name, r in self._robots.items() if self._at - r.heard_at < SILENT_S}
            self._robots = heard
            self._report = self._look() if heard else []
        return self._report

    def _look(self) -> list[dict[str, Any]]:
        names = sorted(self._robots)
        robots = [self._robots[name] for name in names]
        observations = stacked([robot.observation for robot in robots])
        rows: list[dict[str, Any]] = []
        for name, robot, value, disagreement in zip(names, robots, *self._judge(observations), strict=True):
            if value > robot.best + RISE:
                robot.best, robot.best_step = float(value), robot.step
            stuck_s = (robot.step - robot.best_step) * CONTROL_DT
            rows.append(
                {
                    "robot": name,
                    "value": _finite(value),
                    "disagreement": _finite(disagreement),
                    "stuck_s": stuck_s,
                    "by_hand": robot.by_hand,
                    "suggested": False,
                }
            )
        waiting = [row for row in rows if row["stuck_s"] >= STUCK_S and not row["by_hand"]]
        if waiting:
            max(waiting, key=lambda row: (row["stuck_s"], row["disagreement"] or 0.0))["suggested"] = True
        return rows


def _finite(value: np.float32) -> float | None:
    return float(value) if np.isfinite(value) else None
