"""Writes datasets anew as one v3.0 dataset: conversion from v2.1, repair of the alignment, merging.

Rows are copied as they are, or with `Repair` put into this project's terms: rows (o_t, a_t), unit motion,
gripper 0/1/2 = open/hold/close. Video files are copied bit by bit, never coded again; an episode that loses
its last row to the repair leaves its last frame unused, which the format allows. Every video is decoded once
on the way, for the statistics, so that no damaged one is passed on.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hil_rllib.data import lerobot_format as fmt
from hil_rllib.data import lerobot_schema as schema
from hil_rllib.data.alignment import AlignmentReport
from hil_rllib.data.dataset_stats import Stats, column_stats, image_stats, merge
from hil_rllib.data.lerobot_append import Place, following, shapes
from hil_rllib.data.lerobot_episodes import Dropped
from hil_rllib.data.lerobot_format import DatasetError, Feature
from hil_rllib.data.lerobot_reader import Episode, LeRobotDataset
from hil_rllib.data.parquet import to_numpy
from hil_rllib.data.repaired_rows import Repair

logger = logging.getLogger(__name__)


@dataclass
class Source:
    """A dataset to copy from.

    episodes: positions, None for all. repair: how, None for rows as they are. terms: what those mean, where
    it is known.
    """

    dataset: LeRobotDataset
    episodes: Sequence[int] | None = None
    repair: Repair | None = None
    terms: AlignmentReport | None = None

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """As info.json of the copy lists them."""
        raw = self.dataset.info.raw["features"]
        own = {key: dict(raw[f.source]) for key, f in self.dataset.info.features.items()}
        return self.repair.features(own) if self.repair else own

    @property
    def in_our_terms(self) -> bool:
        """Whether the rows are known to be so once copied."""
        return self.repair is not None or self.dataset.info.in_our_terms


def copy_datasets(sources: Sequence[Source], to: Path, *, common: bool = False) -> tuple[int, int]:
    """Writes all episodes of the sources, in order, into a new v3.0 dataset. Returns (episodes, rows).

    common: keep the features that all have and drop the rest; otherwise they must agree. `to` appears when
    it is complete.

    Raises:
        DatasetError: `to` exists; features, rates or what rows mean differ; a source is damaged.
    """
    if to.exists():
        raise DatasetError(to, "exists already.", "Choose another folder; nothing is overwritten.")
    features = _agreed(sources, common)
    unfinished = to.with_name(f".{to.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        copy = _Copy(unfinished, features, sources[0].dataset.info.raw)
        for source in sources:
            copy.add(source)
        copy.finish(all(source.in_our_terms for source in sources))
        unfinished.rename(to)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return copy.episodes, copy.rows


def _agreed(sources: Sequence[Source], common: bool) -> dict[str, dict[str, Any]]:
    first, *others = sources
    features = first.features
    for other in others:
        info, where = other.dataset.info, other.dataset.root / "meta" / "info.json"
        if info.fps != first.dataset.info.fps:
            raise DatasetError(
                where,
                f"is at {info.fps:g} frames a second; {first.dataset.root} at {first.dataset.info.fps:g}.",
                "Merge datasets of one rate.",
            )
        ours, theirs = shapes(features), shapes(other.features)
        if common:
            features = {
                key: value
                for key, value in features.items()
                if key in fmt.INDEX_FEATURES or (key in theirs and ours[key] == theirs[key])
            }
        elif ours != theirs:
            raise DatasetError(
                where,
                f"holds the features {schema.summary(other.features)}; {first.dataset.root} holds "
                f"{schema.summary(features)}.",
                "Use --common to keep those that agree, and --repair to bring all to the same terms.",
            )
    _check_terms([source.terms for source in sources if source.terms is not None])
    return features | fmt.INDEX_FEATURES


def _check_terms(known: Sequence[AlignmentReport]) -> None:
    """Rows that mean different things could not be told apart afterwards."""
    for report in known[1:]:
        if not report.agrees(known[0]):
            raise DatasetError(
                report.dataset,
                f"holds {report.terms}; {known[0].dataset} holds {known[0].terms}.",
                "Use --repair to bring all to the same terms.",
            )


@dataclass
class _Copy:
    """A v3.0 dataset while it is written."""

    root: Path
    features: Mapping[str, dict[str, Any]]
    like: Mapping[str, Any]  # info.json whose robot_type and further entries are kept
    episodes: int = 0
    rows: int = 0
    tasks: list[str] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)
    stats: dict[str, Stats] = field(default_factory=dict)
    pending: list[pa.Table] = field(default_factory=list)
    data_place: Place = field(default_factory=lambda: {"chunk_index": 0, "file_index": 0})
    videos: dict[tuple[str, Path], Place] = field(default_factory=dict)

    def add(self, source: Source) -> None:
        dataset = source.dataset
        cameras = [f.camera for f in dataset.info.images.values() if f.key in self.features]
        for episode in dataset.read(source.episodes, frames=True, cameras=cameras):
            table = dataset.table(episode.meta, images=True)
            if source.repair is None:
                rows, dropped = np.arange(len(episode)), episode.meta.dropped
            else:
                repaired = source.repair.table(table, episode)
                if repaired is None:
                    logger.warning("Episode %d has one row and is left out.", episode.meta.index)
                    continue
                table, rows, dropped = repaired
            self._add_episode(dataset, episode, table, rows, dropped)

    def _add_episode(
        self, dataset: LeRobotDataset, episode: Episode, table: pa.Table, kept: Any, dropped: Dropped | None
    ) -> None:
        """kept: the rows whose frames the copy shows; they begin with 0 and are contiguous."""
        n, fps = table.num_rows, dataset.info.fps
        if self.pending and sum(t.nbytes for t in self.pending) + table.nbytes > fmt.DATA_FILE_MB << 20:
            self._write_data()
        named = [dataset.tasks[i] for i in np.atleast_1d(episode.columns["task_index"])[:n].tolist()]
        self.tasks += [task for task in dict.fromkeys(named) if task not in self.tasks]
        index = {
            "timestamp": (np.arange(n) / fps).astype(np.float32),
            "frame_index": np.arange(n),
            "episode_index": np.full(n, self.episodes),
            "index": self.rows + np.arange(n),
            "task_index": np.array([self.tasks.index(task) for task in named]),
        }
        for key, values in index.items():
            table = table.drop_columns([key]) if key in table.column_names else table
            table = table.append_column(key, pa.array(values))
        stored = {key: f for key, f in self.features.items() if f["dtype"] != "video"}
        columns = {key: _cast(table[key], f) for key, f in stored.items()}
        stats: dict[str, Stats] = {}
        entry: dict[str, Any] = {
            "episode_index": self.episodes,
            "tasks": list(dict.fromkeys(named)),
            "length": n,
            "seed": episode.meta.seed,
            "dropped_action": None if dropped is None else list(dropped.action),
            "reset_gripper": None if dropped is None else dropped.gripper,
            "dataset_from_index": self.rows,
            "dataset_to_index": self.rows + n,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
            **{f"data/{name}": at for name, at in self.data_place.items()},
        }
        for key, raw in self.features.items():
            feature = Feature(key, raw["dtype"], tuple(raw["shape"]), raw.get("names"))
            if feature.is_image:
                stats[key] = image_stats(episode.frames[feature.camera][kept])
            elif feature.dtype != "string":
                stats[key] = column_stats(to_numpy(columns[key], feature, episode.meta.data_path))
            if feature.dtype == "video":
                where = episode.meta.videos[feature.camera]
                entry |= {f"videos/{key}/{name}": at for name, at in self._video(key, where.path).items()}
                entry |= {
                    f"videos/{key}/from_timestamp": where.start_s,
                    f"videos/{key}/to_timestamp": where.start_s + n / fps,
                }
        entry |= {f"stats/{key}/{name}": value for key, of in stats.items() for name, value in of.items()}
        self.pending.append(pa.table(columns))
        self.entries.append(entry)
        self.stats = merge([self.stats, stats]) if self.stats else stats
        self.episodes, self.rows = self.episodes + 1, self.rows + n

    def _video(self, key: str, file: Path) -> Place:
        """Where the copy keeps that file; several episodes may share it."""
        if (key, file) not in self.videos:
            number = sum(of == key for of, _ in self.videos)
            place = {"chunk_index": number // fmt.CHUNKS_SIZE, "file_index": number % fmt.CHUNKS_SIZE}
            target = self.root / fmt.V30_VIDEO_PATH.format(video_key=key, **place)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            self.videos[key, file] = place
        return self.videos[key, file]

    def _write_data(self) -> None:
        path = self.root / fmt.V30_DATA_PATH.format(**self.data_place)
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(path, self.pending[0].schema) as writer:
            for table in self.pending:  # a row group each, so that images of one can be read alone
                writer.write_table(table)
        self.data_place = following(**self.data_place, chunks_size=fmt.CHUNKS_SIZE)
        self.pending = []

    def finish(self, in_our_terms: bool) -> None:
        if not self.episodes:
            raise DatasetError(self.root, "no episode is left to write.", "Choose others.")
        self._write_data()
        meta = self.root / "meta"
        episodes = self.root / fmt.V30_EPISODES_PATH.format(chunk_index=0, file_index=0)
        episodes.parent.mkdir(parents=True)
        pq.write_table(schema.episode_table(*self.entries), episodes)
        pq.write_table(schema.task_table(self.tasks), meta / "tasks.parquet")
        info = schema.info(dict(self.features), self.like["fps"], self.like.get("robot_type"))
        info |= {
            "total_episodes": self.episodes,
            "total_frames": self.rows,
            "total_tasks": len(self.tasks),
            "splits": {"train": f"0:{self.episodes}"},
        }
        if in_our_terms:
            info[fmt.STATEMENT] = fmt.statement(self.episodes)
        (meta / "stats.json").write_text(json.dumps(self.stats, indent=2))
        (meta / "info.json").write_text(json.dumps(info, indent=2))


def _cast(column: pa.ChunkedArray, feature: Mapping[str, Any]) -> pa.ChunkedArray:
    """As v3.0 stores it: scalars, fixed-size lists; images and arrays of more dimensions stay as they are."""
    if feature["dtype"] == "image" or len(feature["shape"]) != 1:
        return column
    kind = schema.column_type(feature)
    if feature["shape"] == [1] and hasattr(column.type, "value_type"):  # vectors of length one
        column = pa.chunked_array([pc.list_flatten(column)])
    return column.cast(kind)
