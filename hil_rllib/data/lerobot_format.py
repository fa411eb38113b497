"""What LeRobot v2.1 and v3.0 folders have in common: names, `info.json`, and the error for bad input.

Sources: LeRobot's `lerobot.datasets` (v2.1 and v3.0 layouts), as summarised in each docstring below.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

V21, V30 = "v2.1", "v3.0"
READABLE_VERSIONS = (V21, V30)

# Features, as gym-hil's and LeRobot's recorders name them.
STATE = "observation.state"
ENVIRONMENT_STATE = "observation.environment_state"
IMAGE_PREFIX = "observation.images."
ACTION = "action"
REWARD = "next.reward"
DONE = "next.done"
TRUNCATED = "next.truncated"
SUCCESS = "next.success"
PENALTY = "complementary_info.discrete_penalty"
INTERVENTION = "complementary_info.is_intervention"

# Columns every dataset has, each of shape (1,).
INDEX_FEATURES: dict[str, dict[str, Any]] = {
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},  # frame_index / fps [s]
    "frame_index": {"dtype": "int64", "shape": [1], "names": None},  # restarts per episode
    "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    "index": {"dtype": "int64", "shape": [1], "names": None},  # over the whole dataset
    "task_index": {"dtype": "int64", "shape": [1], "names": None},
}
IMAGE_DTYPES = ("video", "image")

# v3.0 defaults; `chunks_size` counts files per folder there, episodes per folder in v2.1.
CHUNKS_SIZE = 1000
V30_DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
V30_VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
V30_EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"

LFS_MAGIC = b"version https://git-lfs"
DOWNLOAD_AGAIN = "Download the dataset again; a local one was damaged where it was made."


class DatasetError(ValueError):
    """A dataset cannot be used. The message names the file (or feature) and the remedy."""

    def __init__(self, where: object, problem: str, remedy: str) -> None:
        super().__init__(f"{where}: {problem} {remedy}")
        self.where, self.problem, self.remedy = str(where), problem, remedy


@dataclass(frozen=True)
class Feature:
    """One column of a dataset. shape is as written in info.json: (3, H, W) or (H, W, 3) for images."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    names: Any

    @property
    def is_image(self) -> bool:
        return self.dtype in IMAGE_DTYPES

    @property
    def camera(self) -> str:
        """'front' for 'observation.images.front'."""
        return self.key.removeprefix(IMAGE_PREFIX)

    @property
    def size(self) -> int:
        """Numbers per row."""
        return math.prod(self.shape)

    def image_size(self) -> tuple[int, int]:
        """(height, width), whichever order info.json uses.

        `names` says which; the usual spellings are 'channel(s)', 'height', 'width'. Without names, the
        axis that holds 1, 3 or 4 is taken for the channels.
        """
        if isinstance(self.names, (list, tuple)) and {"height", "width"} <= set(self.names):
            size = dict(zip(self.names, self.shape, strict=True))
            return size["height"], size["width"]
        channels_first = len(self.shape) == 3 and self.shape[0] in (1, 3, 4)
        return (self.shape[1], self.shape[2]) if channels_first else (self.shape[0], self.shape[1])


@dataclass(frozen=True)
class DatasetInfo:
    """`meta/info.json`. Units: fps [1/s]; paths are format strings relative to the dataset's folder."""

    version: str
    fps: float
    total_episodes: int
    total_frames: int
    chunks_size: int
    data_path: str
    video_path: str
    features: dict[str, Feature]
    raw: dict[str, Any]

    @property
    def images(self) -> dict[str, Feature]:
        """Camera name → image feature."""
        return {f.camera: f for f in self.features.values() if f.is_image}

    @classmethod
    def load(cls, root: Path) -> DatasetInfo:
        """Reads and checks `meta/info.json`.

        Raises:
            DatasetError: no such folder or file, broken JSON, a version this reader does not know.
        """
        if not root.is_dir():
            raise DatasetError(
                root, "no such folder.", "Check the path, or name a dataset on the hub as owner/name."
            )
        path = root / "meta" / "info.json"
        if not path.is_file():
            raise DatasetError(
                path,
                "not found, so this folder holds no LeRobot dataset.",
                "Point to the folder that contains meta/, data/ and videos/.",
            )
        check_not_lfs_pointer(path)
        try:
            raw = json.loads(path.read_text())
            version = str(raw["codebase_version"])
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                path, f"not a LeRobot info file ({error!r}).", "Download the dataset again."
            ) from error
        if version not in READABLE_VERSIONS:
            raise DatasetError(
                path,
                f"codebase_version is {version!r}; {' and '.join(READABLE_VERSIONS)} can be read.",
                "Convert it with LeRobot's own converters (lerobot.datasets.v21 and v30).",
            )
        try:
            features = {
                key: Feature(key, str(f["dtype"]), tuple(int(n) for n in f["shape"]), f.get("names"))
                for key, f in raw["features"].items()
            }
            return cls(
                version=version,
                fps=float(raw["fps"]),
                total_episodes=int(raw["total_episodes"]),
                total_frames=int(raw["total_frames"]),
                chunks_size=int(raw.get("chunks_size", CHUNKS_SIZE)),
                data_path=raw["data_path"],
                video_path=raw.get("video_path") or "",
                features=features,
                raw=raw,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                path, f"an entry is missing or has the wrong type ({error!r}).", "Download the dataset again."
            ) from error


def check_not_lfs_pointer(path: Path) -> None:
    """Raises `DatasetError` where git left a Git LFS pointer in place of the file's contents."""
    with path.open("rb") as file:
        if file.read(len(LFS_MAGIC)) == LFS_MAGIC:
            raise DatasetError(
                path,
                "is a Git LFS pointer, not the file itself.",
                "Run `git lfs pull` in the dataset, or give its hub id instead.",
            )
