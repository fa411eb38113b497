"""Runners' episodes to LeRobot datasets, each by a process of its own on the learner's machine.

There, and not beside the runner, so that all datasets lie in the run's folder and none goes with a node.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import ray
from ray.exceptions import RayError

from hil_rllib.collect.recording import PIXELS, WORLD, Episode
from hil_rllib.config import Config
from hil_rllib.contract import CAMERAS
from hil_rllib.data import lerobot_schema as schema
from hil_rllib.data.dataset_lock import lock_dataset
from hil_rllib.data.lerobot_append import check_continues, read_contents
from hil_rllib.data.lerobot_drop import count_episodes, drop_episodes
from hil_rllib.data.lerobot_format import DatasetInfo
from hil_rllib.data.lerobot_writer import FPS, SIZE, LeRobotWriter
from hil_rllib.disk import write_whole

logger = logging.getLogger(__name__)

NICENESS = 19  # of the process that codes videos: all else on the machine goes first
NAMES = 100  # of the last episodes, by which one that is asked for twice is known
BACKLOG = 2  # episodes (of about 10 MB) that runners without a person may be ahead of their writer
INFO_PATH = Path("meta", "info.json")
OWNER_WAIT_S = 20.0  # [s] for a dataset's writer to end: a killed run's outlives it a little
FLUSH_S = 120.0  # [s] that a runner waits at its end for its last episodes to be written


def recordings_dir(config: Config) -> Path:
    """The folder of the run's datasets."""
    return Path(config.record.dir) if config.record.dir else Path(config.run.dir) / "recordings"


def operator_names(config: Config) -> list[str]:
    """Of the operators' runners and their datasets: `operator`, or of several operator_1, operator_2, …"""
    count = config.operator.count
    return ["operator"] if count == 1 else [f"operator_{i + 1}" for i in range(count)]


def autonomous_names(config: Config) -> list[str]:
    """Of the policy's runners and their datasets: autonomous_1, autonomous_2, …"""
    return [f"autonomous_{i + 1}" for i in range(config.runners.autonomous)]


def recorded_episodes(config: Config) -> dict[str, int]:
    """How many episodes each of the run's datasets holds, by name, of those on this machine."""
    infos = {name: recordings_dir(config) / name / INFO_PATH for name in _names(config)}
    return {
        name: DatasetInfo.load(f.parents[1]).raw["total_episodes"] for name, f in infos.items() if f.exists()
    }


def _names(config: Config) -> list[str]:
    operators = operator_names(config) if config.record.operator else []
    return operators + (autonomous_names(config) if config.record.autonomous else [])


def check_datasets(config: Config, env: gym.Env) -> None:
    """Raises DatasetError where a dataset that is there already cannot be continued by this run, or another
    writes it.

    env: the run's, without images.
    """
    folders = [recordings_dir(config) / name for name in _names(config)]
    begun = [folder for folder in folders if (folder / INFO_PATH).exists()]
    observations: dict[str, Any] = dict(env.reset()[0]) if begun else {}
    if config.env.image_obs:
        observations |= dict.fromkeys(f"{PIXELS}.{camera}" for camera in CAMERAS)
    for dataset in begun:
        with lock_dataset(dataset, OWNER_WAIT_S):
            features = schema.features(*layout(observations), FPS, SIZE)
            check_continues(read_contents(dataset), dataset, features, FPS, config.record.task)


class EpisodeWriter:
    """A Ray actor that writes one dataset, which begins with the first episode."""

    def __init__(self, folder: Path, task: str) -> None:
        os.nice(NICENESS - os.nice(0))
        self._folder, self._task = folder, task
        self._owner_ends = time.monotonic() + OWNER_WAIT_S
        self._writer: LeRobotWriter | None = None

    def count(self) -> int:
        """Episodes on disk."""
        return self._writer.episodes if self._writer else count_episodes(self._folder)

    def keep(self, episodes: int) -> None:
        """Remove all but the first so many: the run has gone back, and will record the others again."""
        if self._writer:
            self._writer.close()
        self._writer = None
        if dropped := drop_episodes(self._folder, episodes, self._wait_s()):
            logger.info("%s: %d episodes come again and were removed.", self._folder, dropped)

    def write(self, episode: Episode, name: str) -> int:
        """Returns the episode's index once it is on disk. name: its own; Ray asks again if this process dies.

        Which name an index has is noted before the episode is written, so that one asked for twice is known.
        """
        if self._writer is None:
            cameras, world = layout(episode.observations)
            self._writer = LeRobotWriter(
                self._folder,
                cameras=cameras,
                environment_state=world,
                task=self._task,
                wait_s=self._wait_s(),
            )
        writer, last = self._writer, len(episode) - 1
        note = self._folder.with_name(f".{self._folder.name}.written")
        names: dict[str, int] = json.loads(note.read_text()) if note.exists() else {}
        if names.get(name, writer.episodes) < writer.episodes:
            return names[name]
        names = {other: index for other, index in names.items() if index < writer.episodes}
        write_whole(note, json.dumps(dict([*names.items(), (name, writer.episodes)][-NAMES:])))
        writer.discard_episode()  # what a failed attempt left
        for t in range(len(episode)):
            row = {name: column[t] for name, column in episode.observations.items()}
            pixels = {name.removeprefix(f"{PIXELS}."): row.pop(name) for name in list(row) if PIXELS in name}
            writer.add_step(
                {**row, PIXELS: pixels},
                episode.actions[t],
                reward=episode.rewards[t],
                terminated=episode.terminated and t == last,
                truncated=episode.truncated and t == last,
                success=episode.successes[t],
                penalty=episode.penalties[t],
                intervention=episode.interventions[t] > 0,
            )
        return writer.end_episode(seed=episode.seed)

    def _wait_s(self) -> float:
        return max(0.0, self._owner_ends - time.monotonic())


def layout(observations: Mapping[str, Any]) -> tuple[list[str], bool | list[str]]:
    """Cameras and environment_state of such observations (columns of an `Episode`), see `LeRobotWriter`."""
    cameras = [name.removeprefix(f"{PIXELS}.") for name in observations if name.startswith(PIXELS)]
    world = observations[WORLD].shape[-1] if WORLD in observations else 0
    return cameras, [f"objects.{i}" for i in range(world)] if world not in (0, 3) else world == 3


class Outbox:
    """A runner's way to its writer. A person's runner never waits; others let the writer keep up.

    writer: the actor's name.
    """

    def __init__(self, writer: str, realtime: bool) -> None:
        self._writer, self._realtime = ray.get_actor(writer), realtime
        self._sent: list[ray.ObjectRef] = []

    def put(self, episode: Episode) -> None:
        self._sent.append(self._writer.write.remote(episode, uuid.uuid4().hex))
        self._settle(len(self._sent) if self._realtime else BACKLOG, timeout=None)

    def flush(self) -> None:
        self._settle(0, timeout=None)

    def close(self) -> None:
        self._settle(0, timeout=FLUSH_S)
        if self._sent:
            logger.error("%d recorded episodes were not written in %.0f s.", len(self._sent), FLUSH_S)

    def _settle(self, allowed: int, timeout: float | None) -> None:
        """Take note of what was written; wait until at most `allowed` episodes are not."""
        surplus = len(self._sent) - allowed
        done: list[ray.ObjectRef] = []
        if self._sent:
            done, self._sent = ray.wait(
                self._sent,
                num_returns=max(1, surplus),
                timeout=timeout if surplus > 0 else 0.0,
            )
        for ref in done:
            try:
                ray.get(ref)
            except (RayError, OSError, ValueError) as error:  # a full disk must not end the training
                logger.error("A recorded episode was not written: %s", error)


def start_writer(folder: Path, task: str) -> tuple[str, Any]:
    """The actor's name and handle. Called in the trial it stays on its machine, wherever the runner goes.

    Runners find it by name: with a handle in its arguments Ray warns that a runner may not come back.
    """
    name = f"writer-{folder.name}-{uuid.uuid4().hex}"
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=1, name=name)(EpisodeWriter)
    return name, actor.remote(folder, task)
