"""Arrange boxes: five of them, each onto the plate of its colour."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from envs.panda import PandaEnv

# All numbers: gym-hil 0.1.14; those of boxes and targets stand in its arrange_boxes_scene.xml.
BOXES = 5
START_X = 0.3  # [m]
START_Y = np.linspace(-0.3, 0.3, BOXES)  # [m] one box at each, in random order
SUCCESS_DISTANCE = 0.03  # [m] between centres; box on plate: 0.02 of it is height
SHARPNESS = 20.0  # [1/m]
BOX1_AREA = np.array([[-0.05, -0.5], [0.85, 0.5]])  # [m] the episode ends when box 1 leaves it


def place_reward(distance: float) -> float:
    """1 with a box's centre in its target's, towards 0 with the distance [m]; 0.67 at rest on its middle."""
    return math.exp(-SHARPNESS * distance)


class PandaArrangeBoxesEnv(PandaEnv):
    """Sparse reward: 1 once every box is within `SUCCESS_DISTANCE` of its target. Dense: Σ `place_reward`.

    Terminates on success, or when box 1 (of the others gym-hil takes no notice) leaves its area.
    """

    scene_file = "arrange_boxes_scene.xml"
    home = np.array([0, -0.785, 0, -2.35, 0, 1.57, math.pi / 4])  # [rad]
    workspace = np.array([[0.2, -0.5, 0.0], [0.6, 0.5, 0.5]])  # [m]

    def __init__(
        self,
        image_obs: bool = False,
        reward_type: Literal["sparse", "dense"] = "sparse",
        full_state: bool = False,
        render_quality: str = "full",
        render_mode: str | None = "rgb_array",
        use_orientation: bool = False,
    ) -> None:
        """full_state: `environment_state` holds all boxes, then all targets (30,), not only box 1 (3,)."""
        if reward_type not in ("sparse", "dense"):
            raise ValueError(f"Unknown reward_type '{reward_type}'. Choose 'sparse' or 'dense'.")
        if full_state and image_obs:
            raise ValueError(
                "full_state widens 'environment_state', which observations with images do not have. "
                "Choose full_state=True or image_obs=True."
            )
        size = 2 * BOXES * 3 if full_state else 3
        super().__init__(image_obs, render_quality, render_mode, use_orientation, environment_size=size)
        self.reward_type, self.full_state = reward_type, full_state
        numbers = range(1, BOXES + 1)
        self._box_geoms = [self.model.geom(f"block{i}").id for i in numbers]
        self._target_geoms = [self.model.geom(f"target{i}").id for i in numbers]
        self._box_qpos = [self.model.joint(f"block{i}").qposadr[0] for i in numbers]
        self._box_rest_z = float(self.model.geom_size[self._box_geoms[0], 2])

    @property
    def box_pos(self) -> NDArray[np.float64]:
        """(5, 3) the boxes' centres [m, world]."""
        return self.data.geom_xpos[self._box_geoms]

    @property
    def target_pos(self) -> NDArray[np.float64]:
        """(5, 3) the centres of the plates [m, world]; they never move."""
        return self.data.geom_xpos[self._target_geoms]

    def place_objects(self, options: dict[str, Any]) -> None:
        """options: `block_xy` (5, 2) [m] puts the boxes there, instead of in a row in random order."""
        xy = options.pop("block_xy", None)
        if options:
            raise ValueError(f"Unknown reset options {sorted(options)}. Choose from block_xy, gripper.")
        if xy is None:
            xy = np.stack([np.full(BOXES, START_X), self.np_random.permutation(START_Y)], axis=1)
        xy = np.asarray(xy, np.float64)
        if xy.shape != (BOXES, 2) or not np.isfinite(xy).all():
            raise ValueError(
                f"options['block_xy'] is {xy.tolist()}; it must be {BOXES} pairs of finite numbers [m], "
                "one for each box."
            )
        for address, (x, y) in zip(self._box_qpos, xy, strict=True):
            self.data.qpos[address : address + 3] = (x, y, self._box_rest_z)

    def environment_state(self) -> NDArray[np.float64]:
        if self.full_state:
            return np.concatenate([self.box_pos, self.target_pos]).ravel()
        return self.data.geom_xpos[self._box_geoms[0]].copy()

    def evaluate(self) -> tuple[float, bool, bool]:
        boxes = self.box_pos
        distances = [math.dist(box, target) for box, target in zip(boxes, self.target_pos, strict=True)]
        success = max(distances) < SUCCESS_DISTANCE
        if self.reward_type == "dense":
            reward = sum(place_reward(distance) for distance in distances)
        else:
            reward = float(success)
        low, high = BOX1_AREA
        left = bool((boxes[0, :2] < low).any() or (boxes[0, :2] > high).any())
        return reward, success, success or left
