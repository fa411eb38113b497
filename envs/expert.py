"""A scripted expert for picking up the cube; a stand-in for a person in demonstrations and tests."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.pick_cube import PandaPickCubeEnv

_OPEN, _HOLD, _CLOSE = 0.0, 1.0, 2.0
_ABOVE = 0.06  # [m] over the cube's centre before going down
_GRASP_STEPS = 3  # control steps until the fingers hold
_LOST = 0.04  # [m] between TCP and cube while lifting: it slipped, start over


class _Phase(Enum):
    ABOVE = auto()
    DOWN = auto()
    GRASP = auto()
    LIFT = auto()


class PickCubeExpert:
    """Go above the cube, down, close, lift; about 18 steps from a random start."""

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        noise: float = 0.0,
        rng: np.random.Generator | None = None,
        step_size: float = 0.025,
    ) -> None:
        """env: a `PandaPickCubeEnv`, wrapped or not. noise: standard deviation added to each motion entry.

        rng is needed with noise. step_size: metres per unit of motion of the wrapped env.
        """
        base = env.unwrapped
        if not isinstance(base, PandaPickCubeEnv):
            raise TypeError(f"PickCubeExpert drives PandaPickCubeEnv, not {type(base).__name__}.")
        if noise > 0.0 and rng is None:
            raise ValueError("noise > 0 needs an rng: numpy.random.default_rng(seed)")
        self._env, self._noise, self._rng, self._step_size = base, noise, rng, step_size
        self.reset()

    def reset(self) -> None:
        """Start over; call it when the environment is reset."""
        self._phase = _Phase.ABOVE
        self._grasped = 0

    def get_state(self) -> tuple[str, int]:
        """Where it is in the task; its random state is the caller's."""
        return self._phase.name, self._grasped

    def set_state(self, state: tuple[str, int]) -> None:
        self._phase, self._grasped = _Phase[state[0]], state[1]

    def action(self) -> NDArray[np.float32]:
        """float32 (4,) for the environment's present state: motion in [-1, 1], gripper 0, 1 or 2."""
        tcp, cube = self._env.tcp_pos, self._env.block_pos
        offset = cube - tcp
        aligned = float(np.hypot(offset[0], offset[1])) < 0.01
        if self._phase is _Phase.ABOVE and aligned:
            self._phase = _Phase.DOWN
        if self._phase is _Phase.DOWN and aligned and abs(offset[2]) < 0.01:
            self._phase = _Phase.GRASP
        if self._phase is _Phase.GRASP and self._grasped >= _GRASP_STEPS:
            self._phase = _Phase.LIFT
        if self._phase is _Phase.LIFT and float(np.linalg.norm(offset)) > _LOST:
            self.reset()

        gripper = _HOLD
        motion = np.zeros(3)
        if self._phase is _Phase.ABOVE:
            motion = offset + np.array([0.0, 0.0, _ABOVE])
            gripper = _OPEN if self._env.gripper > 0.0 else _HOLD
        elif self._phase is _Phase.DOWN:
            motion = offset
        elif self._phase is _Phase.GRASP:
            self._grasped += 1
            gripper = _CLOSE
        else:
            motion = np.array([0.0, 0.0, self._step_size])
        command = np.empty(4, np.float32)
        scaled = motion / self._step_size
        if self._noise > 0.0:
            assert self._rng is not None
            scaled = scaled + self._rng.normal(0.0, self._noise, 3)
        command[:3] = np.clip(scaled, -1.0, 1.0)
        command[3] = gripper
        return command
