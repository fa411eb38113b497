"""What no command may exceed, whoever gives it: policy, person, dataset, or a caller of the bare env."""

from __future__ import annotations

import logging
import math

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

logger = logging.getLogger(__name__)

EE_STEP_SIZE = 0.025  # [m] per axis and step at motion ±1; gym-hil 0.1.14
ROTATION_STEP_SIZE = 0.1  # [rad] per axis and step at ±1; ours: 1 rad/s at 10 Hz; the hand lags by 0.13 rad
# Per axis and step of 0.1 s: the Panda's own Cartesian limits, 1.7 m/s and 2.5 rad/s (Franka's FCI manual).
MAX_STEP_SIZE, MAX_ROTATION_STEP_SIZE = 0.17, 0.25
HELD_COMMANDS = "held_commands"  # in `info` of a held step: how many commands of this episode were held


class CommandLimits:
    """The one place that every command passes on its way to the arm.

    A command (7,) is motion x, y, z [m], turn x, y, z [rad], and the gripper's change as a fraction of its
    range. Entries are clipped to what one step may do; a command with NaN or infinity becomes a hold, since
    half of a broken command is no safer than all of it.
    """

    def __init__(self, workspace: NDArray[np.float64]) -> None:
        """workspace: (2, 3), least and greatest position of the TCP's target [m, world]."""
        self.workspace = workspace
        self.held = 0  # commands of this episode that were replaced
        self._said = False
        self.set_step_sizes(EE_STEP_SIZE, ROTATION_STEP_SIZE)

    def set_step_sizes(self, motion: ArrayLike, turn: float) -> None:
        """The speed limit, per axis and step. motion: [m], one or (3,). turn: [rad].

        Raises ValueError for sizes that are not positive, and beyond what the arm itself may do.
        """
        sizes = np.broadcast_to(np.asarray(motion, np.float64), (3,))
        if not ((sizes > 0.0) & (sizes <= MAX_STEP_SIZE)).all():
            raise ValueError(f"A step of {sizes.tolist()} m: it must be above 0, at most {MAX_STEP_SIZE} m.")
        if not 0.0 < turn <= MAX_ROTATION_STEP_SIZE:
            raise ValueError(
                f"rotation_step_size is {turn}; it must be positive [rad], at most {MAX_ROTATION_STEP_SIZE}."
            )
        self._highest = np.array([*sizes, turn, turn, turn, 1.0])

    def reset(self) -> None:
        """An episode begins."""
        self.held = 0

    def __call__(self, command: NDArray[np.float64]) -> NDArray[np.float64]:
        """(7,) what the arm may do of `command` (7,)."""
        if all(map(math.isfinite, command)):
            return np.clip(command, -self._highest, self._highest)
        self.held += 1
        if not self._said:
            self._said = True
            logger.warning(
                "The command %s is not finite: the arm holds still. Check the policy or device behind it. "
                "Further ones are only counted, in info[%r].",
                command.tolist(),
                HELD_COMMANDS,
            )
        return np.zeros_like(command)

    def target(self, position: NDArray[np.float64], motion: NDArray[np.float64]) -> NDArray[np.float64]:
        """(3,) where the TCP's target goes from `position` [m, world]."""
        return np.clip(position + motion, *self.workspace)


def clipped(action: ArrayLike, space: spaces.Box) -> NDArray[np.float64]:
    """`action` as float64 within `space`; with NaN or infinity as it came, for `CommandLimits` to hold.

    Raises ValueError on another shape.
    """
    array = np.asarray(action, np.float64)
    if array.shape != space.shape:
        raise ValueError(f"The action has shape {array.shape}; this environment takes {space.shape}.")
    # An infinite entry clipped would be a finite one at full speed.
    return np.clip(array, space.low, space.high) if np.isfinite(array).all() else array
