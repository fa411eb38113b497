"""How fast demonstrations are read, and in how much memory.

    python tests/bench/bench_reader.py ../shared/data/franka_sim_pick_lift_6 [--lerobot PYTHON]

1. Transitions a second with both cameras decoded, against iterating `LeRobotDataset` over the same data,
   where PYTHON has the `lerobot` package; tests/bench/lerobot_check.py says how to make one.
   LeRobot reads v3.0, so that side reads our conversion of the dataset, whose videos are the same files.
2. Peak memory while 200 synthetic episodes of 100 frames with two cameras are read, beyond what is returned:
   one episode at a time, and all of them as `align` gives them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hil_rllib import contract
from hil_rllib.data.alignment import align
from hil_rllib.data.lerobot_copy import Source, copy_datasets
from hil_rllib.data.lerobot_reader import open_dataset
from hil_rllib.data.lerobot_writer import LeRobotWriter

REPEATS = 3
EPISODES, STEPS = 200, 100
LIMIT_MB = 500
RATIO = 5.0


@dataclass
class Speed:
    """Transitions a second, and processor time per transition [ms] of all threads; the best seen of each."""

    rate: float = 0.0
    cpu_ms: float = float("inf")

    def see(self, rate: float, cpu_ms: float) -> None:
        self.rate, self.cpu_ms = max(self.rate, rate), min(self.cpu_ms, cpu_ms)

    def __str__(self) -> str:
        return f"{self.rate:.0f} transitions/s, {self.cpu_ms:.2f} ms of processor time each"


OURS = """
import sys, time
from hil_rllib.data.lerobot_reader import open_dataset
for _ in range(2):
    began, cpu = time.perf_counter(), time.process_time()
    rows = sum(len(episode) for episode in open_dataset(sys.argv[1]).read(frames=True))
    print(rows / (time.perf_counter() - began), 1e3 * (time.process_time() - cpu) / rows)
"""

LEROBOT = """
import sys, time, torch
library = torch.library.Library("torchvision", "DEF")  # see lerobot_check.py
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from lerobot.datasets.lerobot_dataset import LeRobotDataset
for _ in range(2):
    began, cpu = time.perf_counter(), time.process_time()
    dataset = LeRobotDataset("somebody/something", root=sys.argv[1])
    rows = sum(1 for row in dataset)
    print(rows / (time.perf_counter() - began), 1e3 * (time.process_time() - cpu) / rows)
"""


def measure(speed: Speed, python: str, code: str, source: Path, **environment: str) -> None:
    command = [python, "-W", "ignore", "-c", code, str(source)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **environment}
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    for line in output.splitlines():
        speed.see(*map(float, line.split()))


def compare(source: Path, lerobot: str | None) -> None:
    """Takes turns, so that both see the same load of the machine."""
    ours, theirs = Speed(), Speed()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "set"
        copy_datasets([Source(open_dataset(str(source)))], copy)
        for _ in range(REPEATS):
            measure(ours, sys.executable, OURS, source)
            for threads in ("1", str(os.cpu_count())) if lerobot else ():
                measure(theirs, str(lerobot), LEROBOT, copy, OMP_NUM_THREADS=threads)
    print(f"both cameras decoded: {ours} (best of {2 * REPEATS}, {os.cpu_count()} cores)")
    if lerobot:
        ratio, cpu = ours.rate / theirs.rate, theirs.cpu_ms / ours.cpu_ms
        print(f"LeRobotDataset: {theirs}")
        print(f"{ratio:.1f} times the rate (aim {RATIO:g}), for 1/{cpu:.1f} of the processor time")


def write_synthetic(folder: Path) -> None:
    """Distinct noise per episode would cost minutes to code: a hand's square wanders over a gradient."""
    rng = np.random.default_rng(0)
    size = contract.IMAGE_SIZE
    ground = np.stack(np.broadcast_arrays(*np.ogrid[:size, :size], 90), -1).astype(np.uint8)
    with LeRobotWriter(folder, environment_state=False) as writer:
        for _ in range(EPISODES):
            actions = np.ones((STEPS, 4), np.float32)
            actions[:, :3] = rng.uniform(-1, 1, (STEPS // 5, 3)).repeat(5, 0)
            actions[STEPS // 2, 3] = 2
            state = np.zeros((STEPS, 18), np.float32)
            for axis in range(3):
                moved = np.convolve(actions[:, axis], [0.0125, 0.0075, 0.005])[: STEPS - 1]
                state[1:, 15 + axis] = np.cumsum(moved)
            state[STEPS // 2 + 1 :, 14] = contract.GRIPPER_CLOSED
            for t in range(STEPS):
                x, y = rng.integers(0, size - 24, 2)
                frame = ground.copy()
                frame[y : y + 24, x : x + 24] = 200
                last = t == STEPS - 1
                writer.add_step(
                    {"agent_pos": state[t], "pixels": {"front": frame, "wrist": frame[::-1]}},
                    actions[t],
                    reward=float(last),
                    terminated=last,
                    truncated=False,
                    success=last,
                )
            writer.end_episode()


def resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def beyond_returned_mb(mode: str, source: Path) -> float:
    """Peak resident memory above the start, less the arrays held by the caller at the end."""
    peak, stop = [resident_mb()], threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            peak[0] = max(peak[0], resident_mb())

    before = peak[0]
    threading.Thread(target=watch, daemon=True).start()
    dataset = open_dataset(str(source))
    returned = 0
    if mode == "stream":
        for episode in dataset.read(frames=True):
            returned = sum(frames.nbytes for frames in episode.frames.values())
    else:
        demos, _ = align(dataset, frames=True)
        returned = sum(frames.nbytes for demo in demos for frames in (demo.frames or {}).values())
    stop.set()
    return max(peak[0], resident_mb()) - before - returned / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--lerobot", metavar="PYTHON", help="an interpreter that has the lerobot package")
    parser.add_argument("--memory-only", choices=("stream", "align"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_only:  # in a process of its own: a peak cannot be unseen
        print(json.dumps(beyond_returned_mb(arguments.memory_only, arguments.dataset)))
        return

    compare(arguments.dataset, arguments.lerobot)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "set"
        write_synthetic(source)
        for mode in ("stream", "align"):
            command = [sys.executable, __file__, str(source), "--memory-only", mode]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            print(
                f"{EPISODES} x {STEPS} frames, {mode}: {float(output):.0f} MB beyond what is returned "
                f"(limit {LIMIT_MB})"
            )


if __name__ == "__main__":
    main()
