"""Record demonstrations by hand (or by script) into a LeRobot v3.0 dataset.

    python -m hil_rllib.record OUT --episodes N [--device NAME] [--env ID] [--append]
        [--push OWNER/NAME [--private]]

All can see what --push uploads, unless you add --private.

An episode is on disk, whole, as soon as its line appears; Ctrl-C loses the one under way and nothing else.
Episodes that you throw away (rerecord), or that nobody drove, start again from the same reset; failed ones
are left out unless you ask for them. Images are drawn from the simulator's states once an episode has ended,
so they cost the person at the controls nothing. Exit code 130: stopped by Ctrl-C before all were recorded.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from envs.gl import HeadlessGLError, require_headless_gl
from envs.viewer import NoDisplayError
from hil_rllib.console import (
    INTERRUPTED,
    Interrupt,
    LiveLine,
    UsageError,
    keys_not_typed,
    report,
    seed_number,
)
from hil_rllib.contract import CAMERAS, DISCRETE_PENALTY, IS_INTERVENTION, LABEL, RERECORD, SUCCESS, TASKS
from hil_rllib.data import hub_push
from hil_rllib.data import lerobot_format as fmt
from hil_rllib.data.lerobot_episodes import load_episodes
from hil_rllib.data.lerobot_format import DatasetError, DatasetInfo
from hil_rllib.data.lerobot_writer import LeRobotWriter
from hil_rllib.devices import DeviceUnavailable, device_class
from hil_rllib.devices.controls import help_text
from hil_rllib.devices.none import NoDevice
from hil_rllib.logs import quiet
from hil_rllib.session import DEFAULT_ID, Meter, add_arguments, controls, split_id, take_seat
from hil_rllib.wrappers import TELEOP_ACTION, InputsControlWrapper

# Files of a dataset before its first episode is finished: its head, and what there is of the episode.
HEAD = re.compile(r"\.lock|meta/\.?(tasks\.parquet|info\.json)(\.tmp)?")
FIRST = re.compile(rf"{HEAD.pattern}|meta/episodes/.*\.tmp|(data|videos)/.*/\.?file-000\.\w+(\.tmp)?")
PAUSE_S = 1.0  # [s] before a person's next episode


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 all recorded, 2 bad input, 130 stopped by Ctrl-C."""
    args = parse_args(argv)
    quiet()
    try:
        return record_dataset(args)
    except KeyboardInterrupt:
        print("Stopped at once. Episodes that were finished are kept.", file=sys.stderr)
        return INTERRUPTED
    except NoDisplayError as error:
        report(f"{error} Here: --headless.")
    except (DatasetError, DeviceUnavailable, HeadlessGLError, ValueError, OSError) as error:
        report(error)
    return 2


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m hil_rllib.record",
        description=__doc__,
        epilog=f"controls:\n\n{help_text('auto')}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="the dataset's folder")
    parser.add_argument("--episodes", type=int, required=True, metavar="N", help="how many to keep")
    parser.add_argument("--env", default=DEFAULT_ID, metavar="ID", help=f"under hil/ (default: {DEFAULT_ID})")
    add_arguments(parser, default_device=None)
    parser.add_argument("--append", action="store_true", help="add to the dataset that is there")
    parser.add_argument("--keep-failures", action="store_true", help="keep unsolved episodes, too")
    parser.add_argument(
        "--label",
        action="store_true",
        help="say which frames show success, for a reward classifier: L (B on a gamepad) while they do; "
        "only you and the time limit end an episode, and failures are kept",
    )
    parser.add_argument("--no-images", action="store_true", help="no cameras: states only, quick")
    parser.add_argument("--task", metavar="TEXT", help="what is done, in words (default: the task's)")
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload the dataset to the hub at the end")
    parser.add_argument("--private", action="store_true", help="create the hub's repository as private")
    parser.add_argument(
        "--seed",
        type=seed_number,
        help="of the first reset; others count on (default: 0, or the dataset's next)",
    )
    return parser.parse_args(argv)


def record_dataset(args: argparse.Namespace) -> int:
    """Check, make everything, record, say what came of it."""
    if args.episodes < 1:
        raise UsageError(f"--episodes must be at least 1, got {args.episodes}.")
    plain, _ = split_id(args.env)
    if args.device is not None and device_class(args.device) is NoDevice:
        raise UsageError("With nobody at the controls there is nothing to record. Try --device scripted.")
    if args.label and args.no_images:
        raise UsageError("--label is about images; leave --no-images out.")
    if args.push:
        hub_push.check_name(args.push)
    next_seed = check_out(args.out, append=args.append)
    first_seed = next_seed if args.seed is None else args.seed
    if not args.no_images:
        require_headless_gl()
    seat = take_seat(args, args.env, expert=True, labels=args.label)
    cameras = () if args.no_images else CAMERAS
    meter = Meter()
    with (
        contextlib.closing(seat.env),
        LeRobotWriter(
            args.out,
            cameras=cameras,
            environment_state=tells_the_world(args.out),
            task=args.task or TASKS[plain].words,
            labels=args.label,
        ) as writer,
        Interrupt() as ctrl_c,
        keys_not_typed(seat.by_keyboard),
        contextlib.closing(LiveLine()) as line,
    ):
        keep_failures = args.keep_failures or args.label
        recorder = Recorder(seat.env, writer, args.episodes, first_seed, meter, line, keep_failures)
        if text := controls(seat.env.device):
            line.keep(text)
        try:
            recorder.run(lambda: ctrl_c.asked or seat.window_closed)
        finally:
            if writer.episodes == 0:
                shutil.rmtree(args.out.resolve())  # nothing else is in it, see `unfinished`
    print(meter.summary(seat.env.missed_deadlines))
    print(f"{recorder.kept} of {args.episodes} episodes recorded; {args.out} holds {writer.episodes}.")
    if args.push and writer.episodes:
        print(hub_push.push(args.out, args.push, private=args.private))
    return 0 if recorder.kept == args.episodes else INTERRUPTED


def check_out(out: Path, *, append: bool) -> int:
    """The seed after those of the dataset in `out`. Raises UsageError where nothing can be recorded.

    What a recording killed before its first episode leaves counts as a new dataset.
    """
    there = (out / "meta" / "info.json").is_file()
    new = not out.exists() or unfinished(out)
    if there and not new and not append:
        raise UsageError(f"{out} holds a dataset already. Add to it with --append, or name another folder.")
    if not there and not new:
        raise UsageError(f"{out} exists and is no dataset. Name another folder.")
    if not there and append:
        raise UsageError(f"--append: there is no dataset in {out}. Leave --append out to begin one.")
    if new:
        return 0
    seeds = [meta.seed for meta in load_episodes(out, DatasetInfo.load(out)) if meta.seed is not None]
    return max(seeds, default=-1) + 1


def tells_the_world(out: Path) -> bool:
    """Whether episodes there hold the cube's place: a new dataset's do, those of LeRobot's own may not."""
    there = (out / "meta" / "info.json").is_file() and not unfinished(out)
    return not there or fmt.ENVIRONMENT_STATE in DatasetInfo.load(out).features


def unfinished(out: Path) -> bool:
    """Whether nothing is in the folder but what a recording makes before its first episode is finished."""
    begun = (out / "meta" / "info.json").is_file()
    if not out.is_dir() or (begun and DatasetInfo.load(out).total_episodes):
        return False
    ours = FIRST if begun else HEAD
    files = (path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    return all(map(ours.fullmatch, files))


@dataclass
class Step:
    """One step, and the simulator's state before it, from which its images are drawn."""

    state: NDArray[Any]
    observation: dict[str, Any]
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


@dataclass
class Recorder:
    """Episodes from `env` to `writer` until `wanted` are kept."""

    env: InputsControlWrapper
    writer: LeRobotWriter
    wanted: int
    seed: int
    meter: Meter
    line: LiveLine
    keep_failures: bool = False
    kept: int = 0

    def run(self, stop: Callable[[], bool]) -> None:
        """stop: asked before each step; the episode under way is then left out."""
        again = False
        while self.kept < self.wanted and not stop():
            if (self.kept or again) and self.env.device.realtime:
                time.sleep(PAUSE_S)
            steps = self.episode(stop)
            if steps is None:
                self.line.keep("The episode under way is left out.")
                return
            self.meter.episodes += 1
            again = self.finish(steps)
            self.seed += not again

    def episode(self, stop: Callable[[], bool]) -> list[Step] | None:
        """One episode; None if it was cut off."""
        base: Any = self.env.unwrapped
        observation, _ = self.env.reset(seed=self.seed)
        idle, steps = self.env.idle_action(), []
        done = False
        while not done:
            if stop():
                return None
            state = base.get_state()
            following, reward, terminated, truncated, info = self.env.step(idle)
            done = terminated or truncated
            steps.append(
                Step(state, observation, float(reward), terminated, truncated and not terminated, info)
            )
            observation = following
            self.meter.add(info)
            now = self.meter.line(info, self.env.missed_deadlines)
            now += " · SUCCESS" if info[LABEL] else ""
            self.line.show(f"episode {self.kept + 1}/{self.wanted} step {len(steps):3d} · {now}")
        return steps

    def finish(self, steps: list[Step]) -> bool:
        """Keep the episode or not, and say so; True if it has to be done again."""
        last = steps[-1].info
        solved = bool(last.get(SUCCESS))
        which = f"episode {self.kept + 1}/{self.wanted}"
        if last[RERECORD]:
            self.line.keep(f"{which}: thrown away, again")
            return True
        if not any(step.info[IS_INTERVENTION] for step in steps):
            self.line.keep(f"{which}: nobody drove, again")
            return True
        self.meter.solved += solved
        if not solved and not self.keep_failures:
            self.line.keep(f"{which}: not solved, left out (--keep-failures keeps such)")
            return False
        self.line.show(f"{which}: writing …")
        self.write(steps)
        self.kept += 1
        outcome = "solved" if solved else "not solved"
        if fmt.LABEL in self.writer.features:
            outcome = f"{sum(bool(step.info[LABEL]) for step in steps)} frames labelled success"
        self.line.keep(f"{which}: {outcome} in {len(steps)} steps, seed {self.seed}, on disk")
        return False

    def write(self, steps: list[Step]) -> None:
        """The episode to disk, its images drawn now."""
        base: Any = self.env.unwrapped
        images = any(feature["dtype"] == "video" for feature in self.writer.features.values())
        for step in steps:
            observation = step.observation
            if images:
                base.set_state(step.state)
                observation = {**observation, "pixels": base.render_cameras()}
            self.writer.add_step(
                observation,
                step.info[TELEOP_ACTION],
                reward=step.reward,
                terminated=step.terminated,
                truncated=step.truncated,
                success=bool(step.info.get(SUCCESS)),
                penalty=step.info.get(DISCRETE_PENALTY, 0.0),
                intervention=step.info[IS_INTERVENTION],
                label=step.info[LABEL],
            )
        self.writer.end_episode(seed=self.seed)


if __name__ == "__main__":
    sys.exit(main())
