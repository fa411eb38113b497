"""Environment steps per second beside gym-hil, in one run on one machine.

    python tests/bench/bench_env.py

Both are driven by the same random actions; gym-hil in a process of its own, so that our settings do not reach
it. Counted is the best of several rounds: what the code can do when nothing else takes the processor.
Images: two cameras of 128 x 128.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np


@dataclass(frozen=True)
class Row:
    """One line of the table: our arguments, what it is compared with, and the wanted ratio."""

    name: str
    kwargs: dict[str, Any]
    baseline: str
    target: float


ROWS = (
    Row("images, full", {"image_obs": True, "render_quality": "full"}, "images", 6.0),
    Row("images, fast", {"image_obs": True, "render_quality": "fast"}, "images", 25.0),
    Row("state only", {"image_obs": False}, "state", 2.5),
)


def steps_per_second(env: gymnasium.Env[Any, Any], rounds: int, steps: int) -> float:
    """The best of `rounds` rates over `steps` steps each, of seven-dimensional random actions."""
    rng = np.random.default_rng(0)
    best = float("inf")
    for _ in range(rounds):
        env.reset(seed=0)
        actions = rng.uniform(-0.01, 0.01, (steps, 7))
        start = time.perf_counter()
        for action in actions:
            env.step(action)
        best = min(best, time.perf_counter() - start)
    return steps / best


def gym_hil_rate(observation: str, rounds: int) -> float:
    """Steps per second of gym-hil, measured in a fresh process."""
    from envs import gl

    environment = {**os.environ, "MUJOCO_GL": gl.require_headless_gl()}
    environment.pop("LP_NUM_THREADS", None)  # ours; gym-hil runs with Mesa's default
    command = [sys.executable, __file__, "--gym-hil", observation, "--rounds", str(rounds)]
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def measure_gym_hil(observation: str, rounds: int) -> float:
    """Its environment with the 50 physics steps of its recordings; it rounds 0.1 / 0.002 down to 49."""
    from gym_hil.envs import PandaPickCubeGymEnv

    env = PandaPickCubeGymEnv(image_obs=observation == "images")
    env._n_substeps = 50
    return steps_per_second(env, rounds, steps=10 if observation == "images" else 50)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gym-hil", choices=("images", "state"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.gym_hil:
        print(measure_gym_hil(args.gym_hil, args.rounds))
        return

    import envs  # noqa: F401  # registers the environments

    baseline = {"images": gym_hil_rate("images", rounds=3), "state": gym_hil_rate("state", args.rounds)}
    print(f"{'':14} {'steps/s':>8} {'gym-hil':>8} {'ratio':>7} {'target':>7}")
    for row in ROWS:
        env = gymnasium.make("hil/PandaPickCubeBase-v0", **row.kwargs).unwrapped
        rate = steps_per_second(env, args.rounds, steps=50)
        env.close()
        ratio = rate / baseline[row.baseline]
        print(f"{row.name:14} {rate:8.1f} {baseline[row.baseline]:8.1f} {ratio:6.1f}x {row.target:6.1f}x")


if __name__ == "__main__":
    main()
