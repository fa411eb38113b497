"""Reads LeRobot datasets, v2.1 and v3.0: metadata at once, rows and frames of an episode when asked for.

    dataset = open_dataset("aractingi/franka_sim_pick_lift_6")
    for episode in dataset.read(frames=True):       # decoded in parallel, in order, bounded memory
        episode.column("action")                    # (N, 4)
        episode.frames["front"]                     # uint8 (N, H, W, 3)

The rows come as they are in the file. What they mean (which observation belongs to which action, in
which units) is decided by `alignment.align`.

LeRobot stores no observation after an episode's last action. `alignment` and `demos` rebuild it.
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hil_rllib.data import hub, video
from hil_rllib.data.lerobot_format import (
    DOWNLOAD_AGAIN,
    V21,
    V30,
    DatasetError,
    DatasetInfo,
    check_not_lfs_pointer,
)
from hil_rllib.data.parquet import read_parquet, to_frames, to_numpy
from hil_rllib.data.video import Frames

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoSlice:
    """Where one camera's frames of one episode lie. start_s: [s] from the file's begin."""

    path: Path
    start_s: float
    whole_file: bool


@dataclass(frozen=True)
class EpisodeMeta:
    """One episode without its data. videos: camera name → slice (none for images kept in parquet)."""

    index: int
    length: int
    data_path: Path
    videos: dict[str, VideoSlice]
    tasks: tuple[str, ...] = ()


@dataclass
class Episode:
    """One episode's rows. columns: feature key → (N,) or (N, d); frames: camera → uint8 (N, H, W, 3)."""

    meta: EpisodeMeta
    columns: dict[str, NDArray[Any]]
    frames: dict[str, Frames] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.meta.length

    def column(self, key: str) -> NDArray[Any]:
        """The column (N, …). Raises DatasetError where the dataset has no such feature."""
        if key not in self.columns:
            have = ", ".join(sorted(self.columns))
            raise DatasetError(
                self.meta.data_path,
                f"has no column {key!r} (it has {have}).",
                "Record the dataset with that feature.",
            )
        return self.columns[key]


class LeRobotDataset:
    """An opened dataset: `info`, `episodes` (metadata), `read` (rows and frames)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.info = DatasetInfo.load(root)
        self.episodes = (
            _episodes_v21(root, self.info) if self.info.version == V21 else _episodes_v30(root, self.info)
        )
        _check_totals(root, self.info, self.episodes)
        self._table: tuple[Path, pa.Table] | None = None  # v3.0 keeps many episodes in a file

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(self.info.images)

    def choose(self, indices: Iterable[int] | None) -> list[EpisodeMeta]:
        """The metadata of those episodes (positions in `episodes`; None: all)."""
        chosen = range(len(self)) if indices is None else list(indices)
        unknown = [i for i in chosen if not 0 <= i < len(self)]
        if unknown:
            have = f"has {len(self)} episodes, 0 to {len(self) - 1}, and no episode {unknown[0]}."
            raise DatasetError(self.root, have, "Choose among those.")
        return [self.episodes[i] for i in chosen]

    def read(
        self, indices: Iterable[int] | None = None, *, frames: bool = False, workers: int | None = None
    ) -> Iterator[Episode]:
        """Yields episodes in the order of `indices` (positions in `episodes`; None: all).

        Decoding runs ahead of the consumer by `workers` episodes (default: one per core), no further,
        so memory stays bounded however long the dataset is.
        """
        wanted = self.choose(indices)
        if not frames:
            for meta in wanted:
                yield self._rows(meta)
            return
        workers = workers or os.cpu_count() or 1
        running: deque[tuple[Episode, dict[str, Future[Frames]]]] = deque()
        with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
            for meta in wanted:
                episode = self._rows(meta)
                jobs = {cam: pool.submit(self._decode, episode, cam) for cam in self.cameras}
                running.append((episode, jobs))
                if len(running) > workers:
                    yield _finish(*running.popleft())
            while running:
                yield _finish(*running.popleft())

    def _rows(self, meta: EpisodeMeta) -> Episode:
        table = self._file(meta.data_path)
        if self.info.version == V30:
            table = table.filter(pc.equal(table["episode_index"], meta.index))
        if table.num_rows != meta.length:
            raise DatasetError(
                meta.data_path,
                f"holds {table.num_rows} rows of episode {meta.index} where meta/ says {meta.length}.",
                DOWNLOAD_AGAIN,
            )
        columns = {}
        for key, feature in self.info.features.items():
            if feature.dtype == "video":
                continue
            if key not in table.column_names:
                raise DatasetError(
                    meta.data_path, f"lacks the column {key!r} that meta/info.json lists.", DOWNLOAD_AGAIN
                )
            columns[key] = table[key] if feature.is_image else to_numpy(table[key], feature, meta.data_path)
        return Episode(meta, columns)

    def _file(self, path: Path) -> pa.Table:
        if self._table is None or self._table[0] != path:
            self._table = (path, read_parquet(path))
        return self._table[1]

    def _decode(self, episode: Episode, camera: str) -> Frames:
        feature = self.info.images[camera]
        if feature.dtype == "video":
            where = episode.meta.videos[camera]
            frames = video.decode(where.path, len(episode), where.start_s, where.whole_file)
        else:
            frames = to_frames(episode.columns[feature.key], feature, episode.meta.data_path)
        if frames.shape[1:3] != feature.image_size():
            raise DatasetError(
                episode.meta.data_path,
                f"{feature.key} has {frames.shape[1:3]} pixels where "
                f"meta/info.json says {feature.image_size()}.",
                DOWNLOAD_AGAIN,
            )
        return frames


def open_dataset(
    source: str, cache_dir: Path | None = None, hub_timeout_s: float = hub.DEFAULT_TIMEOUT_S
) -> LeRobotDataset:
    """Opens a local folder or a hub id (`owner/name`), downloading it into the hub's cache if needed.

    Raises:
        hub.HubUnreachable: within hub_timeout_s, where neither the hub answers nor the cache has it.
        DatasetError: it exists but cannot be used; the message names the file and the remedy.
    """
    return LeRobotDataset(hub.locate(str(source), cache_dir, hub_timeout_s))


def _episodes_v21(root: Path, info: DatasetInfo) -> list[EpisodeMeta]:
    """meta/episodes.jsonl: one line per episode; one parquet and one mp4 per camera and episode."""
    path = root / "meta" / "episodes.jsonl"
    if not path.is_file():
        raise DatasetError(path, "not found.", DOWNLOAD_AGAIN)
    check_not_lfs_pointer(path)
    episodes = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            index, length = int(entry["episode_index"]), int(entry["length"])
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"{path}:{number}", f"not an episode entry ({error!r}).", DOWNLOAD_AGAIN
            ) from error
        place: dict[str, Any] = {"episode_index": index, "episode_chunk": index // info.chunks_size}
        videos = {
            camera: VideoSlice(root / info.video_path.format(video_key=f.key, **place), 0.0, whole_file=True)
            for camera, f in info.images.items()
            if f.dtype == "video"
        }
        tasks = tuple(entry.get("tasks", ()))
        episodes.append(EpisodeMeta(index, length, root / info.data_path.format(**place), videos, tasks))
    return episodes


def _episodes_v30(root: Path, info: DatasetInfo) -> list[EpisodeMeta]:
    """meta/episodes/**.parquet: per episode its length, file numbers and, per video, its first timestamp."""
    folder = root / "meta" / "episodes"
    paths = sorted(folder.glob("chunk-*/file-*.parquet"))
    if not paths:
        raise DatasetError(
            folder,
            "holds no episode table (chunk-000/file-000.parquet …).",
            "The recording finished no episode, or the download is incomplete: make it again.",
        )
    episodes = []
    for path in paths:
        for row in read_parquet(path, skip_prefix="stats/").to_pylist():
            try:
                data = info.data_path.format(
                    chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
                )
                videos = {}
                for camera, f in info.images.items():
                    if f.dtype == "video":
                        chunk, file = (row[f"videos/{f.key}/{name}_index"] for name in ("chunk", "file"))
                        video_path = info.video_path.format(
                            video_key=f.key, chunk_index=chunk, file_index=file
                        )
                        start_s = float(row[f"videos/{f.key}/from_timestamp"])
                        videos[camera] = VideoSlice(root / video_path, start_s, whole_file=False)
                tasks = tuple(row.get("tasks") or ())
                meta = EpisodeMeta(int(row["episode_index"]), int(row["length"]), root / data, videos, tasks)
            except (KeyError, TypeError, ValueError) as error:
                raise DatasetError(
                    path, f"an episode's entry is incomplete ({error!r}).", DOWNLOAD_AGAIN
                ) from error
            episodes.append(meta)
    return sorted(episodes, key=lambda meta: meta.index)


def _check_totals(root: Path, info: DatasetInfo, episodes: list[EpisodeMeta]) -> None:
    """Counts in info.json against the episodes, and that every file exists (so nothing fails later)."""
    path = root / "meta" / "info.json"
    if not episodes:
        raise DatasetError(path, "the dataset has no finished episode.", "Record at least one.")
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
    for meta in episodes:
        for file in (meta.data_path, *(v.path for v in meta.videos.values())):
            if not file.is_file():
                raise DatasetError(file, f"this file of episode {meta.index} is missing.", DOWNLOAD_AGAIN)


def _finish(episode: Episode, jobs: dict[str, Future[Frames]]) -> Episode:
    episode.frames = {camera: job.result() for camera, job in jobs.items()}
    return episode
