"""Scripted experts for both tasks, who see the simulator's state: stand-ins for a person."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum, auto
from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.arrange_boxes import BOXES, SUCCESS_DISTANCE, PandaArrangeBoxesEnv
from envs.panda import GRIPPER_CLOSED, PandaEnv
from envs.pick_cube import PandaPickCubeEnv

_OPEN, _HOLD, _CLOSE = 0.0, 1.0, 2.0
_NEAR = 0.01  # [m] that counts as there
_ABOVE = 0.06  # [m] over an object's centre before going down
_FINGER_STEPS = 3  # control steps until the fingers hold, or have let go
_LOST = 0.04  # [m] between TCP and object in the hand: it slipped, start over
_IN_HAND = 0.015  # [m] the same; from outside, closed fingers stay 0.02 away, an object's half-size
_CLEAR = 0.08  # [m] over a plate that a box is carried; two boxes are 0.04 each
_LET_GO = (
    0.04  # [m] over a plate; at rest 0.02, but fingers that hold a box by its foot touch the floor first
)

_Move = tuple[NDArray[np.float64], float]  # (3,) [m, world], gripper


class _Phase(Enum):
    ABOVE = auto()
    DOWN = auto()
    GRASP = auto()
    LIFT = auto()
    CARRY = auto()
    LOWER = auto()
    RELEASE = auto()
    RISE = auto()


_IN_THE_HAND = (_Phase.LIFT, _Phase.CARRY, _Phase.LOWER)


class Expert(ABC):
    """Takes an object, and does with it what the task asks for."""

    env_class: ClassVar[type[PandaEnv]]

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        noise: float = 0.0,
        rng: np.random.Generator | None = None,
        step_size: float = 0.025,
    ) -> None:
        """env: an `env_class`, wrapped or not. noise: standard deviation added to each motion entry.

        rng is needed with noise. step_size: metres per unit of motion of the wrapped env.
        """
        base = env.unwrapped
        if not isinstance(base, self.env_class):
            raise TypeError(
                f"{type(self).__name__} drives {self.env_class.__name__}, not {type(base).__name__}."
            )
        if noise > 0.0 and rng is None:
            raise ValueError("noise > 0 needs an rng: numpy.random.default_rng(seed)")
        self._env: Any = base
        self._noise, self._rng, self._step_size = noise, rng, step_size
        self.reset()

    def reset(self) -> None:
        """Start over; call it when the environment is reset."""
        self._phase = _Phase.ABOVE
        self._waited = 0  # steps of the fingers

    def look(self) -> None:
        """Go on from the scene as it is: what is in the hand already is not grasped again."""
        self.reset()
        if self.holding:
            self._phase = _Phase.LIFT

    def get_state(self) -> tuple[Any, ...]:
        """Where it is in the task; its random state is the caller's."""
        return self._phase.name, self._waited

    def set_state(self, state: tuple[Any, ...]) -> None:
        self._phase, self._waited = _Phase[state[0]], state[1]

    @property
    @abstractmethod
    def holding(self) -> bool:
        """Whether an object is between the closed fingers."""

    @property
    @abstractmethod
    def progress(self) -> float:
        """How far the task has come [m]. Only differences count."""

    def action(self) -> NDArray[np.float32]:
        """float32 (4,) for the environment's present state: motion in [-1, 1], gripper 0, 1 or 2."""
        motion, gripper = self._move()
        scaled = motion / self._step_size
        if self._noise > 0.0:
            assert self._rng is not None
            scaled = scaled + self._rng.normal(0.0, self._noise, 3)
        return np.array([*np.clip(scaled, -1.0, 1.0), gripper], np.float32)

    @abstractmethod
    def _move(self) -> _Move:
        """What to do now."""

    def _take(self, offset: NDArray[np.float64]) -> _Move | None:
        """Above the object, down, close; None once it is in the hand. offset: (3,) from the TCP to it [m]."""
        aligned = _across(offset) < _NEAR
        opened = self._env.gripper == 0.0
        if self._phase is _Phase.ABOVE and aligned and opened:
            self._phase = _Phase.DOWN
        if self._phase is _Phase.DOWN and aligned and abs(offset[2]) < _NEAR:
            self._phase, self._waited = _Phase.GRASP, 0
        if self._phase is _Phase.GRASP and self._waited >= _FINGER_STEPS:
            self._phase = _Phase.LIFT
        if self._phase in _IN_THE_HAND and float(np.linalg.norm(offset)) > _LOST:
            self.reset()
        if self._phase is _Phase.ABOVE:
            return offset + _up(_ABOVE), _HOLD if opened else _OPEN
        if self._phase is _Phase.DOWN:
            return offset, _HOLD
        if self._phase is _Phase.GRASP:
            self._waited += 1
            return np.zeros(3), _CLOSE
        return None

    def _holds(self, position: NDArray[np.float64]) -> bool:
        closed = self._env.gripper > GRIPPER_CLOSED / 2
        return bool(closed and np.linalg.norm(self._env.tcp_pos - position) < _IN_HAND)


class PickCubeExpert(Expert):
    """Lifts the cube; about 18 steps from a random start."""

    env_class = PandaPickCubeEnv

    @property
    def holding(self) -> bool:
        return self._holds(self._env.block_pos)

    @property
    def progress(self) -> float:
        """Cube height minus distance from TCP to cube."""
        cube = self._env.block_pos
        return float(cube[2] - np.linalg.norm(self._env.tcp_pos - cube))

    def _move(self) -> _Move:
        return self._take(self._env.block_pos - self._env.tcp_pos) or (_up(self._step_size), _HOLD)


class ArrangeBoxesExpert(Expert):
    """Carries box after box to its plate, the nearest first; about 240 steps."""

    env_class = PandaArrangeBoxesEnv

    def reset(self) -> None:
        super().reset()
        self._box: int | None = None  # chosen when it acts

    def look(self) -> None:
        super().look()
        if self._phase is _Phase.LIFT:
            self._box = self._nearest(range(BOXES))

    def get_state(self) -> tuple[Any, ...]:
        return *super().get_state(), self._box

    def set_state(self, state: tuple[Any, ...]) -> None:
        super().set_state(state[:2])
        self._box = state[2]

    @property
    def holding(self) -> bool:
        return any(map(self._holds, self._env.box_pos))

    @property
    def progress(self) -> float:
        """Boxes in place, a metre each, minus the others' ways to their plates and the way to the nearest."""
        left = self._unplaced()
        if not left:
            return float(BOXES)
        reach = np.linalg.norm(self._env.box_pos[left] - self._env.tcp_pos, axis=1).min()
        return float(BOXES - len(left) - self._distances()[left].sum() - reach)

    def _move(self) -> _Move:
        if self._box is None:
            left = self._unplaced()
            if not left:
                return np.zeros(3), _HOLD
            self._box = self._nearest(left)
        box = self._env.box_pos[self._box]
        return self._take(box - self._env.tcp_pos) or self._place(self._env.target_pos[self._box] - box)

    def _place(self, offset: NDArray[np.float64]) -> _Move:
        """Up, over the plate, down, open, up. offset: (3,) from the box to its plate [m]."""
        height, over = -offset[2], _across(offset) < _NEAR
        if self._phase is _Phase.LIFT and height > _CLEAR:
            self._phase = _Phase.CARRY
        if self._phase is _Phase.CARRY and over:
            self._phase = _Phase.LOWER
        if self._phase is _Phase.LOWER and height < _LET_GO and over:
            self._phase, self._waited = _Phase.RELEASE, 0
        if self._phase is _Phase.RELEASE and self._waited >= _FINGER_STEPS:
            self._phase = _Phase.RISE
        if self._phase is _Phase.RISE and self._env.tcp_pos[2] > _CLEAR:
            self.reset()
            return self._move()
        if self._phase is _Phase.CARRY:
            return offset + _up(_CLEAR + _NEAR), _HOLD
        if self._phase is _Phase.LOWER:
            return np.array([*offset[:2], -self._step_size]), _HOLD
        if self._phase is _Phase.RELEASE:
            self._waited += 1
            return np.zeros(3), _OPEN
        return _up(self._step_size), _HOLD

    def _unplaced(self) -> list[int]:
        return [int(i) for i in np.flatnonzero(self._distances() >= SUCCESS_DISTANCE)]

    def _distances(self) -> NDArray[np.float64]:
        """(5,) from each box to its plate [m]."""
        return np.asarray(np.linalg.norm(self._env.box_pos - self._env.target_pos, axis=1))

    def _nearest(self, boxes: range | list[int]) -> int:
        return min(boxes, key=lambda i: float(np.linalg.norm(self._env.box_pos[i] - self._env.tcp_pos)))


def make_expert(
    env: gymnasium.Env[Any, Any],
    noise: float = 0.0,
    rng: np.random.Generator | None = None,
    step_size: float = 0.025,
) -> Expert:
    """The expert for this env's task; arguments are its own. Raises TypeError where there is none."""
    for kind in (PickCubeExpert, ArrangeBoxesExpert):
        if isinstance(env.unwrapped, kind.env_class):
            return kind(env, noise, rng, step_size)
    raise TypeError(f"No expert knows the task of {type(env.unwrapped).__name__}.")


def _up(height: float) -> NDArray[np.float64]:
    return np.array([0.0, 0.0, height])


def _across(offset: NDArray[np.float64]) -> float:
    """Distance [m] seen from above."""
    return float(np.hypot(offset[0], offset[1]))
