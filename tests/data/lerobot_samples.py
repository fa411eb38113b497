"""Small made-up datasets: a hand that follows commands as the Panda does, stored in any convention."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hil_rllib.data import video
from hil_rllib.data.evidence import GripperConvention
from hil_rllib.data.lerobot_reader import Episode, EpisodeMeta

STEP = 0.025  # [m] at motion 1
RESPONSE = (
    0.49,
    0.28,
    0.11,
    0.06,
    0.04,
    0.02,
)  # of the TCP to a command, per step; as fitted to the real set


def env_episode(rng: np.random.Generator, steps: int = 30) -> tuple[NDArray[Any], NDArray[Any]]:
    """(states (steps + 1, 18), actions (steps, 4)) in env terms, with lag and 0.1 mm of noise on the TCP."""
    actions = np.ones((steps, 4))
    actions[:, :3] = np.repeat(rng.uniform(-0.8, 0.8, (steps // 3 + 1, 3)), 3, axis=0)[:steps]
    actions[:, 3] = np.repeat(rng.choice([0, 1, 1, 2], steps // 3 + 1), 3)[:steps]
    actions[steps // 2 : steps // 2 + 2, 3] = 2  # at least one grasp
    actions[: steps // 4, 3] = 1
    states = np.zeros((steps + 1, 18))
    states[:, :14] = rng.normal(size=14)
    moved = np.stack([np.convolve(actions[:, axis] * STEP, RESPONSE)[:steps] for axis in range(3)], axis=1)
    states[:, 15:18] = (0.4, 0.0, 0.2)
    states[1:, 15:18] += np.cumsum(moved, axis=0)
    states[:, 15:18] += rng.normal(0, 1e-4, (steps + 1, 3))
    for t in range(steps):
        states[t + 1, 14] = np.clip(states[t, 14] / 255 + actions[t, 3] - 1, 0, 1) * 255
    return states, actions


def encode(
    states: NDArray[Any], actions: NDArray[Any], shifted: bool, metres: bool, gripper: GripperConvention
) -> tuple[NDArray[Any], NDArray[Any]]:
    """What a recorder of that convention would have written: (N, 18) and (N, 4) float32."""
    written = actions.copy()
    if metres:
        written[:, :3] *= STEP
    written[:, 3] = gripper.hold + gripper.sign * (actions[:, 3] - 1)
    return states[1:].astype(np.float32) if shifted else states[:-1].astype(np.float32), written.astype(
        np.float32
    )


def in_memory(index: int, states: NDArray[Any], actions: NDArray[Any]) -> Episode:
    rewards = np.zeros(len(actions), np.float32)
    rewards[-1] = 1
    columns = {
        "observation.state": states,
        "action": actions,
        "next.reward": rewards,
        "next.done": rewards > 0,
    }
    return Episode(EpisodeMeta(index, len(actions), Path("memory"), {}), columns)


def write_v21(root: Path, episodes: int = 2, steps: int = 24, size: int = 128) -> Path:
    """A v2.1 dataset of `episodes`, shifted and in metres as the real set is, with two cameras."""
    rng = np.random.default_rng(0)
    convention = GripperConvention("0/1/2", hold=1, sign=1)
    lengths, cameras = [], ("front", "wrist")
    for index in range(episodes):
        states, actions = encode(*env_episode(rng, steps), True, True, convention)
        n = len(actions)
        ends = np.arange(n) == n - 1
        table = pa.table(
            {
                "observation.state": _lists(states),
                "action": _lists(actions),
                "next.reward": pa.array(ends.astype(np.float32)),
                "next.done": pa.array(ends),
                "complementary_info.discrete_penalty": pa.array(np.zeros(n, np.float32)),
                "episode_index": pa.array(np.full(n, index)),
                "frame_index": pa.array(np.arange(n)),
                "task_index": pa.array(np.zeros(n, np.int64)),
            }
        )
        path = root / f"data/chunk-000/episode_{index:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        for camera in cameras:
            path = root / f"videos/chunk-000/observation.images.{camera}/episode_{index:06d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            video.encode(path, smooth_frames(rng, n, size), fps=10)
        lengths.append(n)
    image = {"dtype": "video", "shape": [3, size, size], "names": ["channels", "height", "width"]}
    features = {
        "observation.state": {"dtype": "float32", "shape": [18], "names": None},
        "action": {"dtype": "float32", "shape": [4], "names": None},
        "next.reward": {"dtype": "float32", "shape": [1], "names": None},
        "next.done": {"dtype": "bool", "shape": [1], "names": None},
        "complementary_info.discrete_penalty": {"dtype": "float32", "shape": [1], "names": None},
        **{f"observation.images.{camera}": image for camera in cameras},
        "episode_index": {"dtype": "int64", "shape": [1], "names": None},
        "task_index": {"dtype": "int64", "shape": [1], "names": None},
    }
    info = {
        "codebase_version": "v2.1",
        "total_episodes": episodes,
        "total_frames": sum(lengths),
        "chunks_size": 1000,
        "fps": 10,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
    }
    (root / "meta").mkdir()
    (root / "meta/info.json").write_text(json.dumps(info))
    lines = (json.dumps({"episode_index": i, "tasks": ["pick"], "length": n}) for i, n in enumerate(lengths))
    (root / "meta/episodes.jsonl").write_text("\n".join(lines))
    (root / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "pick"}))
    return root


def smooth_frames(rng: np.random.Generator, count: int, size: int = 128) -> NDArray[np.uint8]:
    """(count, size, size, 3): a coloured square that wanders over a gradient."""
    ramp, side = np.linspace(30, 220, size), size * 3 // 16
    frames = np.empty((count, size, size, 3), np.uint8)
    frames[:] = np.stack(
        [np.tile(ramp, (size, 1)), np.tile(ramp[:, None], (1, size)), np.full((size, size), 90)], -1
    )
    for t, (x, y) in enumerate(rng.integers(0, size - side, (count, 2))):
        frames[t, y : y + side, x : x + side] = (180, 60, 60)
    return frames


def _lists(rows: NDArray[Any]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
