"""Memory of the learner's process with both rings full of two-camera features.

    python tests/bench/bench_memory.py

Builds the algorithm of panda_sac.yaml in this process, where otherwise Tune gives it one of its own, fills
both rings to their capacity with random data, and learns for a while. Takes some minutes, and the memory.
"""

from __future__ import annotations

import argparse
import resource
import sys

import ray
from ray.rllib.core import DEFAULT_MODULE_ID
from synthetic import build, fill

from hil_rllib.data.replay import Nested, Ring
from hil_rllib.logs import quiet

GB = 1e9
TARGET_GB = 8.0


def peak_gb() -> float:
    """The most this process had resident so far [GB]."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / GB


def ring_gb(ring: Ring) -> float:
    return (nested_bytes(ring.obs) + nested_bytes(ring.steps)) / GB


def nested_bytes(arrays: Nested) -> int:
    return sum(map(nested_bytes, arrays.values())) if isinstance(arrays, dict) else arrays.nbytes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, help="steps in each ring; default: its capacity")
    parser.add_argument("--seconds", type=float, default=10.0, help="of learning with the rings full")
    args = parser.parse_args()
    quiet()

    algorithm = build("panda_sac.yaml", steps=0)
    space, _ = algorithm.spaces[DEFAULT_MODULE_ID]
    rows = [("after set-up", peak_gb())]
    for name, ring in (("online", algorithm.online), ("demo", algorithm.demo)):
        fill(ring, space, args.steps or ring.capacity)
        rows.append((f"{name} ring full: {len(ring)} steps, {ring_gb(ring):.2f} GB", peak_gb()))
    algorithm.experience.env_steps = algorithm._evaluated_at = 10**9  # far behind its budget, it only learns
    before = algorithm.updates
    while algorithm.training_iteration < args.seconds:  # one a second
        algorithm.train()
    rows.append((f"after {algorithm.updates - before} updates", peak_gb()))

    print(f"{'learner process, most resident so far [GB]':44} {'value':>6} {'target':>7}")
    for figure, value in rows[:-1]:
        print(f"{figure:44} {value:6.2f}")
    figure, peak = rows[-1]
    print(f"{figure:44} {peak:6.2f} {f'≤ {TARGET_GB:.0f}':>7}  {'ok' if peak <= TARGET_GB else 'MISSED'}")
    algorithm.stop()
    ray.shutdown()


if __name__ == "__main__":
    main()
