"""Drive the arm by hand, or look at it.

    python -m hil_rllib.teleop [ID] [--device NAME] [--mode hold|toggle|auto] [--viewer|--headless]
    python -m hil_rllib.teleop --policy CHECKPOINT_OR_RUN      a trained policy drives, you take over
    python -m hil_rllib.teleop --scene pick_cube               a bundled scene in MuJoCo's viewer
    python -m hil_rllib.teleop --calibrate my_pad.json         make a map of your gamepad

A live line shows who acts, the action, the rate and the latency. Ctrl-C ends the session, twice at once.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import gymnasium

from envs.gl import HeadlessGLError
from envs.viewer import SCENES, NoDisplayError, open_scene
from hil_rllib.console import (
    INTERRUPTED,
    Interrupt,
    LiveLine,
    UsageError,
    keys_not_typed,
    new_file,
    report,
    seed_number,
)
from hil_rllib.contract import IS_INTERVENTION, RERECORD, SUCCESS
from hil_rllib.devices import DeviceUnavailable
from hil_rllib.devices.controls import help_text
from hil_rllib.logs import quiet
from hil_rllib.session import DEFAULT_ID, Meter, Seat, add_arguments, controls, take_seat
from hil_rllib.video import VideoRecorder

if TYPE_CHECKING:
    from hil_rllib.sac.evaluation import Policy

PAUSE_S = 1.0  # [s] between episodes that a person drives, to take a breath; gym-hil 0.1.14


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 calibration given up, 2 bad input, 130 stopped at once by Ctrl-C."""
    args = parse_args(argv)
    quiet()
    try:
        if args.scene is not None:
            open_scene(args.scene)
        elif args.calibrate is not None:
            return calibrate(args.calibrate)
        else:
            teleoperate(args)
    except KeyboardInterrupt:
        print("Stopped at once.", file=sys.stderr)
        return INTERRUPTED
    except (UsageError, DeviceUnavailable, HeadlessGLError, NoDisplayError, ValueError, OSError) as error:
        hint = " Here: --headless." if isinstance(error, NoDisplayError) and args.scene is None else ""
        report(f"{error}{hint}")
        return 2
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m hil_rllib.teleop",
        description=__doc__,
        epilog=f"controls:\n\n{help_text('auto')}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("id", nargs="?", help=f"any id under hil/ (default: {DEFAULT_ID}, or the policy's)")
    add_arguments(parser, default_device=None)
    parser.add_argument("--seed", type=seed_number, default=0, help="of the first reset; others count on")
    parser.add_argument("--steps", type=int, metavar="N", help="stop after N steps (default: Ctrl-C stops)")
    parser.add_argument("--episodes", type=int, metavar="N", help="stop after N episodes")
    parser.add_argument("--video", type=Path, metavar="MP4", help="film the session")
    parser.add_argument("--policy", type=Path, metavar="CHECKPOINT", help="a checkpoint, or a run's folder")
    parser.add_argument("--scene", metavar="NAME", help=f"look at a scene: {', '.join(SCENES)}")
    parser.add_argument("--calibrate", type=Path, metavar="JSON", help="make a map of the gamepad")
    return parser.parse_args(argv)


def calibrate(path: Path) -> int:
    from hil_rllib.devices.calibrate import Aborted, calibrate

    try:
        calibrate(path)
    except Aborted as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def teleoperate(args: argparse.Namespace) -> None:
    """Check, make everything, drive, say what came of it."""
    for name in ("steps", "episodes"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} must be at least 1, got {value}.")
    if args.video is not None:
        new_file(args.video, ".mp4")
    if args.policy is None:
        seat, policy = take_seat(args, args.id or DEFAULT_ID, expert=True), None
    else:
        seat, policy = _seat_beside_policy(args)
    idle = "nobody" if policy is None else "policy"
    env: gymnasium.Env = seat.env
    if args.video is not None:
        env = VideoRecorder(env, args.video, who=idle)
    meter = Meter(idle)
    with (
        contextlib.closing(env),
        Interrupt() as ctrl_c,
        keys_not_typed(seat.by_keyboard),
        contextlib.closing(LiveLine()) as line,
    ):
        if text := controls(seat.env.device):
            line.keep(text)
        drive(env, seat, policy, args, meter, line, lambda: ctrl_c.asked or seat.window_closed)
    print(meter.summary(seat.env.missed_deadlines))
    if args.video is not None:
        print(f"Video: {args.video}")


def drive(
    env: gymnasium.Env,
    seat: Seat,
    policy: Policy | None,
    args: argparse.Namespace,
    meter: Meter,
    line: LiveLine,
    stop: Callable[[], bool],
) -> None:
    """Episode after episode, until `stop()` or until as many as were asked for."""
    inputs = seat.env
    while not stop() and meter.episodes != args.episodes and meter.steps != args.steps:
        if meter.episodes and inputs.device.realtime:
            time.sleep(PAUSE_S)
        observation, _ = env.reset(seed=args.seed + meter.episodes)
        if policy is not None:
            policy.reset()
        steps, by_hand, done = 0, meter.human_steps, False
        while not done and not stop() and meter.steps != args.steps:
            action = inputs.idle_action() if policy is None else policy(observation)
            observation, reward, terminated, truncated, info = env.step(action)
            if policy is not None and info[IS_INTERVENTION]:
                policy.reset()  # what it planned before is void
            steps, done = steps + 1, terminated or truncated
            meter.add(info)
            state = meter.line(info, inputs.missed_deadlines)
            line.show(f"episode {meter.episodes + 1} step {steps:3d} · {state} · reward {reward:.2f}")
        if done:
            meter.episodes += 1
            meter.solved += bool(info.get(SUCCESS))
            outcome = "thrown away" if info[RERECORD] else "solved" if info.get(SUCCESS) else "not solved"
            hand = meter.human_steps - by_hand
            line.keep(f"episode {meter.episodes}: {outcome} after {steps} steps, {hand} by hand")


def _seat_beside_policy(args: argparse.Namespace) -> tuple[Seat, Policy]:
    """The env that the policy was trained in, and the policy."""
    from dataclasses import replace

    from hil_rllib.sac.checkpoint_files import find_checkpoint
    from hil_rllib.sac.config import env_options
    from hil_rllib.trained import load_policy, read_config

    checkpoint = find_checkpoint(args.policy)
    config, _ = read_config(checkpoint)
    if args.id not in (None, config.env.id):
        raise UsageError(f"The policy in {checkpoint} was trained in {config.env.id}; leave {args.id} out.")
    random = args.random or config.env.random_block_position
    quality = args.quality or config.env.render_quality
    section = replace(config.env, random_block_position=random, render_quality=quality)
    args.episode_steps = args.episode_steps or config.env.max_episode_steps
    seat = take_seat(args, config.env.id, expert=False, **env_options(section))
    return seat, load_policy(checkpoint, config, seat.env)


if __name__ == "__main__":
    sys.exit(main())
