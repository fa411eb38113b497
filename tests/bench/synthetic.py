"""The algorithm in this process, its rings filled with random episodes of realistic shape."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import ray
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

from hil_rllib.config import load_config
from hil_rllib.contract import ACTION_DIM, DISCRETE_PENALTY, IS_INTERVENTION
from hil_rllib.data.replay import Fragment, Ring
from hil_rllib.sac.algorithm import HILSAC
from hil_rllib.sac.config import HILSACConfig
from hil_rllib.train import start_ray

CONFIGS = Path(__file__).parents[2] / "tuned_configs"
EPISODE_STEPS = 100


def build(config_file: str, steps: int, overrides: Sequence[str] = ()) -> HILSAC:
    """The algorithm of a configuration as it is after so many steps, with as many demonstrations.

    It is built here, not in a process of its own as by Tune, and returned once all its helpers are up. The
    operator is the synthetic one and there is nothing to load: only what a benchmark adds is measured.
    """
    folder = tempfile.mkdtemp(prefix="hil_bench_")
    fixed = ["demos.source=none", "operator.device=scripted", "sac.bc_start_updates=0", f"run.dir={folder}"]
    hil = load_config(CONFIGS / config_file, [*fixed, *overrides])
    start_ray(hil)
    algorithm = HILSACConfig.from_config(hil).build_algo()
    ray.get([actor.__ray_ready__.remote() for actor in (algorithm.evaluator, algorithm.collector._server)])
    space, _ = algorithm.spaces[DEFAULT_MODULE_ID]
    fill(algorithm.online, space, steps, seed=0)
    fill(algorithm.demo, space, steps, seed=1)
    algorithm.experience.env_steps = algorithm._evaluated_at = steps
    return algorithm


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
