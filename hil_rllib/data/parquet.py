"""Parquet files of a dataset, and their columns as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hil_rllib.data import video
from hil_rllib.data.lerobot_format import DOWNLOAD_AGAIN, DatasetError, Feature, check_not_lfs_pointer
from hil_rllib.data.video import Frames


def read_parquet(path: Path, skip_prefix: str | None = None) -> pa.Table:
    if not path.is_file():
        raise DatasetError(path, "this file is missing.", DOWNLOAD_AGAIN)
    check_not_lfs_pointer(path)
    try:
        with pq.ParquetFile(path) as file:
            columns = None
            if skip_prefix is not None:
                columns = [name for name in file.schema_arrow.names if not name.startswith(skip_prefix)]
            return file.read(columns)
    except (pa.ArrowException, OSError) as error:
        problem = f"is no readable parquet file, perhaps cut off ({str(error).splitlines()[0]})."
        raise DatasetError(path, problem, DOWNLOAD_AGAIN) from error


def to_numpy(column: pa.ChunkedArray, feature: Feature, path: Path) -> NDArray[Any]:
    """Scalars → (N,); lists and fixed-size lists → (N, d). A vector of length one counts as a scalar."""
    rows = len(column)
    values = column.combine_chunks()
    while isinstance(values, pa.ChunkedArray):  # zero chunks
        values = (
            pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type.value_type)
        )
    while (
        pa.types.is_list(values.type)
        or pa.types.is_large_list(values.type)
        or pa.types.is_fixed_size_list(values.type)
    ):
        values = values.flatten()
    if len(values) != rows * feature.size or values.null_count:
        width = f"{len(values) / rows:g}" if rows else "no"
        raise DatasetError(
            path,
            f"column {feature.key!r} has {width} numbers a row (or gaps) where meta/info.json "
            f"says shape {feature.shape}.",
            DOWNLOAD_AGAIN,
        )
    array = values.to_numpy(zero_copy_only=False)
    return array if feature.size == 1 else array.reshape(rows, feature.size)


def to_frames(column: Any, feature: Feature, path: Path) -> Frames:
    """A column of {bytes, path} structs (PNG or JPEG inside the parquet file) → (N, H, W, 3)."""
    frames = []
    for entry in column.to_pylist():
        data = entry.get("bytes") if isinstance(entry, dict) else None
        if not data:
            raise DatasetError(
                path,
                f"column {feature.key!r} names image files but does not hold them.",
                "Export the dataset with embedded images or as video.",
            )
        frames.append(video.decode_image(data))
    return np.stack(frames)
