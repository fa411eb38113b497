"""Statistics as LeRobot keeps them: per feature min, max, mean, std, count, per episode and over all.

Source: LeRobot v3.0, `compute_stats.py`. Images: per channel, scaled to [0, 1], shape (3, 1, 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil_rllib.data.video import Frames

Stats = dict[str, Any]  # min, max, mean, std: nested lists of the feature's shape; count: [rows]


def column_stats(rows: NDArray[Any]) -> Stats:
    """rows: (N,) or (N, d)."""
    values = rows.reshape(len(rows), -1).astype(np.float64)
    return {
        "min": values.min(axis=0).tolist(),
        "max": values.max(axis=0).tolist(),
        "mean": values.mean(axis=0).tolist(),
        "std": values.std(axis=0).tolist(),
        "count": [len(values)],
    }


def image_stats(frames: Frames) -> Stats:
    """frames: uint8 (N, H, W, 3). Exact, from the histogram of each channel."""
    levels = np.arange(256) / 255
    stats: Stats = {"min": [], "max": [], "mean": [], "std": [], "count": [len(frames)]}
    for channel in np.moveaxis(frames, -1, 0):
        weights = np.bincount(channel.ravel(), minlength=256)
        present = levels[weights > 0]
        mean = float(np.average(levels, weights=weights))
        std = float(np.sqrt(np.average((levels - mean) ** 2, weights=weights)))
        for name, value in (("min", present[0]), ("max", present[-1]), ("mean", mean), ("std", std)):
            stats[name].append([[float(value)]])
    return stats


def aggregate(episodes: Sequence[Mapping[str, Stats]]) -> dict[str, Stats]:
    """Statistics of all rows together, from those of the episodes (weighted by their counts)."""
    return {key: _aggregate([episode[key] for episode in episodes]) for key in episodes[0]}


def _aggregate(parts: Sequence[Stats]) -> Stats:
    low, high, means, stds = (np.array([p[name] for p in parts]) for name in ("min", "max", "mean", "std"))
    counts = np.array([p["count"][0] for p in parts], np.float64)
    mean = np.average(means, axis=0, weights=counts)
    variance = np.average(stds**2 + (means - mean) ** 2, axis=0, weights=counts)
    return {
        "min": low.min(axis=0).tolist(),
        "max": high.max(axis=0).tolist(),
        "mean": mean.tolist(),
        "std": np.sqrt(variance).tolist(),
        "count": [int(counts.sum())],
    }
