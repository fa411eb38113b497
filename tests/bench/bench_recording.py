"""What recording costs the operator: the interval between their steps with `record.operator` and without.

    python tests/bench/bench_recording.py                # three minutes

Two runs as in bench_operator.py (two cameras, the learner always behind, evaluations and checkpoints all the
while), the second with every episode written as a LeRobot dataset with video. Both are of the same length.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import ray
from bench_operator import built, run

from hil_rllib.logs import quiet

SLACK_MS = 2.0  # p99 may grow by this much


def measured(seconds: float, quality: str, record: bool) -> dict[str, float]:
    """One run's figures."""
    with tempfile.TemporaryDirectory() as folder:
        algorithm = built(folder, quality, [f"record.operator={str(record).lower()}"])
        updates = algorithm.updates
        run(algorithm, seconds, Path(folder))
        updates = algorithm.updates - updates
        intervals = np.array(algorithm.stats.intervals_ms)  # type: ignore[attr-defined]
        algorithm.stop()  # the last episodes are written
        ray.shutdown()
        info = Path(folder, "recordings", "operator", "meta", "info.json")
        written = json.loads(info.read_text()) if record else {}
    p50, p99 = np.percentile(intervals, [50, 99])
    return {
        "operator's steps": len(intervals),
        "median [ms]": p50,
        "p99 [ms]": p99,
        "max [ms]": intervals.max(),
        "updates/s": updates / seconds,
        "episodes written": written.get("total_episodes", 0),
        "steps written": written.get("total_frames", 0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of each of the two runs")
    parser.add_argument("--quality", choices=("full", "fast"), default="full", help="of rendering")
    args = parser.parse_args()
    quiet()

    load = os.getloadavg()[0]
    print(f"{len(os.sched_getaffinity(0))} cores, load {load:.1f}" + (": NOT IDLE" if load > 1 else ""))
    without, recorded = (measured(args.seconds, args.quality, record) for record in (False, True))
    print(f"{'':20} {'without':>10} {'recording':>10}")
    for name, value in without.items():
        print(f"{name:20} {value:10.1f} {recorded[name]:10.1f}")
    grown = recorded["p99 [ms]"] - without["p99 [ms]"]
    print(f"p99 {grown:+.1f} ms, ≤ {SLACK_MS:+.1f} ms: {'ok' if grown <= SLACK_MS else 'MISSED'}")


if __name__ == "__main__":
    main()
