"""A demonstration in the environment's own terms: what `alignment` and `demos` produce and others consume."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil_rllib import contract
from hil_rllib.data.video import Frames

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass
class Recording:
    """All N recorded actions of an episode on the environment's time axis, as a replay needs them.

    The observation before action t is row t, the one after it row t+1. A LeRobot file holds N of these
    N+1 rows; the missing one (0 in shifted files, N in others) is NaN.

    actions: (N, 4) in env action space. agent_pos: (N+1, 18). environment_state: (N+1, 3) [m] or None.
    start_gripper: actuator command at the reset, 0 open … 255 closed.
    success: whether the file says that the episode succeeded; None where it does not say.
    dropped_action: (4,) in env action space, between the reset and row 0; None where row 0 is the reset's.
    """

    episode_index: int
    actions: Floats
    agent_pos: Floats
    environment_state: Floats | None
    rewards: Floats
    penalties: Floats
    interventions: Floats
    terminated: bool
    start_gripper: float
    success: bool | None
    dropped_action: Floats | None = None

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def tcp_pos(self) -> Floats:
        """(N+1, 3) [m], one row NaN."""
        return self.agent_pos[:, contract.AGENT_POS["tcp_pos"]]


@dataclass
class Demo:
    """T transitions (o[t], a[t], r[t], o[t+1]) with all T+1 observations.

    agent_pos: float32 (T+1, 18). environment_state: float32 (T+1, 3) or None.
    frames: camera → uint8 (T+1, H, W, 3), or None without images.
    actions: float32 (T, 4) in env action space: motion [-1, 1], gripper [0, 2].
    rewards, penalties, interventions: float32 (T,). terminated, truncated: bool (T,).
    recording: what the file held, for replaying; None where there was no file.
    end_seen: whether the last observation is one, and does not just repeat that before.
    """

    episode_index: int
    agent_pos: Floats
    environment_state: Floats | None
    frames: dict[str, Frames] | None
    actions: Floats
    rewards: Floats
    penalties: Floats
    interventions: Floats
    terminated: Flags
    truncated: Flags
    recording: Recording | None = field(default=None, repr=False)
    end_seen: bool = True

    def __post_init__(self) -> None:
        steps = len(self.actions)
        for name in ("rewards", "penalties", "interventions", "terminated", "truncated"):
            if len(getattr(self, name)) != steps:
                raise ValueError(
                    f"Demo {self.episode_index}: {len(getattr(self, name))} {name} for {steps} actions."
                )
        for name, rows in self.observations.items():
            if len(rows) != steps + 1:
                raise ValueError(
                    f"Demo {self.episode_index}: {len(rows)} rows of {name} for {steps} actions; "
                    f"{steps + 1} fit."
                )

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def observations(self) -> dict[str, NDArray[Any]]:
        """What there is of agent_pos, environment_state and pixels.<camera>, each T+1 rows."""
        rows: dict[str, NDArray[Any]] = {"agent_pos": self.agent_pos}
        if self.environment_state is not None:
            rows["environment_state"] = self.environment_state
        for camera, frames in (self.frames or {}).items():
            rows[f"pixels.{camera}"] = frames
        return rows

    def observation(self, t: int) -> dict[str, Any]:
        """Observation t as the environment gives it: with images no cube position, without them no pixels."""
        if self.frames is not None:
            return {"agent_pos": self.agent_pos[t], "pixels": {cam: f[t] for cam, f in self.frames.items()}}
        if self.environment_state is not None:
            return {"agent_pos": self.agent_pos[t], "environment_state": self.environment_state[t]}
        return {"agent_pos": self.agent_pos[t]}


def end_flags(steps: int, terminated: bool) -> tuple[Flags, Flags]:
    """(terminated, truncated), each (T,): the episode ends at its last transition, one way or the other."""
    ends = np.zeros((2, steps), bool)
    ends[0 if terminated else 1, -1:] = True
    return ends[0], ends[1]
