"""Rings as checkpoints of version 1 left them on disk: shards of rows, `<ring>-<first>-<last>.npz`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hil_rllib.data.replay import Fragment, nested_map, unflattened

START = "__start__"  # bool (rows,): the row begins a transition


def fragments(folder: Path, name: str, cursor: dict[str, Any], capacity: int) -> Iterator[Fragment]:
    """What the ring held, oldest first, as fragments of nameless episodes.

    Raises FileNotFoundError where a shard is missing.
    """
    oldest = cursor["rows_written"] - capacity
    parts: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
    for file_name, first, last in cursor["shards"]:
        if last <= oldest:
            continue  # all its rows have left the ring
        file = folder / file_name
        if not file.is_file():
            raise FileNotFoundError(f"Replay shard {file} is missing; the checkpoint needs it.")
        with np.load(file) as arrays:
            parts.append((np.arange(first, last), dict(arrays)))
    if not parts:
        return
    # A shard begins with the last row of the one before, which may have become a start since.
    rows = np.concatenate([rows for rows, _ in parts])
    newest = {int(row): at for at, row in enumerate(rows)}
    order = np.array([newest[row] for row in sorted(newest) if row >= oldest])
    columns = {key: np.concatenate([arrays[key] for _, arrays in parts])[order] for key in parts[0][1]}
    starts = np.concatenate([[False], columns.pop(START), [False]])
    edges = np.flatnonzero(np.diff(starts.astype(np.int8)))
    nested = unflattened(columns)
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        obs = nested_map(lambda x, a=begin, b=end: x[a : b + 1].copy(), nested["obs"])
        steps = {key: column[begin:end].copy() for key, column in nested["steps"].items()}
        yield Fragment(f"{name}-of-version-1-{begin}", 0, obs, steps)
