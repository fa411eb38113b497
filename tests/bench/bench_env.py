"""Environment steps per second beside gym-hil, in one run on one machine.

    python tests/bench/bench_env.py

Every environment is driven by the same random actions, in a process of its own so that no setting reaches
another. They take turns in short bursts and the best burst of each counts: what the code can do when nothing
else takes the processor. Images: two cameras of 128 x 128. `CPU ms` is processor time per step, all threads.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

FULL = {"image_obs": True, "render_quality": "full"}
FAST = {"image_obs": True, "render_quality": "fast"}
STATE = {"image_obs": False}
ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "gym-hil, images": {"image_obs": True},
    "gym-hil, state": STATE,
    "images, full": FULL,
    "images, fast": FAST,
    "state only": STATE,
}
COMPARED = (  # ours, theirs, wanted ratio
    ("images, full", "gym-hil, images", 6.0),
    ("images, fast", "gym-hil, images", 25.0),
    ("state only", "gym-hil, state", 2.5),
)


@functools.cache
def make(name: str) -> Any:
    """The environment of that name, without wrappers; made once per process."""
    import gymnasium

    import envs  # noqa: F401  # registers ours, and chooses OpenGL, which gym-hil leaves to the user

    kwargs = ENVIRONMENTS[name]
    if not name.startswith("gym-hil"):
        return gymnasium.make("hil/PandaPickCubeBase-v0", **kwargs).unwrapped
    os.environ.pop("LP_NUM_THREADS", None)  # our choice of Mesa's drawing threads is not theirs
    from gym_hil.envs import PandaPickCubeGymEnv

    env = PandaPickCubeGymEnv(**kwargs)
    env._n_substeps = 50  # as in its recordings; it rounds 0.1 / 0.002 down to 49
    return env


def burst(name: str, steps: int) -> tuple[float, float]:
    """(wall, processor) seconds per step over `steps` steps of random seven-dimensional actions."""
    env = make(name)
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-0.01, 0.01, (steps, 7))
    wall, processor = time.perf_counter(), time.process_time()
    for action in actions:
        env.step(action)
    return (time.perf_counter() - wall) / steps, (time.process_time() - processor) / steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    workers = {name: ProcessPoolExecutor(1, mp_context=spawn) for name in ENVIRONMENTS}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ENVIRONMENTS}
    for _ in range(args.rounds + 1):
        for name, worker in workers.items():
            times[name].append(worker.submit(burst, name, 3 if name == "gym-hil, images" else 20).result())
    for worker in workers.values():
        worker.shutdown()
    # The first burst loads scenes and compiles shaders.
    wall, processor = (
        {name: min(row[column] for row in rows[1:]) for name, rows in times.items()} for column in (0, 1)
    )
    print(f"{'':14} {'steps/s':>8} {'gym-hil':>8} {'ratio':>7} {'target':>7} {'CPU ms':>7} {'gym-hil':>8}")
    for ours, theirs, target in COMPARED:
        rates = (
            f"{1 / wall[ours]:8.1f} {1 / wall[theirs]:8.1f} {wall[theirs] / wall[ours]:6.1f}x {target:6.1f}x"
        )
        print(f"{ours:14} {rates} {processor[ours] * 1e3:7.1f} {processor[theirs] * 1e3:8.1f}")


if __name__ == "__main__":
    main()
