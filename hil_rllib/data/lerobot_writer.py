"""Writes LeRobot v3.0 datasets, one finished episode at a time.

    with LeRobotWriter(folder, cameras=("front", "wrist"), task="Pick up the cube") as writer:
        writer.add_step(observation, action, reward=0.0, …)   # o_t and the action taken in it
        writer.end_episode()

Rows are (o_t, a_t): action[t] was taken in obs[t], as LeRobot's policies read them. The observation after an
episode's last action has no place in the format; `repair.to_demo` and `demos` say how it is rebuilt.

A killed process loses its unfinished episode only: every file is written under a temporary name, synced and
renamed, videos and data first, then the episode's table, which is what makes the episode exist, then the
totals. Each episode has files of its own, which the format allows, so no finished file is opened again.
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
from hil_rllib.data.dataset_stats import aggregate, column_stats, image_stats
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.data.video import Frames

logger = logging.getLogger(__name__)


class LeRobotWriter:
    """Creates a dataset in `root`, or continues one that has the same features.

    cameras: names whose frames each step brings. environment_state: whether steps bring the cube's position.
    """

    def __init__(
        self,
        root: Path,
        *,
        cameras: Sequence[str] = contract.CAMERAS,
        environment_state: bool = True,
        task: str = "Pick up the cube",
        fps: int = round(1 / contract.CONTROL_DT),
        robot_type: str = "franka_sim",
        image_size: tuple[int, int] = (contract.IMAGE_SIZE, contract.IMAGE_SIZE),
    ) -> None:
        self.root, self.fps, self.task = Path(root), fps, task
        self.features = schema.features(cameras, environment_state, fps, image_size)
        self._cameras = tuple(cameras)
        self._robot_type = robot_type
        self._steps: list[dict[str, Any]] = []
        self._stats: list[dict[str, Any]] = []
        self.episodes = self.frames = 0
        if (self.root / "meta" / "info.json").exists():
            self._continue()
        else:
            self._commit_totals()

    def __enter__(self) -> LeRobotWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard_episode()

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
    ) -> None:
        """One step: the observation as the env gave it, the action (4,) in env space, what came of it.

        The observation holds agent_pos, environment_state if the dataset has it, pixels with every camera.
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
        place = {"chunk_index": index // fmt.CHUNKS_SIZE, "file_index": index % fmt.CHUNKS_SIZE}
        entry: dict[str, Any] = {
            "episode_index": index,
            "tasks": [self.task],
            "length": n,
            "seed": seed,
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + n,
        }
        for part in ("data", "meta/episodes", *(f"videos/{fmt.IMAGE_PREFIX}{cam}" for cam in self._cameras)):
            entry |= {f"{part}/{name}": at for name, at in place.items()}
        for key in (fmt.IMAGE_PREFIX + camera for camera in self._cameras):
            entry |= {f"videos/{key}/from_timestamp": 0.0, f"videos/{key}/to_timestamp": n / self.fps}
            self._write_video(key, columns[key], place)
        entry |= {f"stats/{key}/{name}": value for key, of in stats.items() for name, value in of.items()}

        self._write_table(schema.to_table(columns, self.features), fmt.V30_DATA_PATH, place)
        self._write_table(schema.episode_table(entry), fmt.V30_EPISODES_PATH, place)
        self._stats.append(stats)
        self._steps = []
        self.episodes, self.frames = index + 1, self.frames + n
        self._commit_totals()
        return index

    def _columns(self) -> dict[str, NDArray[Any]]:
        """The pending steps as columns, with those every LeRobot dataset has."""
        n = len(self._steps)
        return {
            **{key: np.stack([step[key] for step in self._steps]) for key in self._steps[0]},
            "timestamp": (np.arange(n) / self.fps).astype(np.float32),
            "frame_index": np.arange(n),
            "episode_index": np.full(n, self.episodes),
            "index": self.frames + np.arange(n),
            "task_index": np.zeros(n, np.int64),
        }

    def _write_video(self, key: str, frames: Frames, place: dict[str, int]) -> None:
        path = self.root / fmt.V30_VIDEO_PATH.format(video_key=key, **place)
        _commit(path, lambda temporary: video.encode(temporary, frames, self.fps))

    def _write_table(self, table: pa.Table, path: str, place: dict[str, int]) -> None:
        _commit(self.root / path.format(**place), lambda temporary: pq.write_table(table, temporary))

    def _commit_totals(self) -> None:
        """info.json, stats.json and, once, the task table."""
        meta = self.root / "meta"
        tasks = meta / "tasks.parquet"
        if not tasks.exists():
            _commit(tasks, lambda tmp: pq.write_table(schema.task_table(self.task), tmp))
        info = {
            "codebase_version": fmt.V30,
            "robot_type": self._robot_type,
            "total_episodes": self.episodes,
            "total_frames": self.frames,
            "total_tasks": 1,
            "chunks_size": fmt.CHUNKS_SIZE,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self.fps,
            "splits": {"train": f"0:{self.episodes}"},
            "data_path": fmt.V30_DATA_PATH,
            "video_path": fmt.V30_VIDEO_PATH if self._cameras else None,
            "features": self.features,
        }
        if self._stats:
            stats = json.dumps(aggregate(self._stats), indent=2)
            _commit(meta / "stats.json", lambda tmp: tmp.write_text(stats))
        _commit(meta / "info.json", lambda tmp: tmp.write_text(json.dumps(info, indent=2)))

    def _continue(self) -> None:
        """Takes up an existing dataset; its episode tables, not info.json, say how far it got."""
        path = self.root / "meta" / "info.json"
        there = fmt.DatasetInfo.load(self.root).raw
        if there["features"] != json.loads(json.dumps(self.features)) or there["codebase_version"] != fmt.V30:
            raise DatasetError(
                path,
                f"is {there['codebase_version']} with features {schema.summary(there['features'])}; "
                f"this recording would be {fmt.V30} with {schema.summary(self.features)}.",
                "Record into another folder.",
            )
        tasks = pq.read_table(self.root / "meta" / "tasks.parquet")["task"].to_pylist()
        if tasks != [self.task]:
            problem = f"holds the task {tasks[0]!r}; this recording is of {self.task!r}."
            raise DatasetError(path, problem, "Record into another folder.")
        for file in sorted((self.root / "meta" / "episodes").glob("chunk-*/file-*.parquet")):
            for row in pq.read_table(file).to_pylist():
                self.episodes, self.frames = row["episode_index"] + 1, row["dataset_to_index"]
                self._stats.append(
                    {
                        key: {
                            name: row[f"stats/{key}/{name}"]
                            for name in ("min", "max", "mean", "std", "count")
                        }
                        for key in self.features
                    }
                )
        logger.info("Continuing the dataset in %s after %d episodes.", self.root, self.episodes)


def _commit(path: Path, write: Callable[[Path], object]) -> None:
    """`write(temporary)`, then sync and rename: `path` is whole or absent, never half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
