"""Takes a dataset back to its first episodes, where a run goes back and will record the others again."""

from __future__ import annotations

import shutil
from pathlib import Path

from hil_rllib.data import lerobot_format as fmt
from hil_rllib.data.dataset_lock import lock_dataset
from hil_rllib.data.lerobot_append import parts, read_contents
from hil_rllib.data.lerobot_format import DatasetError, DatasetInfo
from hil_rllib.data.lerobot_writer import commit_totals
from hil_rllib.data.parquet import read_parquet


def count_episodes(root: Path) -> int:
    """Of a dataset; 0 where there is none yet."""
    return read_contents(root).episodes if _begun(root) else 0


def drop_episodes(root: Path, kept: int, wait_s: float = 0.0) -> int:
    """Remove all episodes but the first `kept`; returns how many went. Without any left, the folder goes.

    They must have files of their own, as `LeRobotWriter`'s have. A kill amid it leaves a whole dataset with
    some of them. wait_s: for another's writer to end.

    Raises:
        DatasetError: another writes there, or an episode to go shares a file with others.
    """
    if not _begun(root):
        return 0
    with lock_dataset(root, wait_s):
        return _drop(root, kept)


def _drop(root: Path, kept: int) -> int:
    info = DatasetInfo.load(root)
    going = []
    for table in sorted((root / "meta" / "episodes").glob("chunk-*/file-*.parquet")):
        rows = read_parquet(table).to_pylist()
        if all(row["episode_index"] < kept for row in rows):
            continue
        if len(rows) > 1:
            raise DatasetError(table, "holds several episodes.", "Record into a folder of the run's own.")
        going.append((rows[0]["episode_index"], table, rows[0]))
    if going and kept:
        commit_totals(root, read_contents(root, kept))  # first: more episodes than it says are no damage
    for _, table, row in sorted(going, key=lambda entry: -entry[0]):
        table.unlink()  # before its other files: it is what makes the episode exist
        for part in parts(info):
            if part != "meta/episodes":
                place = {name: row[f"{part}/{name}"] for name in ("chunk_index", "file_index")}
                _file(root, part, place).unlink(missing_ok=True)
    if going and kept == 0:
        shutil.rmtree(root)
    return len(going)


def _begun(root: Path) -> bool:
    return (root / "meta" / "info.json").exists()


def _file(root: Path, part: str, place: dict[str, int]) -> Path:
    if part == "data":
        return root / fmt.V30_DATA_PATH.format(**place)
    return root / fmt.V30_VIDEO_PATH.format(video_key=part.removeprefix("videos/"), **place)
