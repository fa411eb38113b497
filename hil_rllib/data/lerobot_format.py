"""What LeRobot v2.1 and v3.0 folders have in common: names, `info.json`, and the error for bad input.

Sources: LeRobot's `lerobot.datasets` (v2.1 and v3.0 layouts), as summarised in each docstring below.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
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
LABEL = "complementary_info.success_label"  # ours, optional: whether the row's own images show success

STATEMENT = "hil_rllib"  # entry of info.json, ours: what the rows mean, see `statement`

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
DATA_FILE_MB, VIDEO_FILE_MB = 100, 200
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

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.where, self.problem, self.remedy)  # as it was made: it crosses processes


@dataclass(frozen=True)
class Feature:
    """One column of a dataset. shape is as written in info.json: (3, H, W) or (H, W, 3) for images.

    key: what we call it; source: what the dataset's files call it.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    names: Any
    source: str = ""

    def __post_init__(self) -> None:
        if not self.source:
            object.__setattr__(self, "source", self.key)
        if self.is_image and (len(self.shape) != 3 or min(self.image_size()) < 1):
            raise ValueError(f"image feature {self.key!r} has shape {self.shape}")

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

    @property
    def in_our_terms(self) -> bool:
        """Whether the dataset states so of all its rows."""
        return states_our_terms(self.raw)

    @classmethod
    def load(cls, root: Path, names: Mapping[str, str] | None = None) -> DatasetInfo:
        """Reads and checks `meta/info.json`. names: the dataset's name of a feature → ours, see `renamed`.

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
            info = cls(
                version=version,
                fps=float(raw["fps"]),
                total_episodes=int(raw["total_episodes"]),
                total_frames=int(raw["total_frames"]),
                chunks_size=int(raw.get("chunks_size", CHUNKS_SIZE)),
                data_path=str(raw["data_path"]),
                video_path=str(raw.get("video_path") or ""),
                features=features if names is None else renamed(features, names, path),
                raw=raw,
            )
            if not (info.fps > 0 and math.isfinite(info.fps) and info.chunks_size > 0):
                raise ValueError(f"fps {info.fps:g} and chunks_size {info.chunks_size} must be above 0")
            if not info.video_path and any(f.dtype == "video" for f in features.values()):
                raise ValueError("video features, but no video_path")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, DatasetError):
                raise
            raise DatasetError(
                path, f"an entry is missing or has the wrong type ({error!r}).", "Download the dataset again."
            ) from error
        return info

    def place(self, template: str, root: Path, **numbers: Any) -> Path:
        """A file's path from `data_path` or `video_path`.

        Raises:
            DatasetError: the template does not fit the dataset's version.
        """
        try:
            return root / template.format(**numbers)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise DatasetError(
                root / "meta" / "info.json",
                f"{template!r} is no path pattern of {self.version} ({error!r}).",
                DOWNLOAD_AGAIN,
            ) from error


def statement(episodes: int) -> dict[str, Any]:
    """What info.json says of so many episodes in this project's terms.

    LeRobot keeps it when it adds episodes of its own; the count then tells that it does not hold for those.
    """
    return {
        "rows": "(o[t], a[t])",
        "motion": "[-1, 1]",
        "gripper": "0/1/2 = open/hold/close",
        "episodes": episodes,
    }


def states_our_terms(info: Mapping[str, Any]) -> bool:
    """Whether this info.json states that all its rows are in this project's terms."""
    return bool(info.get(STATEMENT) == statement(info["total_episodes"]))


def renamed(features: Mapping[str, Feature], names: Mapping[str, str], where: object) -> dict[str, Feature]:
    """The features under our names. names: theirs → ours; for an image ours may be just the camera's name.

        {"observation.images.top": "front", "observation.qpos": "observation.state"}

    Raises:
        DatasetError: a name that the dataset lacks, or two features under one name.
    """
    unknown = [name for name in names if name not in features]
    if unknown:
        raise DatasetError(
            where,
            f"has no feature {unknown[0]!r} to rename; it has {', '.join(features)}.",
            "Correct the mapping of feature names.",
        )
    result: dict[str, Feature] = {}
    for key, feature in features.items():
        ours = names.get(key, key)
        if feature.is_image and not ours.startswith(IMAGE_PREFIX) and key in names:
            ours = IMAGE_PREFIX + ours
        if ours in result:
            problem = f"features {result[ours].source!r} and {key!r} would both be {ours!r}."
            raise DatasetError(where, problem, "Map the unwanted one to another name.")
        result[ours] = replace(feature, key=ours, source=key)
    return result


def parse_names(pairs: Iterable[str]) -> dict[str, str]:
    """["observation.images.top=front"] → {"observation.images.top": "front"}.

    Raises:
        ValueError: a pair without "=" or with an empty side.
    """
    names = {}
    for pair in pairs:
        theirs, _, ours = pair.partition("=")
        if not theirs or not ours:
            raise ValueError(f"{pair!r} renames no feature; write observation.images.top=front.")
        names[theirs] = ours
    return names


def check_not_lfs_pointer(path: Path) -> None:
    """Raises `DatasetError` where git left a Git LFS pointer in place of the file's contents."""
    with path.open("rb") as file:
        if file.read(len(LFS_MAGIC)) == LFS_MAGIC:
            raise DatasetError(
                path,
                "is a Git LFS pointer, not the file itself.",
                "Run `git lfs pull` in the dataset, or give its hub id instead.",
            )
