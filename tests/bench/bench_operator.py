"""How steady a person's clock is while everything else works.

    python tests/bench/bench_operator.py                 # a minute and a half
    python tests/bench/bench_operator.py --seconds 600

A real run of panda_sac.yaml (two cameras, frozen encoder) with a synthetic operator held to 10 Hz. Meanwhile
the learner is always behind its budget, a greedy evaluation always under way, and a checkpoint written every
ten seconds. Measured is what the operator's env reports with each step: the time since the one before ended.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import ray
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from synthetic import build

from hil_rllib.collect.pacing import STEP_INTERVAL_MS, OperatorWrapper, claim_priority
from hil_rllib.collect.statistics import Statistics
from hil_rllib.logs import quiet
from hil_rllib.sac.algorithm import HILSAC

P99_TARGET_MS, MAX_TARGET_MS = 110.0, 150.0
CHECKPOINT_EVERY_S = 10.0
RAYS_NICENESS = 15  # of its workers, of which the learner is one in a run by Tune
STORED = 2000  # steps in each ring at the start, so that learning starts at once


class Recorder(Statistics):
    """The run's statistics, and every interval instead of the last few hundred."""

    def __init__(self) -> None:
        super().__init__()
        self.intervals_ms: list[float] = []

    def add(self, episode: SingleAgentEpisode, newest_weights: int) -> None:
        super().add(episode, newest_weights)
        self.intervals_ms += [info[STEP_INTERVAL_MS] for info in episode.get_infos()[1:]]


def built(run_dir: str, render_quality: str, extra: Sequence[str] = ()) -> HILSAC:
    """The run, once the operator's first steps have arrived. extra: overrides."""
    overrides = [
        f"run.dir={run_dir}",
        f"env.render_quality={render_quality}",
        "operator.realtime=true",
        "evaluation.every_steps=10",
        "evaluation.episodes=3",
        "sac.learning_starts=0",
        *extra,
    ]
    algorithm = build("panda_sac.yaml", STORED, overrides)
    os.nice(RAYS_NICENESS)  # after its helpers are started, which Ray sets itself
    steps = algorithm.env_steps
    while algorithm.env_steps == steps:
        algorithm.train()
    algorithm.stats = Recorder()
    return algorithm


def run(algorithm: HILSAC, seconds: float, run_dir: Path) -> tuple[int, list[float]]:
    """Train for so long; evaluations finished, and how long each checkpoint took [s]."""
    evaluated: set[Any] = set()
    checkpoints: list[float] = []
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        result = algorithm.train()
        evaluated.add(result.get("evaluation", {}).get("at_env_steps"))
        if elapsed > CHECKPOINT_EVERY_S * (len(checkpoints) + 1):
            algorithm.save_to_path(run_dir / f"checkpoint_{len(checkpoints)}")
            checkpoints.append(time.perf_counter() - started - elapsed)
    return len(evaluated - {None}), checkpoints


def of_the_runner(runner: EnvRunner) -> tuple[str, int]:
    """What its process was granted, and how many deadlines its env has missed."""
    env: gymnasium.Env[Any, Any] = runner.env.unwrapped.envs[0]
    while not isinstance(env, OperatorWrapper):
        assert isinstance(env, gymnasium.Wrapper)
        env = env.env
    return claim_priority(), env.missed_deadlines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--quality", choices=("full", "fast"), default="full", help="of rendering")
    parser.add_argument("--worst", type=int, default=5, help="how many of the longest intervals to print")
    args = parser.parse_args()
    quiet()

    load = os.getloadavg()[0]
    print(f"{len(os.sched_getaffinity(0))} cores, load {load:.1f}" + (": NOT IDLE" if load > 1 else ""))
    with tempfile.TemporaryDirectory() as folder:
        algorithm = built(folder, args.quality)
        updates = algorithm.updates
        evaluations, checkpoints = run(algorithm, args.seconds, Path(folder))
        updates = algorithm.updates - updates
        operator = algorithm.collector.groups[0].runners
        ((priority, missed),) = operator.foreach_env_runner(of_the_runner, local_env_runner=False)
        intervals = np.array(algorithm.stats.intervals_ms)
        algorithm.stop()
        ray.shutdown()

    p50, p99 = np.percentile(intervals, [50, 99])
    rows: list[tuple[str, str, str, str]] = [
        ("operator's steps, 10 Hz", f"{len(intervals)}", "", ""),
        ("priority granted to its process", priority, "", ""),
        ("updates/s, evaluations meanwhile", f"{updates / args.seconds:.1f}, {evaluations}", "", ""),
        (
            "checkpoints meanwhile, longest [s]",
            f"{len(checkpoints)}, {max(checkpoints, default=0):.1f}",
            "",
            "",
        ),
        ("deadlines missed", f"{missed}", "", ""),
        ("step interval, median [ms]", f"{p50:.1f}", "", ""),
    ]
    for name, value, target in (("p99", p99, P99_TARGET_MS), ("max", intervals.max(), MAX_TARGET_MS)):
        met = "ok" if value <= target else "MISSED"
        rows.append((f"step interval, {name} [ms]", f"{value:.1f}", f"≤ {target:.0f}", met))
    for figure, value, target, verdict in rows:
        print(f"{figure:36} {value:>12} {target:>7}  {verdict}")
    longest = np.argsort(intervals)[::-1][: args.worst]
    print("longest: " + ", ".join(f"{intervals[i]:.1f} ms at step {i}" for i in longest))


if __name__ == "__main__":
    main()
