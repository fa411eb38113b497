"""The columns of the datasets we write, as LeRobot v3.0 describes and stores them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from hil_rllib.data import lerobot_format as fmt
from hil_rllib.data import video

STATE_NAMES = (
    *(f"joint_{i}.pos" for i in range(1, 8)),
    *(f"joint_{i}.vel" for i in range(1, 8)),
    "gripper.ctrl",
    *(f"tcp.{axis}" for axis in "xyz"),
)
ACTION_NAMES = ("delta_x_ee", "delta_y_ee", "delta_z_ee", "gripper_delta")  # LeRobot's names for this arm
BLOCK_NAMES = ("cube.x", "cube.y", "cube.z")

# What our tables of episodes have beside LeRobot's columns, see `lerobot_episodes.EpisodeMeta`.
_OF_EPISODES = {
    "seed": pa.int64(),
    "dropped_action": pa.list_(pa.float32()),
    "reset_gripper": pa.float32(),
}


def features(
    cameras: Sequence[str],
    environment_state: bool | Sequence[str],
    fps: int,
    image_size: tuple[int, int],
    state: Sequence[str] = STATE_NAMES,
    action: Sequence[str] = ACTION_NAMES,
    labels: bool = False,
) -> dict[str, dict[str, Any]]:
    """As info.json lists them. environment_state, state, action: the names of those vectors' entries.

    labels: with a person's word on every row's images.
    """
    block = (
        () if environment_state is False else BLOCK_NAMES if environment_state is True else environment_state
    )

    def vector(names: Sequence[str]) -> dict[str, Any]:
        return {"dtype": "float32", "shape": [len(names)], "names": list(names)}

    def scalar(dtype: str) -> dict[str, Any]:
        return {"dtype": dtype, "shape": [1], "names": None}

    height, width = image_size
    image = {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": height,
            "video.width": width,
            "video.channels": 3,
            "video.codec": video.write_codec(),
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": fps,
            "has_audio": False,
        },
    }
    return {
        fmt.STATE: vector(state),
        **({fmt.ENVIRONMENT_STATE: vector(block)} if block else {}),
        **{fmt.IMAGE_PREFIX + camera: image for camera in cameras},
        fmt.ACTION: vector(action),
        fmt.REWARD: scalar("float32"),
        fmt.DONE: scalar("bool"),
        fmt.TRUNCATED: scalar("bool"),
        fmt.SUCCESS: scalar("bool"),
        fmt.PENALTY: scalar("float32"),
        fmt.INTERVENTION: scalar("float32"),
        **({fmt.LABEL: scalar("bool")} if labels else {}),
        **fmt.INDEX_FEATURES,
    }


def info(features: Mapping[str, dict[str, Any]], fps: int, robot_type: str | None) -> dict[str, Any]:
    """info.json of a dataset without episodes."""
    videos = any(feature["dtype"] == "video" for feature in features.values())
    return {
        "codebase_version": fmt.V30,
        "robot_type": robot_type,
        "total_episodes": 0,
        "total_frames": 0,
        "total_tasks": 1,
        "chunks_size": fmt.CHUNKS_SIZE,
        "data_files_size_in_mb": fmt.DATA_FILE_MB,
        "video_files_size_in_mb": fmt.VIDEO_FILE_MB,
        "fps": fps,
        "splits": {"train": "0:0"},
        "data_path": fmt.V30_DATA_PATH,
        "video_path": fmt.V30_VIDEO_PATH if videos else None,
        "features": dict(features),
    }


def is_of_our_arm(features: Mapping[str, dict[str, Any]]) -> bool:
    """Whether states and actions are named as this project's are."""
    named = {key: tuple(features[key]["names"] or ()) for key in (fmt.STATE, fmt.ACTION)}
    return named == {fmt.STATE: STATE_NAMES, fmt.ACTION: ACTION_NAMES}


def to_table(columns: Mapping[str, NDArray[Any]], features: Mapping[str, dict[str, Any]]) -> pa.Table:
    """Vectors as fixed-size lists, shape (1,) as scalars, no videos: LeRobot can cast it to `features`."""
    arrays = {}
    for key, feature in features.items():
        if feature["dtype"] == "video":
            continue
        kind = column_type(feature)
        flat = pa.array(columns[key].ravel(), getattr(kind, "value_type", kind))
        arrays[key] = (
            flat if feature["shape"] == [1] else pa.FixedSizeListArray.from_arrays(flat, feature["shape"][0])
        )
    return pa.table(arrays)


def column_type(feature: Mapping[str, Any]) -> pa.DataType:
    """The parquet type of a scalar or vector feature."""
    scalar = pa.type_for_alias(feature["dtype"])
    shape = list(feature["shape"])
    return scalar if shape == [1] else pa.list_(scalar, shape[0])


def episode_table(*entries: Mapping[str, Any]) -> pa.Table:
    """Rows of meta/episodes; every file of them must have the same types."""
    types = pa.Table.from_pylist(list(entries)).schema
    for name, kind in _OF_EPISODES.items():  # also where all are None
        if name in types.names:
            types = types.set(types.get_field_index(name), pa.field(name, kind))
    return pa.Table.from_pylist(list(entries), types)


def task_table(tasks: Sequence[str]) -> pa.Table:
    """Column task_index, 0 …, with `task` as pandas index, which LeRobot looks tasks up by."""
    kinds = (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
        for name, kind, numpy in kinds
    ]
    index = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": list(tasks)})
    return table.replace_schema_metadata({"pandas": json.dumps(index)})


def summary(features: Mapping[str, dict[str, Any]]) -> str:
    shown = (
        f"{key} {f['dtype']}{tuple(f['shape'])}"
        for key, f in features.items()
        if key not in fmt.INDEX_FEATURES
    )
    return "{" + ", ".join(shown) + "}"
