"""Demonstrations by a script that moves somewhat like a person, recorded as a LeRobot dataset.

They stand in for human ones where the hub cannot be reached, or where the cube's place is random and no
recorded set covers it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.expert import make_expert
from hil_rllib import contract
from hil_rllib.data.env_replay import EnvSpec
from hil_rllib.data.lerobot_writer import LeRobotWriter

logger = logging.getLogger(__name__)

RECIPE = "1"  # raise when the code below would record other episodes
MAX_TRIES = 5  # per episode; the script fails on about one in a hundred

# What varies from episode to episode; all ours, chosen to spread like the real set (19–65 steps, median 24).
SPEED = (0.4, 0.85)  # share of full motion; people in the real set kept to 0.4
NOISE = (0.02, 0.12)  # standard deviation of each motion entry, [-1, 1]
DETOUR_STEPS = (0, 6)  # the hand first goes some way up or down and aside
PAUSE_STEPS = (0, 3)  # the person looks before moving


class HumanLike:
    """An expert with a hesitant start, a detour, a speed of its own, and an unsteady hand."""

    def __init__(self, env: gymnasium.Env[Any, Any], step_size: float, rng: np.random.Generator) -> None:
        self._expert = make_expert(env, step_size=step_size)
        self._rng = rng
        self._speed = rng.uniform(*SPEED)
        self._noise = rng.uniform(*NOISE)
        pause, detour = int(rng.integers(*PAUSE_STEPS)), int(rng.integers(*DETOUR_STEPS))
        aside = rng.uniform(
            [-0.5, -0.5, -0.3], [0.2, 0.5, 1.0]
        )  # towards the robot and up, seldom into the cube
        self._opening = [np.zeros(3)] * pause + [aside] * detour

    def action(self) -> NDArray[np.float32]:
        """(4,) in env action space."""
        hold = float(contract.Gripper.HOLD)
        if self._opening:
            motion = self._opening.pop(0)
            still = not motion.any()
            command = np.array([*motion, hold])
        else:
            command, still = self._expert.action().astype(np.float64), False
        if not still:
            command[:3] = command[:3] * self._speed + self._rng.normal(0.0, self._noise, 3)
        return np.clip(command, [-1, -1, -1, 0], [1, 1, 1, 2]).astype(np.float32)


def recorded(
    spec: EnvSpec, *, episodes: int, seed: int, cameras: bool, cache_dir: Path, log: logging.Logger = logger
) -> Path:
    """The folder of a dataset of `episodes` successful demonstrations, recorded now or found in the cache.

    cameras: with video, at the render quality of `spec`. The same arguments give the same actions.
    """
    # Quality matters to videos only, and image_obs to neither: steps bring their frames themselves.
    ignored = {"image_obs"} if cameras else {"image_obs", "render_quality"}
    kwargs = {key: value for key, value in spec.kwargs.items() if key not in ignored}
    recipe = {"recipe": RECIPE, "spec": asdict(EnvSpec(spec.id, kwargs)), "seed": seed, "cameras": cameras}
    key = hashlib.sha256(json.dumps(recipe | {"episodes": episodes}, sort_keys=True).encode()).hexdigest()[
        :16
    ]
    folder = cache_dir / "scripted" / key
    if folder.exists():
        log.info("Scripted demonstrations: %d episodes from the cache in %s.", episodes, folder)
        return folder
    log.info("Recording %d scripted demonstrations of %s.", episodes, spec.id)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{key}.", dir=folder.parent, ignore_cleanup_errors=True
    ) as scratch:
        unfinished = Path(scratch) / key
        try:
            record(unfinished, spec, episodes=episodes, seed=seed, cameras=cameras)
            unfinished.rename(folder)
        except OSError:
            if not folder.exists():  # another process or thread was quicker, with the same episodes
                raise
    return folder


def record(folder: Path, spec: EnvSpec, *, episodes: int, seed: int, cameras: bool) -> None:
    """Records `episodes` successful demonstrations into a new dataset in `folder`."""
    if spec.id not in contract.TASKS:
        raise ValueError(f"No script knows {spec.id}. Choose from {', '.join(contract.TASKS)}.")
    task = contract.TASKS[spec.id]
    env = spec.make(image_obs=False, max_episode_steps=task.steps)
    names = contract.CAMERAS if cameras else ()
    try:
        with LeRobotWriter(folder, cameras=names, environment_state=True, task=task.words) as writer:
            for index in range(episodes):
                _record_one(writer, env, spec.step_size, cameras, (seed, index))
    finally:
        env.close()


def _record_one(
    writer: LeRobotWriter,
    env: gymnasium.Env[Any, Any],
    step_size: float,
    cameras: bool,
    seed: tuple[int, int],
) -> None:
    for attempt in range(MAX_TRIES):
        rng = np.random.default_rng([*seed, attempt])
        env_seed = int(rng.integers(2**31))
        observation, _ = env.reset(seed=env_seed)
        human = HumanLike(env, step_size, rng)
        success = ended = False
        while not ended:
            pixels = {"pixels": env.unwrapped.render_cameras()} if cameras else {}  # type: ignore[attr-defined]
            action = human.action()
            following, reward, terminated, truncated, info = env.step(action)
            success, ended = bool(info[contract.SUCCESS]), terminated or truncated
            writer.add_step(
                {**observation, **pixels},
                action,
                reward=float(reward),
                terminated=terminated,
                truncated=truncated and not terminated,
                success=success,
                penalty=info[contract.DISCRETE_PENALTY],
                intervention=True,
            )
            observation = following
        if success:
            writer.end_episode(seed=env_seed)
            return
        writer.discard_episode()
    raise RuntimeError(f"The scripted expert failed {MAX_TRIES} times in a row in {env.spec}.")
