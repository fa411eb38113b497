"""Rings on disk: append-only shards, each written once and named by the rows it holds.

A save costs what is new since the last one. The cursor that says which shards make up a ring belongs to
the checkpoint, so a shard written after it is simply not read.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from hil_rllib.data.replay import Nested, Ring

START = "__start__"  # bool (rows,): the row begins a transition
SHARD_ROWS = 4096  # at most: a shard is copied before it is written, 130 MB with two cameras' features


def save_ring(ring: Ring, folder: Path, name: str, saved: dict[str, Any] | None) -> dict[str, Any]:
    """Write the rows that are new since `saved`, the last save's cursor, and return the cursor of now."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = list(saved["shards"]) if saved else []
    cursor: dict[str, Any] = {"rows_written": ring.rows_written, "shards": shards}
    # The last row saved may have been open: the next fragment turned it into a start.
    first = max(saved["rows_written"] - 1 if saved else 0, ring.rows_written - ring.capacity, 0)
    if saved and saved["rows_written"] == ring.rows_written:
        return cursor
    columns = _flat({"obs": ring.obs, "steps": ring.steps})
    for start in range(first, ring.rows_written, SHARD_ROWS):
        stop = min(start + SHARD_ROWS, ring.rows_written)
        rows = np.arange(start, stop)
        arrays: dict[str, Any] = {key: column[rows % ring.capacity] for key, column in columns.items()}
        arrays[START] = ring.is_start(rows)
        file = folder / f"{name}-{start:09d}-{stop:09d}.npz"
        partial = file.with_suffix(".partial")
        with partial.open("wb") as stream:
            np.savez(stream, **arrays)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
        cursor["shards"].append([file.name, start, stop])
    return cursor


def load_ring(ring: Ring, folder: Path, cursor: dict[str, Any]) -> None:
    """Fill an empty ring as it was at `cursor`.

    Raises FileNotFoundError naming the shard where one is missing.
    """
    starts = np.zeros(ring.capacity, np.bool_)
    oldest = cursor["rows_written"] - ring.capacity
    for file_name, first, last in cursor["shards"]:
        if last <= oldest:
            continue  # all its rows have left the ring
        file = folder / file_name
        if not file.is_file():
            raise FileNotFoundError(
                f"Replay shard {file} is missing; the checkpoint cannot be restored without it."
            )
        with np.load(file) as arrays:
            keep = np.arange(first, last) >= oldest
            rows = np.arange(first, last)[keep] % ring.capacity
            for key, column in _flat({"obs": ring.obs, "steps": ring.steps}).items():
                column[rows] = arrays[key][keep]
            starts[rows] = arrays[START][keep]
    ring.restore(cursor["rows_written"], starts)


def _flat(columns: Nested, prefix: str = "") -> dict[str, np.ndarray]:
    flat: dict[str, np.ndarray] = {}
    for name, column in columns.items():
        key = f"{prefix}{name}"
        flat |= _flat(column, f"{key}/") if isinstance(column, dict) else {key: column}
    return flat
