"""Statistics as LeRobot keeps them: per feature min, max, mean, std, count and quantiles.

Source: LeRobot 0.4.4, `compute_stats.py`. Images: per channel, scaled to [0, 1], shape (3, 1, 1), from some
of an episode's frames. Quantiles are read off a histogram of 5000 bins; those of several episodes are the
mean of theirs, weighted by count. One departure: LeRobot squares images as uint8, which wraps, so its
std of images is wrong; ours is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil_rllib.data.video import Frames

Stats = dict[str, Any]  # min, max, mean, std, q01 …: nested lists of the feature's shape; count: [rows]

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
BINS = 5000
EDGE = 1e-10  # by which the histogram exceeds the values


def column_stats(rows: NDArray[Any]) -> Stats:
    """rows: (N,) or (N, d)."""
    values = rows.reshape(len(rows), -1).astype(np.float64)
    weight = np.ones(len(values))
    columns = [_of_values(values[:, i], weight) for i in range(values.shape[1])]
    return {name: [c[name] for c in columns] for name in columns[0]} | {"count": [len(values)]}


def image_stats(frames: Frames) -> Stats:
    """frames: uint8 (N, H, W, 3)."""
    chosen = frames[sampled(len(frames))]
    height, width = chosen.shape[1:3]
    if max(height, width) >= 300:  # LeRobot thins out larger images, to about 150 pixels
        step = int((width if width > height else height) / 150)
        chosen = chosen[:, ::step, ::step]
    stats: Stats = {}
    for channel in range(3):
        weights = np.bincount(chosen[..., channel].ravel(), minlength=256)
        present = np.flatnonzero(weights)
        of = _of_values(present.astype(np.float64), weights[present].astype(np.float64))
        for name, value in of.items():
            stats.setdefault(name, []).append([[value / 255]])
    return stats | {"count": [len(chosen)]}


def sampled(rows: int) -> NDArray[np.int64]:
    """Which of an episode's frames count: all up to 100, then rows^0.75 of them, evenly spread."""
    number = max(min(100, rows), min(int(rows**0.75), 10_000))
    return np.round(np.linspace(0, rows - 1, number)).astype(np.int64)


def merge(parts: Sequence[Mapping[str, Stats]]) -> dict[str, Stats]:
    """Statistics of all rows together, from those of parts (weighted by their counts).

    Parts made by others may lack features or quantiles; what not all have is left out.
    """
    keys = [key for key in parts[0] if all(key in part for part in parts)]
    return {key: _merge([part[key] for part in parts]) for key in keys}


def _of_values(values: NDArray[np.float64], weights: NDArray[np.float64]) -> dict[str, float]:
    """Of (N,) values, each counted `weights` times."""
    mean = float(np.average(values, weights=weights))
    variance = float(np.average((values - mean) ** 2, weights=weights))
    result = {"min": float(values.min()), "max": float(values.max()), "mean": mean, "std": variance**0.5}
    total = weights.sum()
    if total < 2:
        return result | dict.fromkeys(QUANTILES, mean)
    edges = np.linspace(result["min"] - EDGE, result["max"] + EDGE, BINS + 1)
    below = np.cumsum(np.histogram(values, bins=edges, weights=weights)[0])
    return result | {name: _quantile(below, edges, share * total) for name, share in QUANTILES.items()}


def _quantile(below: NDArray[np.float64], edges: NDArray[np.float64], rank: float) -> float:
    """Where `rank` values lie below. below[i]: values up to bin i; straight lines within a bin."""
    i = int(np.searchsorted(below, rank))
    if i == 0:
        return float(edges[0])
    if i >= len(below):
        return float(edges[-1])
    share = (rank - below[i - 1]) / (below[i] - below[i - 1])
    return float(edges[i] + share * (edges[i + 1] - edges[i]))


def _merge(parts: Sequence[Stats]) -> Stats:
    names = [name for name in parts[0] if name != "count" and all(name in part for part in parts)]
    of = {name: np.array([part[name] for part in parts], np.float64) for name in names}
    counts = np.array([part["count"][0] for part in parts], np.float64)
    mean = np.average(of["mean"], axis=0, weights=counts)
    variance = np.average(of["std"] ** 2 + (of["mean"] - mean) ** 2, axis=0, weights=counts)
    merged = {name: np.average(values, axis=0, weights=counts) for name, values in of.items()}
    merged |= {"min": of["min"].min(axis=0), "max": of["max"].max(axis=0), "std": np.sqrt(variance)}
    return {name: merged[name].tolist() for name in names} | {"count": [int(counts.sum())]}
