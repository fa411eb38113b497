"""Names, shapes and units that every part of the project agrees on.

Observation (one control step, Gymnasium `Dict`):
    agent_pos          float32 (18,)  see `AGENT_POS`
    environment_state  float32 (3,)   cube position [m], only without images
    pixels.<camera>    uint8 (128, 128, 3), only with images, cameras as in `CAMERAS`

Action, 4-D, as the environment takes it: motion in [-1, 1] per axis (1 is one `ee_step_size`,
0.025 m, along +x, +y, +z of the world), then the gripper in [0, 2]: 0 opens, 1 holds, 2 closes.
The policy's own ("module") space is [-1, 1] in all four; there the gripper is its value minus one.

Source of layout and numbers: gym-hil 0.1.14, so that its datasets fit.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CAMERAS = ("front", "wrist")
IMAGE_SIZE = 128

# agent_pos, float32[18]: where each part sits and its unit.
AGENT_POS = {
    "joint_pos": slice(0, 7),  # [rad]
    "joint_vel": slice(7, 14),  # [rad/s]
    "gripper": slice(14, 15),  # actuator command, 0 = open … 255 = closed
    "tcp_pos": slice(15, 18),  # [m], world frame
}
AGENT_POS_DIM = 18
GRIPPER_CLOSED = 255.0

MOTION_DIM = 3
ACTION_DIM = 4
EE_STEP_SIZE = 0.025  # [m] per axis and step at motion ±1
CONTROL_DT = 0.1  # [s]

# Columns that travel with every step of an episode, beside RLlib's own.
IS_INTERVENTION = "is_intervention"  # 1.0 where a person's action was executed, else 0.0
DISCRETE_PENALTY = "discrete_penalty"  # ≤ 0, cost of a pointless gripper command; in `info`
SUCCESS = "succeed"  # in `info`: the task is solved at this step
HELD_COMMANDS = "held_commands"  # in `info`, only of a step whose command was not finite: the arm held still
CLASSIFIED = "classified_success"  # in `info`, where a classifier rewards: it ends the episode at this step
SUCCESS_PROBABILITY = "success_probability"  # in `info`, there too: what it makes of the frames, [0, 1]
VERDICT = "operator_verdict"  # in `info`, only where the operator ended the episode: whether as success
APPEAL = "operator_appeal"  # in `info`, only where the operator says that the last episode was no success
RERECORD = "rerecord_episode"  # in `info`: the operator threw this episode away
LABEL = "success_label"  # in `info`: the person holds "this is success" about the observation before the step


@dataclass(frozen=True)
class Task:
    """What is done, in words, and the steps that nearly everybody has done it in."""

    words: str
    steps: int


TASKS = {
    "hil/PandaPickCube-v0": Task("Pick up the cube", 100),
    "hil/PandaArrangeBoxes-v0": Task("Arrange the boxes", 600),
}


class Gripper(enum.IntEnum):
    """Gripper command; the value is the fourth action entry and the gripper head's class index."""

    OPEN = 0
    HOLD = 1
    CLOSE = 2


class EpisodeEnd(enum.Enum):
    """What the operator says of the running episode."""

    NONE = "none"
    SUCCESS = "success"
    FAILURE = "failure"
    RERECORD = "rerecord"


@dataclass(frozen=True)
class Command:
    """One reading of an input device.

    motion: (3,) in [-1, 1], the fraction of `EE_STEP_SIZE` along world x, y, z. label: the person says that
    what is to be seen now is success.
    """

    motion: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gripper: Gripper = Gripper.HOLD
    intervening: bool = False
    end: EpisodeEnd = EpisodeEnd.NONE
    label: bool = False

    def module_action(self) -> NDArray[np.float32]:
        """The command as an action (4,) in module space [-1, 1]; not clipped, may hold NaN."""
        return np.array([*self.motion, float(self.gripper) - 1.0], np.float32)


IDLE = Command()


def env_action(module_action: NDArray[np.float32]) -> NDArray[np.float32]:
    """Module-space action (4,) → the environment's: motion as it is, gripper from [-1, 1] to [0, 2]."""
    action = np.array(module_action, np.float32)
    action[MOTION_DIM] += 1.0
    return action
