"""Replay of the 30 real demonstrations, and how quickly they are read.

    python tests/bench/bench_replay.py [DATASET]

Targets: 30/30 succeed, each at its recorded last frame; median TCP error ≤ 0.1 mm.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

from hil_rllib.data.alignment import align
from hil_rllib.data.env_replay import EnvSpec, make_replay_env
from hil_rllib.data.env_replay import replay as replay_in
from hil_rllib.data.lerobot_reader import open_dataset
from hil_rllib.replay import Outcome

BESIDE_REPOSITORY = Path(__file__).resolve().parents[3] / "shared" / "data" / "franka_sim_pick_lift_6"


def main() -> int:
    source = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("HIL_DEMOS", str(BESIDE_REPOSITORY))
    dataset = open_dataset(source)
    demos, report = align(dataset)
    print(report)

    began = time.perf_counter()
    rows = sum(len(episode) for episode in dataset.read(frames=True))
    reading_s = time.perf_counter() - began

    recordings = [demo.recording for demo in demos if demo.recording is not None]
    env = make_replay_env(EnvSpec(), recordings)
    began = time.perf_counter()
    outcomes = [Outcome.of(recording, replay_in(env, recording)) for recording in recordings]
    replaying_s = time.perf_counter() - began
    env.close()

    print("\n| episode | frames | success at | TCP error median [mm] | max [mm] |\n|---|---|---|---|---|")
    for o in outcomes:
        at = "none" if o.end_frame is None else o.end_frame
        print(f"| {o.episode} | {o.frames} | {at} | {o.tcp_error_mm_median:.4f} | {o.tcp_error_mm_max:.4f} |")

    succeeded = sum(o.success for o in outcomes)
    at_last = sum(o.end_frame == o.frames - 1 for o in outcomes)
    worst = max(o.tcp_error_mm_median for o in outcomes)
    median = statistics.median(o.tcp_error_mm_median for o in outcomes)
    steps = sum(len(recording) for recording in recordings)
    print("\n| figure | value | target |\n|---|---|---|")
    print(f"| episodes that succeed | {succeeded}/{len(outcomes)} | all |")
    print(f"| … at their recorded last frame | {at_last}/{len(outcomes)} | all |")
    print(f"| TCP error, median of an episode: median, worst [mm] | {median:.4f}, {worst:.4f} | ≤ 0.1 |")
    print(f"| rows read with both cameras decoded [1/s] | {rows / reading_s:.0f} | |")
    print(f"| env steps replayed, state only [1/s] | {steps / replaying_s:.0f} | |")
    return 0 if at_last == len(outcomes) and worst <= 0.1 else 1


if __name__ == "__main__":
    sys.exit(main())
