"""How much rendered frames look like the recorded videos, at the same simulated states.

    python tests/bench/bench_frames.py ../shared/data/franka_sim_pick_lift_6

Replays the dataset's actions, draws every n-th state at each render quality, and prints the mean SSIM against
the video frame recorded there. Reads a LeRobot v2.1 folder whose rows hold (o_{t+1}, a_t), motion in metres.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import av
import gymnasium
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

import envs  # noqa: F401  # registers the environments
from envs.scene import QUALITIES
from envs.wrappers import EE_STEP_SIZE

TARGETS = {"front": 0.93, "wrist": 0.82}  # for `full`


Frames = dict[str, NDArray[np.uint8]]


def recorded_states(dataset: Path, every: int) -> Iterator[tuple[NDArray[np.float64], Frames]]:
    """(snapshot of the environment, camera -> recorded frame) for every n-th frame of all episodes."""
    env = gymnasium.make("hil/PandaPickCube-v0")
    for path in sorted(dataset.glob("data/chunk-*/episode_*.parquet")):
        actions = np.array(pq.read_table(path)["action"].to_pylist(), np.float64)
        actions[:, :3] /= EE_STEP_SIZE
        folder = dataset / "videos" / path.parent.name
        videos = {
            camera: read_video(folder / f"observation.images.{camera}" / f"{path.stem}.mp4")
            for camera in TARGETS
        }
        env.reset()
        for t, action in enumerate(actions):
            env.step(action)
            if t % every == 0:
                yield env.unwrapped.get_state(), {camera: frames[t] for camera, frames in videos.items()}
    env.close()


def read_video(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def similarity(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(structural_similarity(a, b, channel_axis=2, data_range=255))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--every", type=int, default=3, help="use each n-th frame")
    args = parser.parse_args()
    recorded = list(recorded_states(args.dataset, args.every))
    if not recorded:
        raise SystemExit(f"No data/chunk-*/episode_*.parquet in {args.dataset}; give a LeRobot v2.1 folder.")
    print(f"{len(recorded)} frames; mean SSIM against the recorded video")
    print(f"{'quality':8} {'front':>7} {'wrist':>7}")
    for quality in QUALITIES:
        env = gymnasium.make("hil/PandaPickCube-v0", render_quality=quality)
        scores: dict[str, list[float]] = {camera: [] for camera in TARGETS}
        for state, frames in recorded:
            env.unwrapped.set_state(state)
            for camera, image in env.unwrapped.render_cameras().items():
                scores[camera].append(similarity(image, frames[camera]))
        print(f"{quality:8} {np.mean(scores['front']):7.3f} {np.mean(scores['wrist']):7.3f}")
        env.close()
    print("target   " + "   ".join(f">= {target}" for target in TARGETS.values()) + "  for full")


if __name__ == "__main__":
    main()
