"""Writes LeRobot v3.0 datasets, one finished episode at a time.

    with LeRobotWriter(folder, cameras=("front", "wrist"), task="Pick up the cube") as writer:
        writer.add_step(observation, action, reward=0.0, …)   # o_t and the action taken in it
        writer.end_episode()

Rows are (o_t, a_t): action[t] was taken in obs[t], as LeRobot's policies read them. The observation after an
episode's last action has no place in the format; `repair.to_demo` and `demos` say how it is rebuilt.

A killed process loses its unfinished episode only: every file is written under a temporary name, synced and
renamed, videos and data first, then the episode's table, which is what makes the episode exist, then the
totals. Each episode has files of its own, which the format allows, so no finished file is opened again.
A dataset with episodes is continued, whoever made it, if its features, rate and task are the same, and nobody
else writes it meanwhile.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from hil_rllib import contract
from hil_rllib.data import lerobot_format as fmt
from hil_rllib.data import lerobot_schema as schema
from hil_rllib.data import video
from hil_rllib.data.dataset_lock import lock_dataset
from hil_rllib.data.dataset_stats import column_stats, image_stats, merge
from hil_rllib.data.lerobot_append import Contents, Place, check_continues, conform, following, read_contents
from hil_rllib.data.video import Frames

logger = logging.getLogger(__name__)

FPS = round(1 / contract.CONTROL_DT)
SIZE = (contract.IMAGE_SIZE, contract.IMAGE_SIZE)  # height, width


class LeRobotWriter:
    """Creates a dataset in `root`, or continues one that has the same features; alone, until `close`.

    cameras: names whose frames each step brings, at image_size (height, width). environment_state: whether
    steps bring the cube's position, or the names of what else that vector holds. state_names, action_names:
    of the entries of agent_pos and of the action. labels: whether
    steps bring a person's word on what they show. wait_s: for another writer to end. Not for several threads
    at once.

    Raises:
        DatasetError: another writes there, or the folder's dataset has other features, another rate or task.
    """

    def __init__(
        self,
        root: Path,
        *,
        cameras: Sequence[str] = contract.CAMERAS,
        environment_state: bool | Sequence[str] = True,
        task: str = "Pick up the cube",
        fps: int = FPS,
        robot_type: str = "franka_sim",
        image_size: tuple[int, int] = SIZE,
        state_names: Sequence[str] = schema.STATE_NAMES,
        action_names: Sequence[str] = schema.ACTION_NAMES,
        labels: bool = False,
        wait_s: float = 0.0,
    ) -> None:
        self.root, self.fps, self.task = Path(root), fps, task
        self.features = schema.features(
            cameras, environment_state, fps, image_size, state_names, action_names, labels
        )
        self._cameras = tuple(cameras)
        self._steps: list[dict[str, Any]] = []
        self._lock = lock_dataset(self.root, wait_s)
        try:
            self._contents = self._open(robot_type)
            commit_totals(self.root, self._contents)
        except BaseException:
            self._lock.release()
            raise

    @property
    def episodes(self) -> int:
        """Finished ones in the dataset, those found there included."""
        return self._contents.episodes

    @property
    def frames(self) -> int:
        return self._contents.frames

    def __enter__(self) -> LeRobotWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Others may write the dataset from now on. The episode under way is left out."""
        self.discard_episode()
        self._lock.release()

    def add_step(
        self,
        observation: Mapping[str, Any],
        action: ArrayLike,
        *,
        reward: float,
        terminated: bool,
        truncated: bool,
        success: bool,
        penalty: float = 0.0,
        intervention: bool = False,
        label: bool = False,
    ) -> None:
        """One step: the observation as the env gave it, the action (4,) in env space, what came of it.

        The observation holds agent_pos, environment_state if the dataset has it, pixels with every camera.
        label: whether a person calls what the observation shows success, in datasets with such labels.
        """
        row: dict[str, Any] = {
            fmt.STATE: np.asarray(observation["agent_pos"], np.float32),
            fmt.ACTION: np.asarray(action, np.float32),
            fmt.REWARD: np.float32(reward),
            fmt.DONE: bool(terminated or truncated),
            fmt.TRUNCATED: bool(truncated),
            fmt.SUCCESS: bool(success),
            fmt.PENALTY: np.float32(penalty),
            fmt.INTERVENTION: np.float32(intervention),
        }
        if fmt.ENVIRONMENT_STATE in self.features:
            row[fmt.ENVIRONMENT_STATE] = np.asarray(observation["environment_state"], np.float32)
        if fmt.LABEL in self.features:
            row[fmt.LABEL] = bool(label)
        for camera in self._cameras:
            row[fmt.IMAGE_PREFIX + camera] = np.array(observation["pixels"][camera], np.uint8)  # a copy
        for key, value in row.items():
            want = self.features[key]["shape"]
            if list(np.shape(value) or (1,)) != want:
                raise ValueError(f"{key} of this step has shape {np.shape(value)}; the dataset holds {want}.")
        self._steps.append(row)

    def discard_episode(self) -> None:
        """Forgets the steps since the last `end_episode` (an episode to be recorded again)."""
        self._steps = []

    def end_episode(self, seed: int | None = None) -> int:
        """Writes the episode to disk; it is safe when this returns. Returns its index.

        seed: of the environment's reset, kept in the episode's table.
        """
        if not self._steps:
            raise ValueError("The episode has no steps. Call add_step before end_episode.")
        columns = self._columns()
        stats = {
            key: image_stats(columns[key]) if feature["dtype"] == "video" else column_stats(columns[key])
            for key, feature in self.features.items()
        }
        index, n = self.episodes, len(self._steps)
        entry: dict[str, Any] = {
            "episode_index": index,
            "tasks": [self.task],
            "length": n,
            "seed": seed,
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + n,
        }
        for part in ("data", "meta/episodes", *(f"videos/{fmt.IMAGE_PREFIX}{cam}" for cam in self._cameras)):
            entry |= {f"{part}/{name}": at for name, at in self._place(part).items()}
        for key in (fmt.IMAGE_PREFIX + camera for camera in self._cameras):
            entry |= {f"videos/{key}/from_timestamp": 0.0, f"videos/{key}/to_timestamp": n / self.fps}
            self._write_video(key, columns[key])
        entry |= {f"stats/{key}/{name}": value for key, of in stats.items() for name, value in of.items()}

        self._write_table(schema.to_table(columns, self.features), fmt.V30_DATA_PATH, "data")
        table = conform(entry, self._contents.episode_schema)
        self._write_table(table, fmt.V30_EPISODES_PATH, "meta/episodes")
        self._finished(n, stats, table.schema)
        return index

    def _open(self, robot_type: str) -> Contents:
        """What is there, or the head of a new dataset."""
        if (self.root / "meta" / "info.json").exists():
            contents = read_contents(self.root)
            check_continues(contents, self.root, self.features, self.fps, self.task)
            for leftover in self.root.rglob(".*.tmp"):  # of a killed recording
                leftover.unlink()
            if contents.episodes:
                logger.info("Continuing the dataset in %s after %d episodes.", self.root, contents.episodes)
                return contents
        meta = self.root / "meta"
        (meta / "info.json").unlink(missing_ok=True)  # of a recording killed before its first episode
        tasks = meta / "tasks.parquet"
        _commit(tasks, lambda temporary: pq.write_table(schema.task_table([self.task]), temporary))
        info = schema.info(self.features, self.fps, robot_type)
        if schema.is_of_our_arm(self.features):
            info[fmt.STATEMENT] = fmt.statement(0)
        return Contents(json.loads(json.dumps(info)), tasks={0: self.task})

    def _finished(self, steps: int, stats: dict[str, Any], episode_schema: pa.Schema) -> None:
        done = self._contents
        done.episodes, done.frames = done.episodes + 1, done.frames + steps
        done.stats = merge([done.stats, stats]) if done.stats else stats
        done.episode_schema = episode_schema
        chunks_size = int(done.info.get("chunks_size", fmt.CHUNKS_SIZE))
        for part in ("data", "meta/episodes", *(f"videos/{fmt.IMAGE_PREFIX}{cam}" for cam in self._cameras)):
            done.next_place[part] = following(**self._place(part), chunks_size=chunks_size)
        self._steps = []
        commit_totals(self.root, self._contents)

    def _place(self, part: str) -> Place:
        return self._contents.next_place.get(part, {"chunk_index": 0, "file_index": 0})

    def _columns(self) -> dict[str, NDArray[Any]]:
        """The pending steps as columns, with those every LeRobot dataset has."""
        n = len(self._steps)
        return {
            **{key: np.stack([step[key] for step in self._steps]) for key in self._steps[0]},
            "timestamp": (np.arange(n) / self.fps).astype(np.float32),
            "frame_index": np.arange(n),
            "episode_index": np.full(n, self.episodes),
            "index": self.frames + np.arange(n),
            "task_index": np.full(n, self._task_index()),
        }

    def _task_index(self) -> int:
        return next(index for index, task in self._contents.tasks.items() if task == self.task)

    def _write_video(self, key: str, frames: Frames) -> None:
        path = self.root / fmt.V30_VIDEO_PATH.format(video_key=key, **self._place(f"videos/{key}"))
        _commit(path, lambda temporary: video.encode(temporary, frames, self.fps))

    def _write_table(self, table: pa.Table, path: str, part: str) -> None:
        where = self.root / path.format(**self._place(part))
        _commit(where, lambda temporary: pq.write_table(table, temporary))


def commit_totals(root: Path, done: Contents) -> None:
    """stats.json and info.json, if they do not say the same already."""
    meta = root / "meta"
    totals: dict[str, Any] = {
        "total_episodes": done.episodes,
        "total_frames": done.frames,
        "splits": {"train": f"0:{done.episodes}"},
    }
    if fmt.states_our_terms(done.info):
        totals[fmt.STATEMENT] = fmt.statement(done.episodes)
    else:  # others have added to it
        done.info.pop(fmt.STATEMENT, None)
    if (meta / "info.json").exists() and totals.items() <= done.info.items():
        return
    done.info |= totals
    if done.stats:
        stats = json.dumps(done.stats, indent=2)
        _commit(meta / "stats.json", lambda temporary: temporary.write_text(stats))
    info = json.dumps(done.info, indent=2)
    _commit(meta / "info.json", lambda temporary: temporary.write_text(info))


def _commit(path: Path, write: Callable[[Path], object]) -> None:
    """`write(temporary)`, then sync and rename: `path` is whole or absent, never half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # such as a full disk, of which it would keep a part
        temporary.unlink(missing_ok=True)
        raise
