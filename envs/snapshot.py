"""Snapshots of a simulation that it continues from bit by bit, sleeping objects included.

After a control step `data` still holds the kinematics of the start of its last physics step, and controller,
sensors and cameras see those. So a snapshot is the state before that physics step, which restoring repeats.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

AT_REST = 1e-12  # [m/s] ours: what is slower drifts no further than rounding does, 2e-14 m
AFTER_STEP, AFTER_FORWARD = 1.0, 0.0  # first entry of a snapshot: how `data` was left

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
_DROWSY, _AWAKE = -1, -11  # entries of mjData.tree_asleep: next to sleep once at rest; 1 + mjMINAWAKE from it


def let_objects_sleep(model: mujoco.MjModel) -> None:
    """Have MuJoCo leave out objects at rest until something touches them.

    Five boxes at rest on the floor take more than half of a physics step. While they sleep, contacts and
    sensors of theirs are not brought up to date.
    """
    model.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_SLEEP
    model.opt.sleep_tolerance = AT_REST


class Snapshot:
    """One snapshot of a simulation, in one preallocated vector: how it was left, state, who sleeps."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self._model, self._data = model, data
        size = mujoco.mj_stateSize(model, _STATE)
        self.values = np.zeros(1 + size + model.ntree)
        self._state, self._asleep = self.values[1 : 1 + size], self.values[1 + size :]

    def take(self, how: float) -> None:
        """how: `AFTER_STEP` just before the step, `AFTER_FORWARD` just after `mj_forward`."""
        self.values[0] = how
        mujoco.mj_getState(self._model, self._data, self._state, _STATE)
        self._asleep[:] = self._data.tree_asleep

    def restore(self, values: NDArray[np.float64]) -> None:
        """Bring `data` to where `values`, a snapshot of this or another simulation of this model, was taken.

        Raises ValueError on the snapshot of another model.
        """
        if values.shape != self.values.shape:
            raise ValueError(f"A state of this task has shape {self.values.shape}, not {values.shape}.")
        self.values[:] = values
        model, data, asleep = self._model, self._data, self._asleep
        mujoco.mj_resetData(model, data)  # wakes all
        if (asleep >= 0).any():
            # MuJoCo itself puts to sleep what came to rest, at the end of a step and without moving it.
            mujoco.mj_setState(model, data, self._state, _STATE)
            data.tree_asleep[:] = np.where(asleep >= 0, _DROWSY, _AWAKE)
            mujoco.mj_step(model, data)
        mujoco.mj_setState(model, data, self._state, _STATE)
        awake = data.tree_asleep < 0  # also who slept in the snapshot, but is touched within its last step
        data.tree_asleep[awake] = np.where(asleep < 0, asleep, _AWAKE)[awake]
        (mujoco.mj_step if self.values[0] == AFTER_STEP else mujoco.mj_forward)(model, data)
