"""What states and actions say about each other: the measurements behind `alignment`.

A track is (states (N, 18), actions (N, 4)) of one episode, as in the file, float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hil_rllib import contract

Array = NDArray[np.float64]
Track = tuple[Array, Array]

LAGS = 6  # the Panda answers a command 0.49, 0.28, 0.11, 0.05, 0.04 …: 97 % of it within six steps
# A hand slower than this part of its fastest, by the same command, is held back. Ours: it makes 0.002 of it
# at the workspace's limit, 0.01 on the table.
HELD_BACK = 0.05
MIN_FREE = 5 * LAGS  # rows that a fit needs; five for each coefficient
GRIPPER_TOLERANCE = 0.02  # of the full stroke

_GRIPPER = contract.AGENT_POS["gripper"].start
_TCP = contract.AGENT_POS["tcp_pos"]


@dataclass(frozen=True)
class GripperConvention:
    """delta = sign · (value − hold): the change of the normalised actuator command, +1 closes."""

    name: str
    hold: float
    sign: float

    def delta(self, value: Array) -> Array:
        return self.sign * (value - self.hold)

    def fits(self, value: Array) -> bool:
        """Whether all values lie within one of `hold`."""
        return bool(np.all(np.abs(value - self.hold) <= 1 + 1e-3))


CONVENTIONS = (
    GripperConvention("0/1/2 = open/hold/close", hold=1, sign=1),
    GripperConvention("-1/0/1 = open/hold/close", hold=0, sign=1),
    GripperConvention("0/1/2 = close/hold/open", hold=1, sign=-1),
    GripperConvention("-1/0/1 = close/hold/open", hold=0, sign=-1),
)


@dataclass(frozen=True)
class MotionEvidence:
    """Displacement regressed on commands. gain: [m per unit of the file]; lead: share of lag 0 in it."""

    gain: float
    lead: float
    r2: float


@dataclass(frozen=True)
class GripperEvidence:
    """How well one reading of the gripper column predicts the actuator.

    events: steps at which a change is seen or commanded; explained: share of them predicted, [0, 1].
    """

    convention: GripperConvention
    shifted: bool
    explained: float
    events: int


def motion_evidence(tracks: Sequence[Track]) -> MotionEvidence | None:
    """Least squares of tcp[t] − tcp[t−1] on motion[t], motion[t−1] …, all axes and episodes pooled.

    Before an episode nothing is commanded. Rows near one in which something holds the hand back, such as the
    table or the workspace's limit, are left out: they show no gain. Returns None where nothing is commanded.
    """
    commands, displacements = [], []
    for states, actions in tracks:
        motion = np.vstack([np.zeros((LAGS - 1, contract.MOTION_DIM)), actions[:, : contract.MOTION_DIM]])
        lagged = [motion[LAGS - 1 - lag : len(motion) - lag][1:] for lag in range(LAGS)]
        commands.append(np.stack(lagged, axis=-1))
        displacements.append(np.diff(states[:, _TCP], axis=0))
    every = np.concatenate([moved.ravel() for moved in displacements])
    strongest = max((float(np.abs(rows).max()) for rows in commands if rows.size), default=0.0)
    if not strongest:
        return None
    fastest = float(np.quantile(np.abs(every), 0.99)) / strongest  # [m per unit]; a stray row is none
    free = [_free(rows, moved, fastest) for rows, moved in zip(commands, displacements, strict=True)]
    if sum(map(np.count_nonzero, free)) < MIN_FREE:
        free = [np.ones_like(kept) for kept in free]
    x = np.concatenate([rows[kept] for rows, kept in zip(commands, free, strict=True)])
    y = np.concatenate([moved[kept] for moved, kept in zip(displacements, free, strict=True)])
    coefficients = np.linalg.lstsq(x, y, rcond=None)[0]
    gain, total = float(coefficients.sum()), float(y @ y)
    r2 = 1 - float(np.sum((y - x @ coefficients) ** 2)) / total if total > 0 else 0.0
    return MotionEvidence(gain, float(coefficients[0]) / gain if gain else 0.0, r2)


def _free(commands: Array, moved: Array, fastest: float) -> NDArray[np.bool_]:
    """Where nothing holds the hand back within LAGS rows. (N, 3) as `moved`.

    commands: (N, 3, LAGS), the row's own first: it may yet be unanswered. fastest: [m per unit].
    """
    held = np.abs(moved) < HELD_BACK * fastest * np.abs(commands[:, :, 1:]).max(axis=-1)
    free = ~held
    for lag in range(1, LAGS):
        free[lag:] &= ~held[:-lag]
        free[:-lag] &= ~held[lag:]
    return free


def gripper_evidence(
    tracks: Sequence[Track], convention: GripperConvention, shifted: bool
) -> GripperEvidence:
    """Predicts each actuator command from the one before: new = clip(old + delta, 0, 1)."""
    events = explained = 0
    for states, actions in tracks:
        closed = states[:, _GRIPPER] / contract.GRIPPER_CLOSED
        old, new = closed[:-1], closed[1:]
        command = actions[1:, contract.MOTION_DIM] if shifted else actions[:-1, contract.MOTION_DIM]
        predicted = np.clip(old + convention.delta(command), 0.0, 1.0)
        event = (np.abs(predicted - old) > GRIPPER_TOLERANCE) | (np.abs(new - old) > GRIPPER_TOLERANCE)
        events += int(event.sum())
        explained += int((event & (np.abs(predicted - new) <= GRIPPER_TOLERANCE)).sum())
    return GripperEvidence(convention, shifted, explained / events if events else 1.0, events)
