"""Rings and fragments whose numbers tell where they belong."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from ray.rllib.core.columns import Columns

from hil_rllib.contract import DISCRETE_PENALTY, IS_INTERVENTION
from hil_rllib.data.replay import Fragment, Ring

SPACE = gym.spaces.Dict({"x": gym.spaces.Box(-1e9, 1e9, (1,), np.float32)})


def fragment(
    episode: int, first: int, length: int, *, terminated: bool = False, flags: list[float] | None = None
) -> Fragment:
    """Step t of episode e has observation 1000·e + t and reward equal to it."""
    obs = 1000 * episode + first + np.arange(length + 1, dtype=np.float32)
    steps = {
        Columns.ACTIONS: np.repeat(obs[:-1, None], 4, axis=1),
        Columns.REWARDS: obs[:-1].copy(),
        DISCRETE_PENALTY: np.zeros(length, np.float32),
        Columns.TERMINATEDS: np.zeros(length, np.bool_),
        IS_INTERVENTION: np.asarray(flags if flags is not None else np.zeros(length), np.float32),
    }
    if terminated:
        steps[Columns.TERMINATEDS][-1] = True
    return Fragment(str(episode), first, {"x": obs[:, None]}, steps)


def held(ring: Ring) -> list[float]:
    """The observations that transitions of the ring start from, oldest first, each with its own next one."""
    rows = ring._starts[(ring._head + np.arange(len(ring))) % ring.capacity]
    starts = ring.obs["x"][rows % ring.capacity, 0]
    np.testing.assert_array_equal(ring.obs["x"][(rows + 1) % ring.capacity, 0], starts + 1)
    np.testing.assert_array_equal(ring.steps[Columns.REWARDS][rows % ring.capacity], starts)
    return starts.tolist()
