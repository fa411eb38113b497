"""How long the learner stands still for a checkpoint, and how long a run takes to come back, with full rings.

    python tests/bench/bench_checkpoint.py [--steps 50000] [--dir /a/disk]

Builds the algorithm of panda_sac.yaml in this process, stores `--steps` steps of two cameras' features (33 kB
each) as fragments, then learns, stores ten steps a second and saves now and then, as Tune does: into a folder
that is then copied. Target: the learner stalls ≤ 200 ms.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import ray
from ray.rllib.core import DEFAULT_MODULE_ID
from synthetic import build, observations, transitions

from hil_rllib.data.experience import Experience
from hil_rllib.data.replay import Fragment, Ring
from hil_rllib.logs import quiet
from hil_rllib.sac.algorithm import HILSAC

STALL_MS = 200.0  # target
FRAGMENT = 5  # steps, as `runners.fragment`


def store(algorithm: HILSAC, steps: int, episode: str) -> None:
    """An episode of so many steps, fragment by fragment, the way `training_step` stores them."""
    space, _ = algorithm.spaces[DEFAULT_MODULE_ID]
    rng = np.random.default_rng(0)
    for first in range(0, steps, FRAGMENT):
        obs, columns = observations(space, FRAGMENT + 1, rng), transitions(FRAGMENT, rng)
        algorithm.experience.add(Fragment(episode, first, obs, columns), {})


def saves(algorithm: HILSAC, folder: Path, count: int, new_steps: int) -> list[float]:
    """[ms] of each of `count` saves with its copy, `new_steps` stored and some updates made between them."""
    times = []
    for number in range(count):
        for part in range(new_steps // 10):  # ten steps, then a second's worth of updates
            store(algorithm, 10, f"between {number} {part}")
            for _ in range(5):
                algorithm._learn(2)
        began = time.perf_counter()
        written = algorithm.save_to_path(folder / f"temporary_{number}")
        shutil.copytree(written, folder / "trial" / f"checkpoint_{number:06d}")
        shutil.rmtree(written)
        times.append(1000 * (time.perf_counter() - began))
    return times


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--dir", help="where the run is written; default: the temporary folder")
    args = parser.parse_args()
    quiet()
    folder = Path(tempfile.mkdtemp(prefix="hil_checkpoint_", dir=args.dir))
    print("| steps stored | first save [ms] | median of the next [ms] | worst [ms] | back in memory [s] |")
    print("|---|---|---|---|---|")
    algorithm = build("panda_sac.yaml", steps=0, overrides=[f"run.dir={folder}"])
    worst = 0.0
    for steps in (args.steps // 10, args.steps):
        began = time.perf_counter()
        for part in range((steps - algorithm.env_steps) // 100):
            store(algorithm, 100, f"{steps} {part}")
            if part % 20 == 0:  # what waits to be written is kept in memory
                algorithm.experience.cursor()
        filled_s = time.perf_counter() - began
        times = saves(algorithm, folder / f"{steps}", 1 + args.saves, new_steps=50)
        again_s = recovered_s(algorithm, folder)
        worst = max(worst, *times[1:])
        cells = [times[0], statistics.median(times[1:]), max(times[1:])]
        print(f"| {steps} | {' | '.join(f'{cell:.0f}' for cell in cells)} | {again_s:.1f} |")
        print(f"stored at {steps / filled_s:.0f} steps/s", file=sys.stderr)
    algorithm.stop()
    ray.shutdown()
    shutil.rmtree(folder)
    return 0 if worst <= STALL_MS else 1


def recovered_s(algorithm: HILSAC, folder: Path) -> float:
    """[s] to fill new rings from the journals."""
    space, _ = algorithm.spaces[DEFAULT_MODULE_ID]
    copy = folder / "copy"
    copy.mkdir()
    for file in (folder / "replay").glob("*.journal"):
        (copy / file.name).hardlink_to(file)
    sac = algorithm.hil.sac
    experience = Experience(Ring(sac.online_capacity, space), Ring(sac.demo_capacity, space), copy)
    began = time.perf_counter()
    experience.recover(exact=False)
    took = time.perf_counter() - began
    experience.close()
    shutil.rmtree(copy)
    return took


if __name__ == "__main__":
    sys.exit(main())
