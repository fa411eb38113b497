"""Action, penalty and delay wrappers, under gym-hil's names."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from envs.panda import GRIPPER_CLOSED, PandaEnv
from envs.safety import EE_STEP_SIZE, HELD_COMMANDS, ROTATION_STEP_SIZE, clipped

GRIPPER_PENALTY = -0.02  # gym-hil 0.1.14

StepSize = float | tuple[float, float, float] | Mapping[str, float]
_Wrapper = gymnasium.Wrapper[dict[str, Any], NDArray[np.float32], dict[str, Any], NDArray[np.float32]]


class EEActionWrapper(_Wrapper):
    """Action: motion in [-1, 1] along world x, y, z, then what is asked for of:

    turn in [-1, 1] about world x, y, z (`use_orientation`); gripper in [0, 2]: 0 opens, 1 holds, 2 closes
    (`use_gripper`). So (3,), (4,), (6,) or (7,). What is not asked for holds still.
    """

    STATE: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        env: gymnasium.Env[dict[str, Any], NDArray[np.float32]],
        ee_step_size: StepSize = EE_STEP_SIZE,
        use_gripper: bool = True,
        use_orientation: bool = False,
        rotation_step_size: float = ROTATION_STEP_SIZE,
    ) -> None:
        """ee_step_size: metres at motion 1, for all axes, or per axis: (x, y, z) or {"x": …, "y": …, "z": …}.

        The step sizes become the env's speed limit too, see `envs.safety`.

        rotation_step_size: radians at turn 1. The three entries are one turn, axis times angle, of the target
        that the hand follows, critically damped; it stops at `envs.panda.MAX_TURN`.
        """
        super().__init__(env)
        self.use_gripper, self.use_orientation = use_gripper, use_orientation
        self._step_size = _per_axis(ee_step_size)
        self._rotation_step_size = rotation_step_size
        base = env.unwrapped
        if not isinstance(base, PandaEnv):
            raise TypeError(f"EEActionWrapper moves a PandaEnv's hand, not a {type(base).__name__}.")
        base.limits.set_step_sizes(self._step_size, rotation_step_size)
        if use_orientation:
            base.use_orientation = True
        moves = 6 if use_orientation else 3
        low, high = [-1.0] * moves, [1.0] * moves
        if use_gripper:
            low, high = [*low, 0.0], [*high, 2.0]
        self._box = spaces.Box(np.array(low, np.float32), np.array(high, np.float32), dtype=np.float32)
        self.action_space = self._box

    def step(self, action: ArrayLike) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """Raises ValueError on another shape."""
        command = clipped(action, self._box)
        base = np.zeros(7)
        base[:3] = command[:3] * self._step_size
        if self.use_orientation:
            base[3:6] = command[3:6] * self._rotation_step_size
        if self.use_gripper:
            base[6] = command[-1] - 1.0
        return self.env.step(base)  # type: ignore[arg-type]  # float64: a step size in float32 would not replay exactly


class GripperPenaltyWrapper(_Wrapper):
    """Puts `penalty` into info["discrete_penalty"] when the gripper is sent from one end to the other.

    The reward stays as it is. Wraps the 7-D environment: it reads the last action entry in [-1, 1].
    """

    STATE: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, env: gymnasium.Env[dict[str, Any], NDArray[np.float32]], penalty: float = GRIPPER_PENALTY
    ) -> None:
        super().__init__(env)
        self.penalty = penalty

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        base = self.unwrapped
        assert isinstance(base, PandaEnv)
        closed = base.gripper / GRIPPER_CLOSED
        observation, reward, terminated, truncated, info = self.env.step(action)
        change = float(action[-1])
        toggles = (change < -0.5 and closed > 0.9) or (change > 0.5 and closed < 0.1)
        toggles = toggles and HELD_COMMANDS not in info
        info["discrete_penalty"] = self.penalty if toggles else 0.0
        return observation, reward, terminated, truncated, info


class ResetDelayWrapper(_Wrapper):
    """Waits `delay_seconds` before each reset, and only there: time to look, and to take the device."""

    STATE: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, env: gymnasium.Env[dict[str, Any], NDArray[np.float32]], delay_seconds: float = 1.0
    ) -> None:
        """delay_seconds: gym-hil's default; 0 does not wait."""
        super().__init__(env)
        if not math.isfinite(delay_seconds) or delay_seconds < 0.0:
            raise ValueError(f"delay_seconds is {delay_seconds}; it must be a time of 0 s or more.")
        self.delay_seconds = delay_seconds

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        time.sleep(self.delay_seconds)
        return self.env.reset(seed=seed, options=options)


def _per_axis(step_size: StepSize) -> NDArray[np.float64]:
    """(3,) [m]; gym-hil gives the axes by name."""
    if isinstance(step_size, Mapping):
        if set(step_size) != {"x", "y", "z"}:
            raise ValueError(f"ee_step_size names the axes {sorted(step_size)}; it needs x, y and z.")
        step_size = (step_size["x"], step_size["y"], step_size["z"])
    sizes = np.asarray(step_size, np.float64)
    if sizes.shape not in ((), (3,)) or not np.isfinite(sizes).all() or (sizes <= 0.0).any():
        raise ValueError(
            f"ee_step_size is {step_size}; it must be one positive number of metres, or three: (x, y, z)."
        )
    return np.broadcast_to(sizes, (3,))
