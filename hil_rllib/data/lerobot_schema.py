"""The columns of the datasets we write, as LeRobot v3.0 describes and stores them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from hil_rllib.data import lerobot_format as fmt
from hil_rllib.data import video

_STATE_NAMES = (
    *(f"joint_{i}.pos" for i in range(1, 8)),
    *(f"joint_{i}.vel" for i in range(1, 8)),
    "gripper.ctrl",
    *(f"tcp.{axis}" for axis in "xyz"),
)
_ACTION_NAMES = ("delta_x_ee", "delta_y_ee", "delta_z_ee", "gripper_delta")  # LeRobot's names for this arm


def features(
    cameras: Sequence[str], environment_state: bool, fps: int, image_size: tuple[int, int]
) -> dict[str, dict[str, Any]]:
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
        fmt.STATE: vector(_STATE_NAMES),
        **({fmt.ENVIRONMENT_STATE: vector(("cube.x", "cube.y", "cube.z"))} if environment_state else {}),
        **{fmt.IMAGE_PREFIX + camera: image for camera in cameras},
        fmt.ACTION: vector(_ACTION_NAMES),
        fmt.REWARD: scalar("float32"),
        fmt.DONE: scalar("bool"),
        fmt.TRUNCATED: scalar("bool"),
        fmt.SUCCESS: scalar("bool"),
        fmt.PENALTY: scalar("float32"),
        fmt.INTERVENTION: scalar("float32"),
        **fmt.INDEX_FEATURES,
    }


def to_table(columns: Mapping[str, NDArray[Any]], features: Mapping[str, dict[str, Any]]) -> pa.Table:
    """Vectors as fixed-size lists, shape (1,) as scalars, no videos: LeRobot can cast it to `features`."""
    arrays = {}
    for key, feature in features.items():
        if feature["dtype"] == "video":
            continue
        kind = pa.bool_() if feature["dtype"] == "bool" else pa.from_numpy_dtype(feature["dtype"])
        flat = pa.array(columns[key].ravel(), kind)
        arrays[key] = (
            flat if feature["shape"] == [1] else pa.FixedSizeListArray.from_arrays(flat, feature["shape"][0])
        )
    return pa.table(arrays)


def episode_table(entry: Mapping[str, Any]) -> pa.Table:
    """One episode's row of meta/episodes; every file of them must have the same types."""
    types = pa.Table.from_pylist([entry]).schema
    return pa.Table.from_pylist(
        [entry], types.set(types.get_field_index("seed"), pa.field("seed", pa.int64()))
    )


def task_table(task: str) -> pa.Table:
    """Column task_index with `task` as pandas index, which LeRobot looks tasks up by."""
    kinds = (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
        for name, kind, numpy in kinds
    ]
    index = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    table = pa.table({"task_index": pa.array([0], pa.int64()), "task": [task]})
    return table.replace_schema_metadata({"pandas": json.dumps(index)})


def summary(features: Mapping[str, dict[str, Any]]) -> str:
    shown = (
        f"{key} {f['dtype']}{tuple(f['shape'])}"
        for key, f in features.items()
        if key not in fmt.INDEX_FEATURES
    )
    return "{" + ", ".join(shown) + "}"
