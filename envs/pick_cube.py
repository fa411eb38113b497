"""Pick up the cube: it must be lifted by 0.1 m."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from envs.panda import PandaEnv

# All numbers: gym-hil 0.1.14.
CUBE_XY = (0.5, 0.0)  # [m] where the cube starts unless it is random
SAMPLING_BOX = np.array([[0.3, -0.15], [0.5, 0.15]])  # [m] random starts
LEAVING_MARGIN = 0.05  # [m] the episode ends when the cube leaves the sampling box by more
SUCCESS_LIFT = 0.1  # [m]
REACH_SHARPNESS = 20.0  # [1/m]


def reach_reward(distance: float) -> float:
    """1 with the TCP at the cube's centre, towards 0 with the distance [m]."""
    return math.exp(-REACH_SHARPNESS * distance)


def lift_reward(lift: float) -> float:
    """0 on the table, 1 from `SUCCESS_LIFT` [m] up."""
    return min(max(lift / SUCCESS_LIFT, 0.0), 1.0)


class PandaPickCubeEnv(PandaEnv):
    """Sparse reward: 1 once the cube is lifted. Dense: 0.3 reach + 0.7 lift.

    Terminates on success, or when the cube leaves the sampling box.
    """

    def __init__(
        self,
        image_obs: bool = False,
        reward_type: Literal["sparse", "dense"] = "sparse",
        random_block_position: bool = False,
        render_quality: str = "full",
        render_mode: str | None = "rgb_array",
        use_orientation: bool = False,
    ) -> None:
        if reward_type not in ("sparse", "dense"):
            raise ValueError(f"Unknown reward_type '{reward_type}'. Choose 'sparse' or 'dense'.")
        super().__init__(image_obs, render_quality, render_mode, use_orientation)
        self.reward_type, self.random_block_position = reward_type, random_block_position
        geom = self.model.geom("block").id
        self._cube = self.data.geom_xpos[geom]
        self._cube_rest_z = float(self.model.geom_size[geom, 2])
        address = self.model.joint("block").qposadr[0]
        self._cube_qpos = self.data.qpos[address : address + 3]

    @property
    def block_pos(self) -> NDArray[np.float64]:
        """(3,) the cube's centre [m, world]."""
        return self._cube.copy()

    def place_objects(self, options: dict[str, Any]) -> None:
        """options: `block_xy` (2,) [m] puts the cube there, instead of the fixed or random start."""
        xy = options.pop("block_xy", None)
        if options:
            raise ValueError(f"Unknown reset options {sorted(options)}. Choose from block_xy, gripper.")
        if xy is None:
            xy = self.np_random.uniform(*SAMPLING_BOX) if self.random_block_position else CUBE_XY
        xy = np.asarray(xy, np.float64)
        if xy.shape != (2,) or not np.isfinite(xy).all():
            raise ValueError(f"options['block_xy'] is {xy.tolist()}; it must be two finite numbers [m].")
        self._cube_qpos[:] = (*xy, self._cube_rest_z)

    def environment_state(self) -> NDArray[np.float64]:
        return self.block_pos

    def evaluate(self) -> tuple[float, bool, bool]:
        lift = float(self._cube[2]) - self._cube_rest_z
        distance = math.dist(self._cube.tolist(), self._tcp.tolist())
        if self.reward_type == "dense":
            reward = 0.3 * reach_reward(distance) + 0.7 * lift_reward(lift)
            success = lift > SUCCESS_LIFT and distance < 0.05  # [m] in the hand, not thrown up
        else:
            success = lift > SUCCESS_LIFT
            reward = float(success)
        low, high = SAMPLING_BOX[0] - LEAVING_MARGIN, SAMPLING_BOX[1] + LEAVING_MARGIN
        left = bool((self._cube[:2] < low).any() or (self._cube[:2] > high).any())
        return reward, success, success or left
