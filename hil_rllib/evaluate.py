"""Measure a trained policy: greedy, seeded episodes, no exploration and nobody at the controls.

    python -m hil_rllib.evaluate CHECKPOINT_OR_RUN [--episodes 20] [--seed 10000] [--video out.mp4] [--json]

Of a run's folder the newest checkpoint is taken. Without options the episodes are those that the run itself
measured. Exit code 2: there is nothing that can be evaluated.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pickle
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import gymnasium
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from envs.gl import HeadlessGLError
from hil_rllib import strict_yaml
from hil_rllib.collect.encode import encoded_space
from hil_rllib.config import Config
from hil_rllib.console import UsageError, new_file
from hil_rllib.logs import quiet
from hil_rllib.sac.checkpoint import STATE_FILE, read_state
from hil_rllib.sac.config import HILSACConfig, build_env
from hil_rllib.sac.evaluation import EpisodeResult, GreedyPolicy, run_episodes
from hil_rllib.sac.module import acting_part
from hil_rllib.video import VideoRecorder

WEIGHTS = Path("learner_group/learner/rl_module/default_policy/module_state.pkl")  # RLlib's layout


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hil_rllib.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path, help="a checkpoint, or the folder of a run")
    parser.add_argument("--episodes", type=int, metavar="N", help="how many (default: the run's, 20)")
    parser.add_argument("--seed", type=int, help="of the first reset; others count on (default: the run's)")
    parser.add_argument("--video", type=Path, metavar="MP4", help="film the episodes")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, lines on stderr")
    args = parser.parse_args(argv)
    quiet()
    try:
        if args.episodes is not None and args.episodes < 1:
            raise UsageError(f"--episodes must be at least 1, got {args.episodes}.")
        if args.video is not None:
            new_file(args.video, ".mp4")
        checkpoint = find_checkpoint(args.source)
        config, steps = read_config(checkpoint)
        first = config.evaluation.seed if args.seed is None else args.seed
        seeds = range(first, first + (args.episodes or config.evaluation.episodes))
        with contextlib.closing(build_env(config.env)) as env:
            policy = load_policy(checkpoint, config, env)
            with contextlib.closing(VideoRecorder(env, args.video) if args.video else env) as seen:
                results = evaluate(policy, seen, seeds, sys.stderr if args.json else sys.stdout)
    except (UsageError, HeadlessGLError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    solved = sum(result.success for result in results)
    if args.json:
        summary: dict[str, Any] = {
            "checkpoint": str(checkpoint),
            "env_steps": steps,  # of the run, when the checkpoint was written
            "success": solved / len(results),
            "episodes": [asdict(result) for result in results],
        }
        print(json.dumps(summary, indent=2))
    else:
        print(
            f"{solved}/{len(results)} episodes solved ({solved / len(results):.0%}) by the policy of step "
            f"{steps} in {checkpoint}"
        )
    return 0


def find_checkpoint(source: Path) -> Path:
    """`source` if it is a checkpoint, else the newest one of the run in it. Raises UsageError."""
    if not source.is_dir():
        raise UsageError(f"{source}: no such folder. Name a checkpoint or a run, such as runs/panda_sac.")
    if (source / STATE_FILE).is_file():
        return source
    found = [file.parent for file in source.glob(f"**/checkpoint_*/{STATE_FILE}")]
    if not found:
        raise UsageError(
            f"{source} holds no checkpoint of this project (no checkpoint_*/{STATE_FILE}). Train longer, or "
            "name another folder."
        )
    # By steps, not by name: Tune numbers the checkpoints of every session from 0.
    return max(found, key=lambda folder: (read_state(folder)["env_steps"], folder.stat().st_mtime))


def read_config(checkpoint: Path) -> tuple[Config, int]:
    """What the run was configured with, and the env step of the checkpoint. Raises UsageError."""
    state = read_state(checkpoint)
    leaves = strict_yaml.flatten(Config, state["config"], str(checkpoint / STATE_FILE))
    config = strict_yaml.build(Config, leaves)
    if config.run.algorithm == "reward":
        raise UsageError(
            f"{checkpoint} is a classifier of success, not a policy. Its figures are in summary.json."
        )
    return config, state["env_steps"]


def load_policy(checkpoint: Path, config: Config, env: gymnasium.Env) -> GreedyPolicy:
    """The checkpoint's actor, acting in `env` as in the run's own evaluations. Raises UsageError."""
    torch.set_num_threads(1)  # as there: the sums of matrix products depend on it in their last bits
    observations: Any = env.observation_space
    if config.env.image_obs and config.encoder.frozen:
        observations = encoded_space(observations)
    spaces = {DEFAULT_MODULE_ID: (observations, env.action_space)}
    spec = HILSACConfig.from_config(config).get_rl_module_spec(spaces=spaces, inference_only=True)
    policy = GreedyPolicy(config, spec)
    file = checkpoint / WEIGHTS
    try:
        policy.module.set_state(acting_part(pickle.loads(file.read_bytes())))
    except (OSError, EOFError, pickle.UnpicklingError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]  # RLlib names every parameter there is
        raise UsageError(
            f"{file}: these are no weights of this version's policy in the checkpoint's configuration. "
            f"Evaluate it with the version that trained it. ({type(error).__name__}: {reason}…)"
        ) from error
    return policy


def evaluate(
    policy: GreedyPolicy, env: gymnasium.Env, seeds: Iterable[int], out: TextIO
) -> list[EpisodeResult]:
    """One episode per seed, a line each on `out`."""
    results = []
    for seed in seeds:
        (result,) = run_episodes(policy, env, [seed])
        results.append(result)
        outcome = "solved" if result.success else "not solved"
        line = f"seed {seed}  {outcome:10s}  {result.steps:3d} steps  reward {result.reward:.2f}"
        print(f"{line}  penalty {result.penalty:.2f}", file=out, flush=True)
    return results


if __name__ == "__main__":
    sys.exit(main())
