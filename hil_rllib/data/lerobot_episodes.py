"""The tables in `meta/`: a dataset's episodes, where the rows and frames of each lie, and its tasks."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hil_rllib import contract
from hil_rllib.data.lerobot_format import (
    DOWNLOAD_AGAIN,
    V21,
    V30,
    DatasetError,
    DatasetInfo,
    check_not_lfs_pointer,
)
from hil_rllib.data.parquet import read_parquet

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoSlice:
    """Where one camera's frames of one episode lie. start_s: [s] from the file's begin."""

    path: Path
    start_s: float
    whole_file: bool


@dataclass(frozen=True)
class Dropped:
    """The action between the reset and the first row, which a repair dropped; a replay begins with it.

    action: (4,), motion in [-1, 1] steps of `contract.EE_STEP_SIZE`, gripper 0/1/2 = open/hold/close.
    gripper: actuator command at the reset, 0 open … 255 closed.
    """

    action: tuple[float, ...]
    gripper: float

    def __post_init__(self) -> None:
        if len(self.action) != contract.ACTION_DIM or not all(map(math.isfinite, self.action)):
            raise ValueError(f"dropped_action is {self.action}; it must be four finite numbers")
        if not 0 <= self.gripper <= contract.GRIPPER_CLOSED:
            raise ValueError(f"reset_gripper is {self.gripper}; it must lie in 0 to 255")


@dataclass(frozen=True)
class EpisodeMeta:
    """One episode without its data. videos: camera name → slice (none for images kept in parquet).

    seed: of the environment's reset, where the recorder kept it (ours does). dropped: by the repair of a set
    whose rows were shifted, else None.
    """

    index: int
    length: int
    data_path: Path
    videos: dict[str, VideoSlice]
    tasks: tuple[str, ...] = ()
    seed: int | None = None
    dropped: Dropped | None = None


def load_episodes(root: Path, info: DatasetInfo) -> list[EpisodeMeta]:
    """All episodes in order, checked against info.json's counts and against the files there are.

    Raises:
        DatasetError: a table is missing, damaged or inconsistent; a file that it names is missing.
    """
    load = _episodes_v21 if info.version == V21 else _episodes_v30
    episodes = sorted(load(root, info), key=lambda meta: meta.index)
    _check_totals(root, info, episodes)
    return episodes


def load_tasks(root: Path, info: DatasetInfo) -> dict[int, str]:
    """task_index → task.

    Raises:
        DatasetError: the table is missing or damaged.
    """
    path = root / "meta" / ("tasks.jsonl" if info.version == V21 else "tasks.parquet")
    if info.version == V21:
        rows = [entry for _, entry in _json_lines(path)]
    else:
        rows = read_parquet(path).to_pylist()
        for row in rows:  # pandas writes its index as a column, under its own name or this one
            row.setdefault("task", row.get("__index_level_0__"))
    try:
        return {int(row["task_index"]): str(row["task"]) for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(path, f"is no table of tasks ({error!r}).", DOWNLOAD_AGAIN) from error


def _episodes_v21(root: Path, info: DatasetInfo) -> Iterator[EpisodeMeta]:
    """meta/episodes.jsonl: one line per episode; one parquet and one mp4 per camera and episode."""
    path = root / "meta" / "episodes.jsonl"
    for number, entry in _json_lines(path):
        try:
            index, length = int(entry["episode_index"]), int(entry["length"])
            tasks = tuple(map(str, entry.get("tasks", ())))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DatasetError(
                f"{path}:{number}", f"not an episode entry ({error!r}).", DOWNLOAD_AGAIN
            ) from error
        place: dict[str, Any] = {"episode_index": index, "episode_chunk": index // info.chunks_size}
        videos = {
            camera: VideoSlice(
                info.place(info.video_path, root, video_key=f.source, **place), 0.0, whole_file=True
            )
            for camera, f in info.images.items()
            if f.dtype == "video"
        }
        yield EpisodeMeta(index, length, info.place(info.data_path, root, **place), videos, tasks)


def _episodes_v30(root: Path, info: DatasetInfo) -> Iterator[EpisodeMeta]:
    """meta/episodes/**.parquet: per episode its length, file numbers and, per video, its first timestamp."""
    folder = root / "meta" / "episodes"
    paths = sorted(folder.glob("chunk-*/file-*.parquet"))
    if not paths:
        raise DatasetError(
            folder,
            "holds no episode table (chunk-000/file-000.parquet …).",
            "The recording finished no episode, or the download is incomplete: make it again.",
        )
    for path in paths:
        for row in read_parquet(path, skip_prefix="stats/").to_pylist():
            try:
                yield _episode_v30(row, root, info)
            except (KeyError, TypeError, ValueError) as error:
                if isinstance(error, DatasetError):
                    raise
                raise DatasetError(
                    path, f"an episode's entry is incomplete ({error!r}).", DOWNLOAD_AGAIN
                ) from error


def _episode_v30(row: dict[str, Any], root: Path, info: DatasetInfo) -> EpisodeMeta:
    index, length = int(row["episode_index"]), int(row["length"])
    first, end = row.get("dataset_from_index"), row.get("dataset_to_index")
    if first is not None and end is not None and end - first != length:
        raise ValueError(f"episode {index} has length {length} and rows {first} to {end}")
    place = {name: int(row[f"data/{name}"]) for name in ("chunk_index", "file_index")}
    videos = {}
    for camera, f in info.images.items():
        if f.dtype == "video":
            of = f"videos/{f.source}"
            at = {name: int(row[f"{of}/{name}"]) for name in ("chunk_index", "file_index")}
            path = info.place(info.video_path, root, video_key=f.source, **at)
            videos[camera] = VideoSlice(path, float(row[f"{of}/from_timestamp"]), whole_file=False)
    data = info.place(info.data_path, root, **place)
    seed, action = row.get("seed"), row.get("dropped_action")
    dropped = None if action is None else Dropped(tuple(map(float, action)), float(row["reset_gripper"]))
    tasks = tuple(map(str, row.get("tasks") or ()))
    return EpisodeMeta(index, length, data, videos, tasks, None if seed is None else int(seed), dropped)


def _check_totals(root: Path, info: DatasetInfo, episodes: list[EpisodeMeta]) -> None:
    """Counts in info.json against the episodes, and that every file exists (so nothing fails later)."""
    path = root / "meta" / "info.json"
    if not episodes:
        raise DatasetError(path, "the dataset has no finished episode.", "Record at least one.")
    table = root / "meta" / ("episodes.jsonl" if info.version == V21 else "episodes")
    for before, meta in zip([None, *episodes], episodes, strict=False):
        if meta.length < 1:
            problem = f"episode {meta.index} has length {meta.length}."
            raise DatasetError(table, problem, DOWNLOAD_AGAIN)
        if before is not None and before.index == meta.index:
            raise DatasetError(table, f"episode {meta.index} is listed twice.", DOWNLOAD_AGAIN)
    frames = sum(meta.length for meta in episodes)
    if (info.total_episodes, info.total_frames) != (len(episodes), frames):
        said = (
            f"says {info.total_episodes} episodes and {info.total_frames} frames where the episode table has "
        )
        if info.version == V30 and info.total_episodes < len(episodes) and info.total_frames < frames:
            # A recorder that is killed after an episode's table and before info.json leaves exactly this.
            logger.warning("%s %s%d and %d; reading those.", path, said, len(episodes), frames)
        else:
            raise DatasetError(path, f"{said}{len(episodes)} and {frames}.", DOWNLOAD_AGAIN)
    files = {
        file: meta.index
        for meta in episodes
        for file in (meta.data_path, *(v.path for v in meta.videos.values()))
    }
    for file, index in files.items():
        if not file.is_file():
            raise DatasetError(file, f"this file of episode {index} is missing.", DOWNLOAD_AGAIN)


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number from 1, entry) of a .jsonl file."""
    if not path.is_file():
        raise DatasetError(path, "not found.", DOWNLOAD_AGAIN)
    check_not_lfs_pointer(path)
    try:
        lines = path.read_text().splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError(path, f"is no text ({error}).", DOWNLOAD_AGAIN) from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise DatasetError(f"{path}:{number}", f"not JSON ({error!r}).", DOWNLOAD_AGAIN) from error
