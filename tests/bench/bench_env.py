"""Environment steps per second beside gym-hil, in one run on one machine.

    python tests/bench/bench_env.py

Both are driven by the same random actions. Counted is the best of several rounds: what the code can do when nothing
else takes the processor. Images: two cameras of 128 x 128.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

import envs  # noqa: F401  # registers our ids, and chooses headless OpenGL before gym-hil imports MuJoCo


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


def gym_hil_env(image_obs: bool) -> gymnasium.Env[Any, Any]:
    """gym-hil's own environment with the 50 physics steps of its recordings (it rounds 0.1 / 0.002 down to 49)."""
    from gym_hil.envs import PandaPickCubeGymEnv

    env = PandaPickCubeGymEnv(image_obs=image_obs)
    env._n_substeps = 50
    return env


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    baseline = {
        "images": steps_per_second(gym_hil_env(image_obs=True), rounds=2, steps=5),
        "state": steps_per_second(gym_hil_env(image_obs=False), rounds=args.rounds, steps=50),
    }
    print(f"{'':14} {'steps/s':>8} {'gym-hil':>8} {'ratio':>7} {'target':>7}")
    for row in ROWS:
        env = gymnasium.make("hil/PandaPickCubeBase-v0", disable_env_checker=True, **row.kwargs)
        rate = steps_per_second(env.unwrapped, args.rounds, steps=50)
        env.close()
        print(f"{row.name:14} {rate:8.1f} {baseline[row.baseline]:8.1f} {rate / baseline[row.baseline]:6.1f}x "
              f"{row.target:6.1f}x")


if __name__ == "__main__":
    main()
