"""Measure a trained policy: seeded episodes, nobody at the controls.

    python -m hil_rllib.evaluate CHECKPOINT_OR_RUN [--episodes 20] [--seed 10000] [--sampled] [--workers 2]
                                 [--sheet out.png] [--video out.mp4] [--json]

Of a run's folder the newest checkpoint is taken. Without options the episodes are those that the run itself
measured. Where every reset is the same, as with the cube at a fixed place, that is one: greedy, more would
be its copies. The same command gives the same numbers, by however many workers. Exit code 2: there is nothing
that can be evaluated.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from envs.gl import HeadlessGLError
from hil_rllib.config import Config
from hil_rllib.console import UsageError, new_file, report, seed_number
from hil_rllib.contract import CONTROL_DT
from hil_rllib.logs import quiet
from hil_rllib.results.scores import wilson
from hil_rllib.results.workers import in_processes
from hil_rllib.sac.checkpoint_files import find_checkpoint
from hil_rllib.sac.config import build_env
from hil_rllib.sac.evaluation import EpisodeResult, resets_differ, run_episodes
from hil_rllib.sheet import Strip, StripRecorder, write_sheet
from hil_rllib.trained import load_policy, read_config
from hil_rllib.video import VideoRecorder


@dataclass(frozen=True)
class Task:
    """What a worker needs: the policy, how it acts, and what pictures are wanted."""

    checkpoint: Path
    config: Config
    sampled: bool
    strips: bool
    video: Path | None


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    quiet()
    try:
        check(args)
        checkpoint = find_checkpoint(args.source)
        config, clock = read_config(checkpoint)
        check_sampled(args, config)
        first = config.evaluation.seed if args.seed is None else args.seed
        alike = not args.sampled and not resets_differ(config.env)
        seeds = range(first, first + (1 if alike else args.episodes or config.evaluation.episodes))
        task = Task(checkpoint, config, args.sampled, args.sheet is not None, args.video)
        # A film is one file, in order; and a fork of a process that has Ray's threads may never run.
        alone = args.video or ray.is_initialized()
        workers = 1 if alone else min(args.workers, len(seeds))
        results: list[EpisodeResult] = []
        strips: list[tuple[str, Strip]] = []
        for result, strip in in_processes(partial(episodes, task), seeds, workers):
            results.append(result)
            strips += [(words(result), strip)] if strip else []
            print(line(result), file=sys.stderr if args.json else sys.stdout, flush=True)
        if args.sheet:
            write_sheet(strips, args.sheet)
    except (UsageError, HeadlessGLError, ValueError, OSError) as error:
        report(error)
        return 2
    summary = summarise(results, alike)
    if args.json:
        made_by = {"checkpoint": str(checkpoint), config.schedule[0]: clock, "sampled": args.sampled}
        print(json.dumps(made_by | summary | {"episodes": [asdict(r) for r in results]}, indent=2))
    else:
        unit = config.schedule[0].replace("env_", "")
        print(f"{verdict(summary, len(results))}\nby the policy after {clock} {unit}, in {checkpoint}")
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hil_rllib.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path, help="a checkpoint, or the folder of a run")
    parser.add_argument(
        "--episodes",
        type=int,
        metavar="N",
        help="how many (default: the run's); one where all are alike: the same reset each time, no --sampled",
    )
    parser.add_argument(
        "--seed", type=seed_number, help="of the first reset; others count on (default: the run's)"
    )
    parser.add_argument(
        "--sampled", action="store_true", help="draw motions as while learning, not their mean"
    )
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: %(default)s)"
    )
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="six moments of every episode")
    parser.add_argument("--video", type=Path, metavar="MP4", help="film the episodes, in one process")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, lines on stderr")
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> None:
    """Raises UsageError over what would fail after the work."""
    for name in ("episodes", "workers"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} must be at least 1, got {value}.")
    if args.video is not None:
        new_file(args.video, ".mp4")
    if args.sheet is not None:
        new_file(args.sheet, ".png")


def check_sampled(args: argparse.Namespace, config: Config) -> None:
    """Raises UsageError where there is no distribution to draw from."""
    policy = config.dagger.policy if config.run.algorithm == "dagger" else config.run.algorithm
    if args.sampled and policy == "act":
        raise UsageError("--sampled: an ACT policy draws nothing, while learning neither. Leave it out.")


def episodes(task: Task, seeds: Sequence[int]) -> Iterator[tuple[EpisodeResult, Strip | None]]:
    """One episode per seed, with a strip of pictures where they are wanted."""
    with contextlib.ExitStack() as stack:
        env = build_env(task.config.env)
        seen = VideoRecorder(env, task.video) if task.video else env
        recorder = StripRecorder(seen) if task.strips else None
        stack.enter_context(contextlib.closing(recorder or seen))
        policy = load_policy(task.checkpoint, task.config, env, task.sampled)
        for seed in seeds:
            torch.manual_seed(seed)  # for sampled motions: the same in whichever process
            (result,) = run_episodes(policy, recorder or seen, [seed])
            yield result, recorder.take() if recorder else None


def summarise(results: Sequence[EpisodeResult], alike: bool = False) -> dict[str, Any]:
    """Success, its 95 % interval, seconds to success (median of solved episodes), mean gripper penalty.

    alike: any other episode would be the same, so there is nothing to be unsure of, and no interval.
    """
    solved = sum(result.success for result in results)
    seconds = [result.steps * CONTROL_DT for result in results if result.success]
    return {
        "success": solved / len(results),
        "success_95": None if alike else wilson(solved, len(results)),
        "seconds_to_success": float(np.median(seconds)) if seconds else None,
        "penalty": float(np.mean([result.penalty for result in results])),
    }


def line(result: EpisodeResult) -> str:
    outcome = "solved" if result.success else "not solved"
    return (
        f"seed {result.seed}  {outcome:10s}  {result.steps:3d} steps  reward {result.reward:.2f}  "
        f"penalty {result.penalty:.2f}"
    )


def words(result: EpisodeResult) -> str:
    """Of an episode, on the contact sheet."""
    outcome = "solved in" if result.success else "not solved in"
    return f"seed {result.seed}\n{outcome}\n{result.steps * CONTROL_DT:.1f} s"


def verdict(summary: dict[str, Any], count: int) -> str:
    seconds, penalty = summary["seconds_to_success"], f"gripper penalty {summary['penalty']:.3f}"
    if summary["success_95"] is None:
        time = "not solved" if seconds is None else f"solved in {seconds:.1f} s"
        return (
            f"{time}, {penalty}; one episode, as every reset is the same here and a greedy policy draws "
            "nothing: --sampled does"
        )
    low, high = summary["success_95"]
    solved = f"{round(summary['success'] * count)}/{count} episodes solved, {summary['success']:.0%}"
    time = "" if seconds is None else f" in {seconds:.1f} s (median)"
    return f"{solved} (95 %: {low:.0%} to {high:.0%}){time}, {penalty} an episode"


if __name__ == "__main__":
    sys.exit(main())
