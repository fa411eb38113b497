"""What a v3.0 dataset holds so far, read when a recording goes on in it: ours, LeRobot's, or a killed one."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from hil_rllib.data import dataset_stats
from hil_rllib.data import lerobot_format as fmt
from hil_rllib.data import lerobot_schema as schema
from hil_rllib.data.dataset_stats import Stats
from hil_rllib.data.lerobot_episodes import load_tasks
from hil_rllib.data.lerobot_format import DatasetError, Feature
from hil_rllib.data.parquet import read_parquet

logger = logging.getLogger(__name__)

Place = dict[str, int]  # chunk_index, file_index


@dataclass
class Contents:
    """How far a dataset got. The episode tables say so; info.json may lag by a killed recording's last one.

    info: info.json as it stands. episode_schema: of the episode tables, which must all agree.
    stats: of all episodes. next_place: of data, meta/episodes and videos/<key>: the first unused file.
    """

    info: dict[str, Any]
    episodes: int = 0
    frames: int = 0
    tasks: dict[int, str] = field(default_factory=dict)
    stats: dict[str, Stats] = field(default_factory=dict)
    episode_schema: pa.Schema | None = None
    next_place: dict[str, Place] = field(default_factory=dict)


def read_contents(root: Path, first: int | None = None) -> Contents:
    """Of an existing dataset. first: how many of its episodes to take, None for all.

    Raises:
        DatasetError: it is not v3.0, or its tables cannot be read.
    """
    info = fmt.DatasetInfo.load(root)
    if info.version != fmt.V30:
        raise DatasetError(
            root / "meta" / "info.json",
            f"is {info.version}; episodes can be added to {fmt.V30} only.",
            f"Convert it first: python -m hil_rllib.dataset convert {root} FOLDER.",
        )
    contents = Contents(info=info.raw, tasks=load_tasks(root, info))
    stats: list[Mapping[str, Stats]] = []
    last: dict[str, tuple[int, int]] = {}
    for path in sorted((root / "meta" / "episodes").glob("chunk-*/file-*.parquet")):
        table = read_parquet(path)
        contents.episode_schema = contents.episode_schema or table.schema.remove_metadata()
        for row in table.to_pylist():
            try:
                if first is not None and row["episode_index"] >= first:
                    continue
                contents.episodes = max(contents.episodes, row["episode_index"] + 1)
                contents.frames = max(contents.frames, row["dataset_to_index"])
                chunk, file = path.parent.name.split("-")[1], path.stem.split("-")[1]
                row |= {"meta/episodes/chunk_index": int(chunk), "meta/episodes/file_index": int(file)}
                for part in parts(info):
                    at = row[f"{part}/chunk_index"], row[f"{part}/file_index"]
                    last[part] = max(last.get(part, at), at)
            except (KeyError, TypeError, ValueError) as error:
                raise DatasetError(
                    path, f"an episode's entry is incomplete ({error!r}).", fmt.DOWNLOAD_AGAIN
                ) from error
            stats.append(_stats(row))
    contents.stats = dataset_stats.merge(stats) if stats else {}
    if stats and not contents.stats and first is None:
        contents.stats = _stats_of_all(root)
    for part, (chunk_index, file_index) in last.items():
        contents.next_place[part] = following(chunk_index, file_index, info.chunks_size)
    return contents


def check_continues(contents: Contents, root: Path, features: Mapping[str, Any], fps: int, task: str) -> None:
    """Raises DatasetError where a recording of these features, rate and task does not fit its episodes."""
    if not contents.episodes:
        return
    path = root / "meta" / "info.json"
    there, remedy = contents.info, "Record into another folder."
    old, new = shapes(there["features"]), shapes(features)
    if differ := {key for key in (*old, *new) if old.get(key) != new.get(key)}:
        was, now = (
            schema.summary({key: f for key, f in of.items() if key in differ})
            for of in (there["features"], features)
        )
        raise DatasetError(path, f"holds other features: {was}; this recording has {now}.", remedy)
    if there["fps"] != fps:
        raise DatasetError(path, f"is at {there['fps']} frames a second; this recording at {fps}.", remedy)
    if task not in contents.tasks.values():
        have = ", ".join(map(repr, contents.tasks.values()))
        remedy = "Call it that, with --task or record.task, or record into another folder."
        raise DatasetError(path, f"holds the task {have}; this recording is of {task!r}.", remedy)


def shapes(features: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What must agree between datasets: per feature its type and shape, images as (height, width)."""
    result = {}
    for key, entry in features.items():
        if key not in fmt.INDEX_FEATURES:
            feature = Feature(key, entry["dtype"], tuple(entry["shape"]), entry.get("names"))
            result[key] = (feature.dtype, feature.image_size() if feature.is_image else feature.shape)
    return result


def following(chunk_index: int, file_index: int, chunks_size: int) -> Place:
    """The place after that one."""
    if file_index + 1 < chunks_size:
        return {"chunk_index": chunk_index, "file_index": file_index + 1}
    return {"chunk_index": chunk_index + 1, "file_index": 0}


def conform(entry: Mapping[str, Any], like: pa.Schema | None) -> pa.Table:
    """One episode's row of meta/episodes, with the columns that the other tables there have: LeRobot reads
    them as one. What they lack (our seed, in a dataset made elsewhere) is left out, with a warning."""
    table = schema.episode_table(entry)
    if like is None:
        return table
    extra = [name for name in table.column_names if name not in like.names]
    if extra:
        logger.warning("The dataset's episode tables have no column %s: not kept.", ", ".join(extra))
    columns = [pa.array([_as(entry.get(column.name), column.type)], column.type) for column in like]
    return pa.table(columns, schema=like)


def _as(value: Any, kind: pa.DataType) -> Any:
    """The value with leaves of that type: LeRobot keeps the minimum of a bool as bool."""
    if isinstance(value, list):
        return [_as(entry, kind.value_type) for entry in value]
    if value is None or not isinstance(value, float):
        return value
    return bool(value) if pa.types.is_boolean(kind) else int(value) if pa.types.is_integer(kind) else value


def parts(info: fmt.DatasetInfo) -> list[str]:
    """What has files of its own, by its name in the episode tables."""
    videos = [f"videos/{f.source}" for f in info.features.values() if f.dtype == "video"]
    return ["data", "meta/episodes", *videos]


def _stats_of_all(root: Path) -> dict[str, Stats]:
    """stats.json, where the episode tables hold no statistics. What has no count cannot be added to."""
    file = root / "meta" / "stats.json"
    if not file.is_file():
        return {}
    try:
        return {key: of for key, of in json.loads(file.read_text()).items() if "count" in of}
    except ValueError as error:
        raise DatasetError(file, f"is not JSON ({error}).", fmt.DOWNLOAD_AGAIN) from error


def _stats(row: Mapping[str, Any]) -> dict[str, Stats]:
    stats: dict[str, Stats] = {}
    for column, value in row.items():
        if column.startswith("stats/") and value is not None:
            key, name = column.removeprefix("stats/").rsplit("/", 1)
            stats.setdefault(key, {})[name] = value
    return stats
