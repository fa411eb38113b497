"""Rotations of the TCP's target.

Quaternions are (w, x, y, z); a turn is axis times angle [rad], in the world frame.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray


def turned(quat: NDArray[np.float64], turn: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4,) `quat` turned by `turn` (3,) about the world's axes."""
    change, result = np.zeros(4), np.zeros(4)
    angle = float(np.linalg.norm(turn))
    mujoco.mju_axisAngle2Quat(change, turn / angle if angle > 0.0 else turn, angle)
    mujoco.mju_mulQuat(result, change, quat)
    mujoco.mju_normalize4(result)
    return result


def turn_between(start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) the shortest turn, at most π long, that brings `start` to `end`."""
    back, change, turn = np.zeros(4), np.zeros(4), np.zeros(3)
    mujoco.mju_negQuat(back, start)
    mujoco.mju_mulQuat(change, end, back)
    mujoco.mju_quat2Vel(turn, change, 1.0)
    return turn


def within(quat: NDArray[np.float64], centre: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """(4,) `quat`, or where it is more than `limit` [rad] from `centre`, the nearest that is not."""
    turn = turn_between(centre, quat)
    angle = float(np.linalg.norm(turn))
    return quat if angle <= limit else turned(centre, turn * (limit / angle))
