"""Action and penalty wrappers, under gym-hil's names."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from envs.panda import GRIPPER_CLOSED, PandaEnv, checked_action

EE_STEP_SIZE = 0.025  # [m] per axis and step at motion ±1; gym-hil 0.1.14
GRIPPER_PENALTY = -0.02  # gym-hil 0.1.14


_Wrapper = gymnasium.Wrapper[dict[str, Any], NDArray[np.float32], dict[str, Any], NDArray[np.float32]]


class EEActionWrapper(_Wrapper):
    """Action (4,): motion in [-1, 1] per axis, then the gripper in [0, 2]: 0 opens, 1 holds, 2 closes.

    Without `use_gripper` the action is the motion alone, (3,), and the gripper holds.
    """

    def __init__(
        self,
        env: gymnasium.Env[dict[str, Any], NDArray[np.float32]],
        ee_step_size: float | tuple[float, float, float] = EE_STEP_SIZE,
        use_gripper: bool = True,
    ) -> None:
        """ee_step_size: metres at motion 1, for all axes or one per axis."""
        super().__init__(env)
        self.use_gripper = use_gripper
        self._step_size = np.broadcast_to(np.asarray(ee_step_size, np.float64), (3,))
        low, high = [-1.0] * 3, [1.0] * 3
        if use_gripper:
            low, high = [*low, 0.0], [*high, 2.0]
        self._box = spaces.Box(np.array(low, np.float32), np.array(high, np.float32), dtype=np.float32)
        self.action_space = self._box

    def step(self, action: ArrayLike) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """Raises ValueError on NaN, infinity or another shape."""
        command = checked_action(action, self._box)
        base = np.zeros(7)
        base[:3] = command[:3] * self._step_size
        if self.use_gripper:
            base[6] = command[3] - 1.0
        return self.env.step(base)  # type: ignore[arg-type]  # float64: a step size in float32 would not replay exactly


class GripperPenaltyWrapper(_Wrapper):
    """Puts `penalty` into info["discrete_penalty"] when the gripper is sent from one end to the other.

    The reward stays as it is. Wraps the 7-D environment: it reads the last action entry in [-1, 1].
    """

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
        info["discrete_penalty"] = self.penalty if toggles else 0.0
        return observation, reward, terminated, truncated, info
