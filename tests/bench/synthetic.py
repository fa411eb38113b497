"""Random episodes of realistic shape, for benchmarks that need full rings and no environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.core.columns import Columns

from hil_rllib.contract import ACTION_DIM, DISCRETE_PENALTY, IS_INTERVENTION
from hil_rllib.data.replay import Fragment, Ring

EPISODE_STEPS = 100


def fill(ring: Ring, space: gym.Space[Any], steps: int, seed: int = 0) -> None:
    """Add `steps` steps to a ring, an episode at a time, the way runners' fragments come in."""
    rng = np.random.default_rng(seed)
    for episode, first in enumerate(range(0, steps, EPISODE_STEPS)):
        length = min(EPISODE_STEPS, steps - first)
        ring.add(
            Fragment(f"{seed}-{episode}", 0, observations(space, length + 1, rng), transitions(length, rng))
        )


def observations(space: gym.Space[Any], rows: int, rng: np.random.Generator) -> Any:
    """Standard normal values (rows, …) in the layout of a Dict or Box space."""
    if isinstance(space, gym.spaces.Dict):
        return {name: observations(part, rows, rng) for name, part in space.spaces.items()}
    assert space.shape is not None
    return rng.standard_normal((rows, *space.shape), np.float32).astype(space.dtype)


def transitions(length: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The columns beside observations, of an episode that ends in success."""
    actions = rng.uniform(-1, 1, (length, ACTION_DIM)).astype(np.float32)
    actions[:, -1] = rng.integers(-1, 2, length)
    ends = np.arange(length) == length - 1
    return {
        Columns.ACTIONS: actions,
        Columns.REWARDS: ends.astype(np.float32),
        DISCRETE_PENALTY: rng.choice([0.0, -0.02], length).astype(np.float32),
        Columns.TERMINATEDS: ends,
        IS_INTERVENTION: np.zeros(length, np.float32),
    }
