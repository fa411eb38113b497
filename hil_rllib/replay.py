"""Replay a LeRobot dataset's actions in the environment and compare with what it recorded.

    python -m hil_rllib.replay DATASET [--episodes 0-29] [--env ID] [--video out.mp4] [--json]

DATASET is a local folder or a hub id. One line per episode: frames, the frame at which success came, median
and maximal distance between recorded and replayed TCP. Only for a video is anything drawn. Exit code 0: every
episode succeeds; 1: one does not; 2: the dataset cannot be used.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import gymnasium

from envs.gl import HeadlessGLError
from envs.viewer import NoDisplayError
from hil_rllib.console import INTERRUPTED, UsageError, new_file, report
from hil_rllib.contract import ACTION_DIM
from hil_rllib.data.alignment import align
from hil_rllib.data.demo import Recording
from hil_rllib.data.env_replay import NOT_FROM_RESET, EnvSpec, Replay, make_replay_env, replay
from hil_rllib.data.hub import HubUnreachable
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.data.lerobot_reader import open_dataset
from hil_rllib.video import VideoRecorder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """One replayed episode. frames: recorded rows; end_frame: row of the action that brought success."""

    episode: int
    success: bool
    frames: int
    end_frame: int | None
    tcp_error_mm_median: float
    tcp_error_mm_max: float

    @classmethod
    def of(cls, recording: Recording, result: Replay) -> Outcome:
        return cls(
            episode=recording.episode_index,
            success=result.end_frame is not None,
            frames=len(recording),
            end_frame=result.end_frame,
            tcp_error_mm_median=round(result.tcp_error_mm_median, 5),
            tcp_error_mm_max=round(result.tcp_error_mm_max, 5),
        )

    def __str__(self) -> str:
        outcome = "no success" if self.end_frame is None else f"success at frame {self.end_frame:3d}"
        return (
            f"episode {self.episode:3d}  {self.frames:3d} frames  {outcome:21s}  "
            f"TCP error median {self.tcp_error_mm_median:.4f} mm, max {self.tcp_error_mm_max:.4f} mm"
        )


def parse_episodes(text: str) -> list[int]:
    """'0-2,7' → [0, 1, 2, 7]."""
    chosen: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise argparse.ArgumentTypeError(f"'{text}' names no episodes; write them as 3 or 0-29 or 0-4,7.")
        chosen += range(int(first), int(last or first) + 1)
    return chosen


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hil_rllib.replay", description=__doc__.split("\n")[0])
    parser.add_argument("dataset", help="local folder, or owner/name on the hub")
    parser.add_argument("--episodes", type=parse_episodes, help="such as 0-29 or 0,3,7 (default: all)")
    parser.add_argument(
        "--env", default=EnvSpec.id, help="Gymnasium id of the environment (default: %(default)s)"
    )
    parser.add_argument("--video", type=Path, metavar="MP4", help="film the replay")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of text")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("hil_rllib").setLevel(logging.INFO)  # the alignment report, on stderr

    try:
        if arguments.video is not None:
            new_file(arguments.video, ".mp4")
        outcomes = run(
            arguments.dataset,
            arguments.episodes,
            EnvSpec(arguments.env),
            as_json=arguments.json,
            video=arguments.video,
        )
    except (DatasetError, HubUnreachable, UsageError, HeadlessGLError, NoDisplayError, OSError) as error:
        report(error)
        return 2
    except KeyboardInterrupt:
        print("Stopped at once.", file=sys.stderr)
        return INTERRUPTED
    succeeded = sum(outcome.success for outcome in outcomes)
    print(f"{succeeded}/{len(outcomes)} episodes succeed", file=sys.stderr if arguments.json else sys.stdout)
    return 0 if succeeded == len(outcomes) else 1


def run(
    source: str, episodes: Sequence[int] | None, spec: EnvSpec, *, as_json: bool, video: Path | None = None
) -> list[Outcome]:
    """Replays and prints episode by episode."""
    dataset = open_dataset(source)
    demos, _ = align(dataset, episodes=episodes, step_size=spec.step_size)
    recordings = [demo.recording for demo in demos if demo.recording is not None]
    env = _make_env(spec, recordings)
    outcomes, elsewhere = [], 0
    with contextlib.closing(VideoRecorder(env, video, who="recorded") if video else env) as seen:
        for recording in recordings:
            result = replay(seen, recording)
            outcome = Outcome.of(recording, result)
            elsewhere += not result.from_reset
            print(json.dumps(asdict(outcome)) if as_json else outcome, flush=True)
            outcomes.append(outcome)
    if elsewhere:
        which = f"{elsewhere} of {len(outcomes)} episodes: {NOT_FROM_RESET}"
        logger.warning("%s, or train with demos.frames=recorded.", which)
    return outcomes


def _make_env(spec: EnvSpec, recordings: list[Recording]) -> gymnasium.Env:
    """Raises UsageError for an id that these recordings cannot drive."""
    try:
        env = make_replay_env(spec, recordings)
    except (gymnasium.error.Error, TypeError, ValueError) as error:  # TypeError: it takes other options
        raise UsageError(f"--env {spec.id}: {error} Recordings are replayed in {EnvSpec.id}.") from error
    if env.action_space.shape != (ACTION_DIM,):
        shape = env.action_space.shape
        env.close()
        raise UsageError(f"--env {spec.id} takes actions of shape {shape}, recordings hold ({ACTION_DIM},).")
    return env


if __name__ == "__main__":
    sys.exit(main())
