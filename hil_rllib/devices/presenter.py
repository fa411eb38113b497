"""A synthetic human who shows what success looks like, and what merely resembles it, and says which is which.

For `record --label --device scripted`: a classifier of success learns most from what lies just beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from hil_rllib.contract import EE_STEP_SIZE, Command, EpisodeEnd, Gripper
from hil_rllib.devices.base import TeleopDevice

ABOVE = np.array([0.0, 0.0, 0.06])  # [m] over the cube before going down; as the expert's
ARRIVED_M = 0.006  # [m]
PATIENCE = 20  # steps for one move
GRASP_STEPS = 3  # until the fingers hold

# What varies from episode to episode; all ours.
EMPTY_HAND = 0.3  # share of episodes that grasp beside or over the cube, and go on as if it were in the hand
BESIDE_M = (0.03, 0.06)  # [m] from the cube's centre, of half-size 0.02
OVER_M = (0.046, 0.08)
BY_THE_RIM = 0.5  # share of the others that take the cube anywhere from its middle to its upper rim
RIM_M = 0.042  # [m] of the hand over the cube's centre: higher up the fingers close over it
DROP = 0.4  # share that let the cube fall at last
STOPS = (3, 6)  # places the hand is brought to
HEIGHT_M, HEIGHT_NEAR_M = (
    (0.0, 0.25),
    (0.05, 0.15),
)  # [m] of a stop; half of them near the goal's
ASIDE_M = 0.08  # [m] of a stop from where the cube was, at most
SPEED = (0.4, 1.0)  # share of full motion


@dataclass
class _Move:
    """Towards `target` (3,) [m], or where that is None the gripper's command for `steps`."""

    target: NDArray[np.float64] | None
    gripper: Gripper = Gripper.HOLD
    steps: int = PATIENCE


class ScriptedPresenter(TeleopDevice):
    """Picks the cube up, or pretends to, carries it about around the goal's height, perhaps drops it.

    It labels by the simulator's own word on the state it sees, and ends the episode when it has shown all.

    noise: standard deviation of each motion entry, in units of full deflection.
    """

    realtime: ClassVar[bool] = False

    def __init__(self, *, noise: float = 0.1, seed: int = 0) -> None:
        self._noise = noise
        self._rng = np.random.default_rng(seed)
        self._scene: Any = None
        self._plan: list[_Move] = []

    def start(self, env: gymnasium.Env) -> None:
        """Watch `env`, a pick-cube env (wrapped or not)."""
        self._scene = env.unwrapped
        if not hasattr(self._scene, "block_pos"):
            raise TypeError(f"ScriptedPresenter shows how to pick up a cube; {env} has none.")

    def reset(self) -> None:
        """An episode begins, its plan is made at the first look."""
        self._plan, self._begun = [], False

    def read(self) -> Command:
        """The command for this control step."""
        if not self._begun:
            self._plan, self._begun = self._make_plan(), True
            self._speed = self._rng.uniform(*SPEED)
        label = bool(self._scene.evaluate()[1])
        while self._plan and self._done(self._plan[0]):
            self._plan.pop(0)
        if not self._plan:
            return Command(
                intervening=True, end=EpisodeEnd.SUCCESS if label else EpisodeEnd.FAILURE, label=label
            )
        move = self._plan[0]
        move.steps -= 1
        motion = self._rng.normal(0.0, self._noise, 3)
        if move.target is not None:
            wish = (move.target - self._scene.tcp_pos) / EE_STEP_SIZE
            motion += wish * min(1.0, self._speed / max(1e-9, float(np.abs(wish).max())))
        x, y, z = np.clip(motion, -1.0, 1.0).tolist()
        return Command((x, y, z), move.gripper, intervening=True, label=label)

    def close(self) -> None:
        """Look away."""
        self._scene = None

    def _done(self, move: _Move) -> bool:
        arrived = move.target is not None and np.linalg.norm(move.target - self._scene.tcp_pos) < ARRIVED_M
        return bool(arrived) or move.steps <= 0

    def _make_plan(self) -> list[_Move]:
        rng, cube = self._rng, self._scene.block_pos
        grasp = cube + self._beside_its_centre()
        plan = [
            _Move(grasp + ABOVE, Gripper.OPEN),
            _Move(grasp),
            _Move(None, Gripper.CLOSE, GRASP_STEPS),
        ]
        for _ in range(int(rng.integers(*STOPS))):
            height = rng.uniform(*(HEIGHT_NEAR_M if rng.random() < 0.5 else HEIGHT_M))
            aside = rng.uniform(-ASIDE_M, ASIDE_M, 2)
            plan.append(_Move(np.array([*(cube[:2] + aside), grasp[2] + height])))
        if rng.random() < DROP:
            plan += [_Move(None, Gripper.OPEN, GRASP_STEPS), _Move(None, Gripper.HOLD, GRASP_STEPS)]
        return plan

    def _beside_its_centre(self) -> NDArray[np.float64]:
        """Where the hand closes, (3,) [m] from the cube's centre: at it, up to its rim, or past it."""
        rng = self._rng
        if rng.random() < EMPTY_HAND:
            if rng.random() < 0.5:
                return np.array([0.0, 0.0, rng.uniform(*OVER_M)])
            angle = rng.uniform(0.0, 2.0 * np.pi)
            return rng.uniform(*BESIDE_M) * np.array([np.cos(angle), np.sin(angle), 0.0])
        return np.array([0.0, 0.0, rng.uniform(0.0, RIM_M) if rng.random() < BY_THE_RIM else 0.0])
