"""Mesh decimation for drawing."""

from __future__ import annotations

import fast_simplification
import numpy as np
from numpy.typing import NDArray

_SCALE = 100.0  # metres to cm; in metres the library's thresholds are too coarse (p99 error 5 times larger)
_STALLED = 1.1  # times the asked faces: edge collapse cannot close holes, e.g. those of screws
_CELL = 0.014  # of the diagonal: side of the cells that close them


def decimate(
    vertices: NDArray[np.floating], faces: NDArray[np.integer], max_faces: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Fewer triangles of nearly the same shape (quadric edge collapse).

    vertices: (V, 3) [m]; faces: (F, 3). Returns the same pair with about `max_faces` faces at most.
    Mesh files repeat a vertex for each normal it has; unless merged first, every such seam tears open.
    """
    points, triangles = _merge(np.asarray(vertices, np.float64), np.asarray(faces), cell=0.0)
    result = _collapse(points, triangles, max_faces)
    if len(result[1]) > _STALLED * max_faces:
        cell = _CELL * float(np.linalg.norm(np.ptp(points, axis=0)))
        result = _collapse(*_merge(points, triangles, cell), max_faces)
    return result


def _collapse(
    points: NDArray[np.float64], triangles: NDArray[np.int32], max_faces: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    if len(triangles) > max_faces:
        points, triangles = fast_simplification.simplify(points * _SCALE, triangles, target_count=max_faces)
        points = points / _SCALE
    return points.astype(np.float32), triangles.astype(np.int32)


def _merge(
    points: NDArray[np.float64], triangles: NDArray[np.integer], cell: float
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Merge vertices at the same place, or in the same cube of side `cell` [m]; drop faces that collapse."""
    place = np.floor((points - points.min(axis=0)) / cell) if cell else points
    _, index = np.unique(place, axis=0, return_inverse=True)
    index = index.reshape(-1)
    merged = np.zeros((index.max() + 1, 3))
    np.add.at(merged, index, points)
    merged /= np.bincount(index)[:, None]
    merged_triangles: NDArray[np.int32] = index[triangles].astype(np.int32)
    a, b, c = merged_triangles.T
    merged_triangles = merged_triangles[(a != b) & (b != c) & (c != a)]
    _, first = np.unique(np.sort(merged_triangles, axis=1), axis=0, return_index=True)
    return merged, merged_triangles[np.sort(first)]
