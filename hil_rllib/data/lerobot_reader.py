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

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hil_rllib.data import hub, video
from hil_rllib.data.lerobot_episodes import EpisodeMeta, load_episodes, load_tasks
from hil_rllib.data.lerobot_format import DOWNLOAD_AGAIN, V30, DatasetError, DatasetInfo
from hil_rllib.data.parquet import read_parquet, read_rows, to_frames, to_numpy
from hil_rllib.data.video import Frames, Size

logger = logging.getLogger(__name__)

MAX_AHEAD = 8  # episodes decoded before they are asked for; bounds memory where there are many cores


@dataclass
class Episode:
    """One episode's rows. columns: feature key → (N,) or (N, d); frames: camera → uint8 (N, H, W, 3).

    first_row: in its data file.
    """

    meta: EpisodeMeta
    columns: dict[str, NDArray[Any]]
    frames: dict[str, Frames] = field(default_factory=dict)
    first_row: int = 0

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
    """An opened dataset: `info`, `episodes` (metadata), `tasks`, `read` (rows and frames).

    names: the dataset's names of features → ours, see `lerobot_format.renamed`.
    """

    def __init__(self, root: Path, names: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.info = DatasetInfo.load(root, names)
        self.episodes = load_episodes(root, self.info)
        self.tasks = load_tasks(root, self.info)
        self._table: tuple[Path, pa.Table, dict[int, NDArray[np.int64]]] | None = None  # the file last read
        self._resizing_said = False

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
        self,
        indices: Iterable[int] | None = None,
        *,
        frames: bool = False,
        cameras: Sequence[str] | None = None,
        size: Size | None = None,
        workers: int | None = None,
    ) -> Iterator[Episode]:
        """Yields episodes in the order of `indices` (positions in `episodes`; None: all).

        frames: decode, all cameras or `cameras`, at their own size or resized to `size` (height, width).
        Decoding runs ahead of the consumer by `workers` episodes (default: one per core, 8 at most), no
        further, so memory stays bounded however long the dataset is.
        """
        wanted = self.choose(indices)
        if not frames:
            for meta in wanted:
                yield self._rows(meta)
            return
        chosen = self.cameras if cameras is None else tuple(cameras)
        self._check_cameras(chosen, size)
        workers = workers or min(os.cpu_count() or 1, MAX_AHEAD)
        running: deque[tuple[Episode, dict[str, Future[Frames]]]] = deque()
        with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
            try:
                for meta in wanted:
                    episode = self._rows(meta)
                    jobs = {camera: pool.submit(self._decode, episode, camera, size) for camera in chosen}
                    running.append((episode, jobs))
                    if len(running) > workers:
                        yield _finish(*running.popleft())
                while running:
                    yield _finish(*running.popleft())
            finally:  # an error, or a consumer that stops early: what is queued need not be decoded
                pool.shutdown(wait=False, cancel_futures=True)

    def table(self, meta: EpisodeMeta, images: bool = False) -> pa.Table:
        """The episode's rows as stored, columns under our names. images: with those kept in parquet."""
        table, first = self._slice(meta)
        if images:
            stored = [f for f in self.info.features.values() if f.dtype == "image"]
            for feature in stored:
                rows = read_rows(meta.data_path, [feature.source], first, meta.length)
                table = table.append_column(feature.source, rows[feature.source])
        ours = {f.source: f.key for f in self.info.features.values()}
        table = table.select([name for name in table.column_names if name in ours])
        return table.rename_columns([ours[name] for name in table.column_names])

    def _rows(self, meta: EpisodeMeta) -> Episode:
        table, first = self._slice(meta)
        columns = {
            key: to_numpy(table[feature.source], feature, meta.data_path)
            for key, feature in self.info.features.items()
            if not feature.is_image
        }
        episode = Episode(meta, columns, first_row=first)
        self._check_times(episode)
        self._check_tasks(episode)
        return episode

    def _slice(self, meta: EpisodeMeta) -> tuple[pa.Table, int]:
        """The episode's rows without images, and the first one's number in the file."""
        table, rows = self._file(meta.data_path)
        first = 0
        if self.info.version == V30:
            where = rows.get(meta.index, np.empty(0, np.int64))
            first = int(where[0]) if where.size else 0
            together = where.size and int(where[-1]) - first == where.size - 1
            table = table.slice(first, where.size) if together else table.take(where)
        if table.num_rows != meta.length:
            raise DatasetError(
                meta.data_path,
                f"holds {table.num_rows} rows of episode {meta.index} where meta/ says {meta.length}.",
                DOWNLOAD_AGAIN,
            )
        return table, first

    def _file(self, path: Path) -> tuple[pa.Table, dict[int, NDArray[np.int64]]]:
        """The file's table without images, and of v3.0 the rows of each episode in it."""
        if self._table is None or self._table[0] != path:
            images = {f.source for f in self.info.features.values() if f.dtype == "image"}
            table = read_parquet(path, skip=images)
            for feature in self.info.features.values():
                if not feature.is_image and feature.source not in table.column_names:
                    problem = f"lacks the column {feature.source!r} that meta/info.json lists."
                    raise DatasetError(path, problem, DOWNLOAD_AGAIN)
            rows = _rows_of_episodes(table, path) if self.info.version == V30 else {}
            self._table = (path, table, rows)
        return self._table[1:]

    def _check_times(self, episode: Episode) -> None:
        """Timestamps are frame_index / fps; anything else is another rate, or missing rows."""
        times = episode.columns.get("timestamp")
        if times is None:
            return
        due = np.arange(len(episode)) / self.info.fps
        off = np.flatnonzero(~(np.abs(times - due) <= video.TIME_TOLERANCE / self.info.fps))
        if off.size:
            row = int(off[0])
            raise DatasetError(
                episode.meta.data_path,
                f"row {row} of episode {episode.meta.index} has timestamp {times[row]:.4f} s where "
                f"{self.info.fps:g} frames a second, as in meta/info.json, put it at {due[row]:.4f} s.",
                "Record all episodes at one rate without gaps, or correct fps in meta/info.json.",
            )

    def _check_tasks(self, episode: Episode) -> None:
        unknown = sorted(set(episode.columns.get("task_index", np.empty(0)).tolist()) - self.tasks.keys())
        if unknown:
            raise DatasetError(
                episode.meta.data_path,
                f"episode {episode.meta.index} has task_index {unknown[0]}; meta/tasks lists "
                f"{sorted(self.tasks)}.",
                DOWNLOAD_AGAIN,
            )

    def _check_cameras(self, cameras: Sequence[str], size: Size | None) -> None:
        where = self.root / "meta" / "info.json"
        for camera in cameras:
            if camera not in self.info.images:
                raise DatasetError(
                    where,
                    f"no camera {camera!r}; it has {list(self.cameras)}.",
                    "Map the name of one of those to it (demos.features).",
                )
        others = {cam: s for cam in cameras if (s := self.info.images[cam].image_size()) != size}
        if size is not None and others and not self._resizing_said:
            self._resizing_said = True
            sizes = ", ".join(f"{camera} {w}x{h}" for camera, (h, w) in others.items())
            logger.info(
                "Frames of %s are resized to %dx%d, stretched where the sides' ratio differs: %s.",
                self.root,
                size[1],
                size[0],
                sizes,
            )

    def _decode(self, episode: Episode, camera: str, size: Size | None) -> Frames:
        feature, meta = self.info.images[camera], episode.meta
        if feature.dtype == "video":
            where = meta.videos[camera]
            return video.decode(
                where.path,
                len(episode),
                self.info.fps,
                start_s=where.start_s,
                whole_file=where.whole_file,
                native=feature.image_size(),
                size=size,
            )
        rows = read_rows(meta.data_path, [feature.source], episode.first_row, len(episode))
        if rows.num_columns == 0:
            problem = f"lacks the column {feature.source!r} that meta/info.json lists."
            raise DatasetError(meta.data_path, problem, DOWNLOAD_AGAIN)
        return to_frames(rows[feature.source], feature, meta.data_path, size)


def open_dataset(
    source: str,
    cache_dir: Path | None = None,
    hub_timeout_s: float = hub.DEFAULT_TIMEOUT_S,
    *,
    revision: str | None = None,
    features: Mapping[str, str] | None = None,
) -> LeRobotDataset:
    """Opens a local folder or a hub id (`owner/name`), downloading it into the hub's cache if needed.

    revision: branch, tag or commit on the hub. features: the dataset's names → ours, such as
    {"observation.images.top": "front"}; see `lerobot_format.renamed`.

    Raises:
        hub.HubUnreachable: within hub_timeout_s, where neither the hub answers nor the cache has it.
        DatasetError: it exists but cannot be used; the message names the file and the remedy.
    """
    return LeRobotDataset(hub.locate(str(source), cache_dir, hub_timeout_s, revision), features)


def _rows_of_episodes(table: pa.Table, path: Path) -> dict[int, NDArray[np.int64]]:
    """Episode index → its rows (N,) in a file of v3.0, which keeps many."""
    if "episode_index" not in table.column_names or not pa.types.is_integer(table["episode_index"].type):
        raise DatasetError(path, "has no column of episode_index.", DOWNLOAD_AGAIN)
    of_row = table["episode_index"].to_numpy()
    order = np.argsort(of_row, kind="stable")
    episodes, firsts = np.unique(of_row[order], return_index=True)
    return dict(zip(episodes.tolist(), np.split(order, firsts[1:]), strict=False))


def _finish(episode: Episode, jobs: dict[str, Future[Frames]]) -> Episode:
    episode.frames = {camera: job.result() for camera, job in jobs.items()}
    return episode
