"""Parquet files of a dataset, and their columns as arrays."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hil_rllib.data import video
from hil_rllib.data.lerobot_format import DOWNLOAD_AGAIN, DatasetError, Feature, check_not_lfs_pointer
from hil_rllib.data.video import Frames, Size


def read_parquet(path: Path, skip_prefix: str | None = None, skip: Collection[str] = ()) -> pa.Table:
    """The table without the columns of that prefix or those names. Raises DatasetError."""
    with _opened(path) as file:
        names = [
            name
            for name in file.schema_arrow.names
            if name not in skip and not (skip_prefix is not None and name.startswith(skip_prefix))
        ]
        return file.read(names, use_threads=False)  # small files: threads cost more than they give


def read_rows(path: Path, columns: Sequence[str], first: int, count: int) -> pa.Table:
    """Those columns of `count` rows; only the row groups that hold them are read (images are large)."""
    with _opened(path) as file:
        groups, start, begin = [], 0, None
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if start < first + count and first < start + rows:
                begin = start if begin is None else begin
                groups.append(group)
            start += rows
        return file.read_row_groups(groups, list(columns), use_threads=False).slice(
            first - (begin or 0), count
        )


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    if not path.is_file():
        raise DatasetError(path, "this file is missing.", DOWNLOAD_AGAIN)
    check_not_lfs_pointer(path)
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
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
            f"column {feature.source!r} has {width} numbers a row (or gaps) where meta/info.json "
            f"says shape {feature.shape}.",
            DOWNLOAD_AGAIN,
        )
    if feature.dtype != "string" and not _is_number(values.type):
        problem = f"column {feature.source!r} holds {values.type} where meta/info.json says {feature.dtype}."
        raise DatasetError(path, problem, DOWNLOAD_AGAIN)
    array = values.to_numpy(zero_copy_only=False)
    return array if feature.size == 1 else array.reshape(rows, feature.size)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def to_frames(column: Any, feature: Feature, path: Path, size: Size | None = None) -> Frames:
    """A column of {bytes, path} structs (PNG or JPEG in the parquet file) → (N, H, W, 3), resized to size.

    Raises:
        DatasetError: an image is missing, damaged, or not of the size that meta/info.json says.
    """
    convert = video.Converter(size)
    frames: Frames | None = None
    for row, entry in enumerate(column.to_pylist()):
        data = entry.get("bytes") if isinstance(entry, dict) else None
        if not data:
            raise DatasetError(
                path,
                f"column {feature.source!r} names image files but does not hold them.",
                "Export the dataset with embedded images or as video.",
            )
        try:
            found, image = video.decode_image(data, convert)
        except (av.FFmpegError, ValueError, OSError) as error:
            raise DatasetError(
                path, f"image {row} of column {feature.source!r} is damaged ({error}).", DOWNLOAD_AGAIN
            ) from error
        if found != feature.image_size():
            raise DatasetError(
                path,
                f"image {row} of column {feature.source!r} has {found} pixels where meta/info.json says "
                f"{feature.image_size()}.",
                DOWNLOAD_AGAIN,
            )
        if frames is None:
            frames = np.empty((len(column), *image.shape), np.uint8)
        frames[row] = image
    return np.empty((0, *feature.image_size(), 3), np.uint8) if frames is None else frames
