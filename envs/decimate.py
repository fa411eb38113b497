"""Mesh decimation for drawing."""

from __future__ import annotations

import fast_simplification
import numpy as np
from numpy.typing import NDArray


def decimate(
    vertices: NDArray[np.floating], faces: NDArray[np.integer], max_faces: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Fewer triangles of nearly the same shape (quadric edge collapse).

    vertices: (V, 3); faces: (F, 3). Returns the same pair with at most about `max_faces` faces.
    Mesh files repeat a vertex for each normal it has; without merging those first, every such seam would tear open.
    """
    points, index = np.unique(np.asarray(vertices, np.float32), axis=0, return_inverse=True)
    triangles = index.reshape(-1)[np.asarray(faces)].astype(np.int32)
    a, b, c = triangles.T
    triangles = triangles[(a != b) & (b != c) & (c != a)]
    if len(triangles) > max_faces:
        points, triangles = fast_simplification.simplify(points, triangles, target_count=max_faces)
    return points.astype(np.float32), triangles.astype(np.int32)
