"""From a file's rows to the environment's terms, once `alignment` has decided how to read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hil_rllib import contract
from hil_rllib.data import lerobot_format as fmt
from hil_rllib.data.demo import Demo, Floats, Recording, end_flags
from hil_rllib.data.evidence import GripperConvention
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.data.lerobot_reader import Episode

GRIPPER = contract.AGENT_POS["gripper"].start

Note = Callable[[str], None]  # takes a sentence for the report


@dataclass(frozen=True)
class Reading:
    """How to read a dataset's rows. metres_per_unit: what 1 in the motion columns stands for [m]."""

    shifted: bool
    metres_per_unit: float
    gripper: GripperConvention


def to_recording(episode: Episode, reading: Reading, step_size: float, note: Note) -> Recording:
    """All rows on the environment's time axis. step_size: [m] at motion 1 in the environment."""
    state = np.asarray(episode.column(fmt.STATE), np.float32)
    raw = np.asarray(episode.column(fmt.ACTION), np.float64)
    index, n = episode.meta.index, len(raw)
    motion = raw[:, : contract.MOTION_DIM] * (reading.metres_per_unit / step_size)
    outside = int(np.any(np.abs(motion) > 1 + 1e-6, axis=1).sum())
    if outside:
        note(f"episode {index}: motion of {outside} rows clipped to [-1, 1]")
    delta = reading.gripper.delta(raw[:, contract.MOTION_DIM])
    actions = np.column_stack([np.clip(motion, -1, 1), 1 + delta]).astype(np.float32)

    known = slice(1, n + 1) if reading.shifted else slice(0, n)
    block = episode.columns.get(fmt.ENVIRONMENT_STATE)
    penalties = _optional(episode, fmt.PENALTY, 0.0, note)
    terminated, success = _end(episode, note)
    start, dropped = float(state[0, GRIPPER]), None
    if reading.shifted:
        start = _start_gripper(start, float(delta[0]), float(penalties[0]), fmt.PENALTY in episode.columns)
    elif episode.meta.dropped is not None:
        start = episode.meta.dropped.gripper
        dropped = np.array(episode.meta.dropped.action, np.float32)
        dropped[: contract.MOTION_DIM] *= contract.EE_STEP_SIZE / step_size
    return Recording(
        episode_index=index,
        actions=actions,
        agent_pos=_placed(state, known),
        environment_state=None if block is None or block.shape != (n, 3) else _placed(block, known),
        rewards=np.asarray(episode.column(fmt.REWARD), np.float32),
        penalties=penalties,
        interventions=_optional(episode, fmt.INTERVENTION, 1.0, note),
        terminated=terminated,
        start_gripper=start,
        success=success,
        dropped_action=dropped,
    )


def to_demo(recording: Recording, episode: Episode, shifted: bool) -> Demo:
    """The transitions whose observations the file holds.

    Shifted files lack the reset observation: the first action is left out. The others lack the final one: it
    repeats the last where the episode terminated (learning masks it), else the last transition is left out.
    """
    n = len(recording)
    # rows: the file's rows that serve as observations; actions: those between them.
    if shifted:
        rows, actions = np.arange(n), slice(1, n)
    elif recording.terminated:
        rows, actions = np.append(np.arange(n), n - 1), slice(0, n)
    else:
        rows, actions = np.arange(n), slice(0, n - 1)
    known = slice(1, n + 1) if shifted else slice(0, n)
    block = recording.environment_state
    terminated, truncated = end_flags(len(rows) - 1, recording.terminated)
    return Demo(
        episode_index=recording.episode_index,
        agent_pos=recording.agent_pos[known][rows],
        environment_state=None if block is None else block[known][rows],
        frames={camera: frames[rows] for camera, frames in episode.frames.items()} or None,
        actions=recording.actions[actions],
        rewards=recording.rewards[actions],
        penalties=recording.penalties[actions],
        interventions=recording.interventions[actions],
        terminated=terminated,
        truncated=truncated,
        recording=recording,
        end_seen=shifted or not recording.terminated,
    )


def _placed(rows: Floats, known: slice) -> Floats:
    """(N, d) → (N+1, d) with NaN in the row the file lacks."""
    placed = np.full((len(rows) + 1, rows.shape[1]), np.nan, np.float32)
    placed[known] = rows
    return placed


def _start_gripper(after: float, delta: float, penalty: float, has_penalty: bool) -> float:
    """The actuator command before the first action, from the one after it (shifted files).

    A full close (open) command leads to 255 (0) from anywhere. The environment fines such a command exactly
    where the hand was open (closed) before, so the fine tells; without that column the hand is taken to start
    open, as the environment resets it.
    """
    if abs(delta) < 0.5:
        return float(np.clip(after - delta * contract.GRIPPER_CLOSED, 0.0, contract.GRIPPER_CLOSED))
    if not has_penalty:
        return 0.0
    was_opposite = penalty < 0
    return contract.GRIPPER_CLOSED if (delta > 0) != was_opposite else 0.0


def _end(episode: Episode, note: Note) -> tuple[bool, bool | None]:
    """(terminated, success) of the episode's last row.

    next.done mixes termination with the time limit in datasets without next.truncated. There a final reward
    counts as termination and anything else as truncation, which learning treats with more care.
    """
    columns = episode.columns
    rewarded = bool(episode.column(fmt.REWARD)[-1] > 0)
    done = np.asarray(columns.get(fmt.DONE, np.zeros(len(episode))), bool)
    if done[:-1].any():
        raise DatasetError(
            episode.meta.data_path,
            f"next.done is set in row {int(np.argmax(done))} of {len(done)} in episode {episode.meta.index}.",
            "Split the dataset into one episode per execution of the task.",
        )
    success = bool(columns[fmt.SUCCESS][-1]) if fmt.SUCCESS in columns else (True if rewarded else None)
    if fmt.TRUNCATED in columns:
        return bool(done[-1] and not columns[fmt.TRUNCATED][-1]), success
    terminated = bool(done[-1] and (rewarded or success))
    if done[-1] and not terminated:
        note(f"episode {episode.meta.index}: done without reward, taken for the time limit")
    return terminated, success


def _optional(episode: Episode, key: str, default: float, note: Note) -> Floats:
    if key in episode.columns:
        return np.asarray(episode.columns[key], np.float32)
    note(f"no column {key}: {default:g} everywhere")
    return np.full(len(episode), default, np.float32)
