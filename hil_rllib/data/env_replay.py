"""Replays recorded actions in the environment: the same states again, and everything a file lacks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

import envs  # noqa: F401  # registers the environments
from envs.pick_cube import PandaPickCubeEnv
from hil_rllib import contract
from hil_rllib.data.demo import Floats, Recording
from hil_rllib.data.video import Frames

START_TOLERANCE_MM = 0.1  # of the first row's TCP; ours: a reset is exact
NOT_FROM_RESET = (
    "the first row is not where a reset leads, as in sets that an earlier `convert --repair` made: repair "
    "the original again"
)


@dataclass(frozen=True)
class EnvSpec:
    """A Gymnasium id and the keyword arguments to make it with."""

    id: str = "hil/PandaPickCube-v0"
    kwargs: dict[str, Any] = field(default_factory=dict)

    def make(self, **overrides: Any) -> gymnasium.Env[Any, Any]:
        return gymnasium.make(self.id, **{**self.kwargs, **overrides})

    @property
    def step_size(self) -> float:
        """Metres at motion 1."""
        return float(self.kwargs.get("ee_step_size", contract.EE_STEP_SIZE))


@dataclass
class Replay:
    """What the environment did with the first T of N recorded actions; T < N where it terminated early.

    agent_pos: (T+1, 18). environment_state: (T+1, 3). frames: camera → (T+1, H, W, 3) or None.
    rewards, penalties: (T,). terminated: whether the environment ended the episode itself.
    end_frame: the row of the action that brought success, or None.
    tcp_error_m: (T+1,) distance to the recorded TCP, NaN in the row the file lacks.
    """

    agent_pos: Floats
    environment_state: Floats
    frames: dict[str, Frames] | None
    rewards: Floats
    penalties: Floats
    terminated: bool
    end_frame: int | None
    tcp_error_m: Floats

    @property
    def tcp_error_mm_median(self) -> float:
        return float(np.nanmedian(self.tcp_error_m) * 1e3)

    @property
    def tcp_error_mm_max(self) -> float:
        return float(np.nanmax(self.tcp_error_m) * 1e3)

    @property
    def from_reset(self) -> bool:
        """False where the recording's first row is another than the reset's, or the dropped action's."""
        return not bool(self.tcp_error_m[0] * 1e3 > START_TOLERANCE_MM)  # NaN: the file lacks that row


def make_replay_env(spec: EnvSpec, recordings: list[Recording]) -> gymnasium.Env[Any, Any]:
    """State-only, cube where it is put, and no time limit before the longest recording ends.

    Raises ValueError for another task: a recording knows where one cube was.
    """
    longest = max((len(recording) + 1 for recording in recordings), default=1)  # 1: the dropped action
    kwargs = {name: value for name, value in spec.kwargs.items() if name != "random_block_position"}
    env = EnvSpec(spec.id, kwargs).make(image_obs=False, max_episode_steps=longest + 1)
    if not isinstance(env.unwrapped, PandaPickCubeEnv):
        env.close()
        raise ValueError(
            f"{spec.id} cannot replay recordings, which know the place of one cube. In a run, set "
            "demos.frames=recorded."
        )
    return env


def replay(env: gymnasium.Env[Any, Any], recording: Recording, *, render: bool = False) -> Replay:
    """Runs the recording's actions from reset in `env` (of `make_replay_env`), a dropped one first.

    The gripper starts as recorded. So does the cube where the file knows; else it stands where the
    environment puts a fixed one. render: draw all T+1 observations of both cameras.
    """
    base: Any = env.unwrapped
    observations, frames, rewards, penalties = [], [], [], []
    end_frame, terminated = None, False
    observation, _ = env.reset(options=_start(recording))
    if recording.dropped_action is not None:
        observation, *_ = env.step(recording.dropped_action)
    observations.append(observation)
    if render:
        frames.append(base.render_cameras())
    for t, action in enumerate(recording.actions):
        observation, reward, terminated, _, info = env.step(action)
        observations.append(observation)
        rewards.append(reward)
        penalties.append(info.get(contract.DISCRETE_PENALTY, 0.0))
        if render:
            frames.append(base.render_cameras())
        if info[contract.SUCCESS] and end_frame is None:
            end_frame = t
        if terminated:
            break
    agent_pos = np.stack([o["agent_pos"] for o in observations])
    tcp = agent_pos[:, contract.AGENT_POS["tcp_pos"]]
    return Replay(
        agent_pos=agent_pos,
        environment_state=np.stack([o["environment_state"] for o in observations]),
        frames={camera: np.stack([f[camera] for f in frames]) for camera in frames[0]} if frames else None,
        rewards=np.asarray(rewards, np.float32),
        penalties=np.asarray(penalties, np.float32),
        terminated=terminated,
        end_frame=end_frame,
        tcp_error_m=np.linalg.norm(tcp - recording.tcp_pos[: len(tcp)], axis=1),
    )


def _start(recording: Recording) -> dict[str, Any]:
    options: dict[str, Any] = {"gripper": recording.start_gripper}
    block = recording.environment_state
    if block is not None and np.isfinite(block[0]).all():
        options["block_xy"] = block[0, :2]
    return options
