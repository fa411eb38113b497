"""An env with somebody at an input device, from a command line: what teleop and record have in common."""

from __future__ import annotations

import argparse
import re
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from hil_rllib.collect.own_end import OwnEndHidden
from hil_rllib.collect.pacing import STEP_INTERVAL_MS, claim_priority
from hil_rllib.console import UsageError, nearest
from hil_rllib.contract import IS_INTERVENTION, TASKS
from hil_rllib.devices import NAMES, TeleopDevice, check_present, device_class, make_device
from hil_rllib.devices.controls import help_text
from hil_rllib.devices.mode import MODES
from hil_rllib.devices.presenter import ScriptedPresenter
from hil_rllib.wrappers import MOTION_LATENCY_MS, TELEOP_ACTION, InputsControlWrapper, PassiveViewerWrapper

DEFAULT_ID = "hil/PandaPickCube-v0"
EXPERT: dict[str, Any] = {  # the synthetic human as one who does it all, from the first step on
    "reaction_s": 0.0,
    "takeover_probability": 1.0,
    "start_after_step": 0,
    "help_steps": 1_000_000,
    "budget_s": 1e9,
}


def add_arguments(parser: argparse.ArgumentParser, default_device: str | None) -> None:
    """Options of both commands. default_device: None takes it from the id, else `auto`."""
    parser.add_argument(
        "--device",
        choices=NAMES,
        default=default_device,
        metavar="NAME",
        help=f"{', '.join(NAMES)} (default: {default_device or 'auto, or as the id says'})",
    )
    parser.add_argument("--mode", choices=MODES, default="hold", help="who is in charge (default: hold)")
    window = parser.add_mutually_exclusive_group()
    window.add_argument(
        "--viewer",
        action="store_true",
        default=None,
        help="MuJoCo's viewer (default where a person drives, but not from a browser)",
    )
    window.add_argument("--headless", dest="viewer", action="store_false", help="no window")
    parser.add_argument(
        "--hz",
        type=float,
        help="control rate; 0: as fast as it goes (default: 10 where a person drives or looks, else 0)",
    )
    parser.add_argument("--controller-config", metavar="JSON", help="the gamepad's map, from --calibrate")
    parser.add_argument(
        "--bind", metavar="ADDRESS", help="browser: where its page is served (default: 127.0.0.1)"
    )
    parser.add_argument(
        "--port", type=int, help="browser: 0 takes any (default: the first free one from 8642 on)"
    )
    parser.add_argument("--random", action="store_true", help="the cube starts at a random place, by seed")
    parser.add_argument(
        "--episode-steps",
        type=int,
        metavar="N",
        help="time limit (default: a policy's own, else 100 for the cube, 600 for the boxes)",
    )
    parser.add_argument("--quality", choices=("full", "fast"), help="of drawn images (default: full)")


def split_id(env_id: str) -> tuple[str, str]:
    """One of our ids → (its task's id with 4-D actions, what it adds: '', Base, Viewer, Gamepad …)."""
    ids = sorted(name for name in gymnasium.registry if name.startswith("hil/"))
    if env_id not in ids:
        raise UsageError(f"Unknown environment {env_id!r}.{nearest(env_id, ids)}")
    parts = re.fullmatch(r"(.+?)(Base|Viewer|Gamepad|Keyboard|)(-v\d+)", env_id)
    assert parts is not None, env_id
    return parts[1] + parts[3], parts[2]


@dataclass
class Seat:
    """The env as driven, and the window it is shown in, if any."""

    env: InputsControlWrapper
    viewer: PassiveViewerWrapper | None

    @property
    def by_keyboard(self) -> bool:
        return isinstance(self.env.device, device_class("keyboard"))

    @property
    def window_closed(self) -> bool:
        return self.viewer is not None and not self.viewer.is_running


def take_seat(
    args: argparse.Namespace, env_id: str, *, expert: bool, labels: bool = False, **env_kwargs: Any
) -> Seat:
    """The env of `env_id` with device and window as the arguments say; errors come before any of it is made.

    expert: a scripted device does everything, instead of helping now and then. labels: the person says what
    success is; the env neither rewards nor ends an episode, and a scripted device presents.
    """
    if args.hz is not None and not 0 <= args.hz <= 100:
        raise UsageError(f"--hz {args.hz:g}: choose a rate up to 100, or 0 for as fast as the machine can.")
    if args.episode_steps is not None and args.episode_steps < 1:
        raise UsageError(f"--episode-steps {args.episode_steps}: an episode has at least one step.")
    plain, added = split_id(env_id)
    name = args.device or (added.lower() if added in ("Gamepad", "Keyboard") else "auto")
    device = _device(name, args, expert, labels)
    looks = device.realtime and not isinstance(device, device_class("browser"))  # whose page is the window
    viewer = args.viewer if args.viewer is not None else looks or added == "Viewer"
    hz = args.hz if args.hz is not None else 10.0 if device.realtime or viewer else 0.0
    if hz and device.realtime:
        claim_priority()  # before the env is made: the renderer's threads inherit it
    random = {"random_block_position": True} if args.random else {}
    kwargs = {"render_quality": args.quality or "full", **random, **env_kwargs}
    try:
        steps = args.episode_steps or TASKS[plain].steps
        env = gymnasium.make(plain, max_episode_steps=steps, disable_env_checker=True, **kwargs)
    except TypeError as error:
        raise UsageError(f"{plain} does not take the options {kwargs}: {error}") from error
    window = None
    if labels:
        env = OwnEndHidden(env)
    try:
        if viewer:
            env = window = PassiveViewerWrapper(env)
        inputs = InputsControlWrapper(env, use_gripper=True, device=device, mode=args.mode, hz=hz or None)
    except TypeError as error:  # the synthetic human knows one task only
        env.close()
        raise UsageError(f"Device {name!r} cannot drive {plain}: {error}") from error
    except Exception:
        env.close()
        raise
    return Seat(inputs, window)


def _device(name: str, args: argparse.Namespace, expert: bool, labels: bool) -> TeleopDevice:
    is_page = device_class(name) is device_class("browser")
    options: dict[str, Any] = {}
    for option in ("bind", "port"):
        if getattr(args, option) is None:
            continue
        if not is_page:
            raise UsageError(f"--{option} is for --device browser.")
        options[option] = getattr(args, option)
    if args.controller_config is not None:
        if not Path(args.controller_config).is_file():
            raise UsageError(f"--controller-config {args.controller_config}: no such file.")
        options["controller_config"] = args.controller_config
    check_present(name, **options)
    if is_page:
        options["idle"] = "nobody" if getattr(args, "policy", None) is None else "policy"
    if name == "scripted" and labels:
        return ScriptedPresenter(seed=args.seed or 0)
    if name == "scripted":
        options |= {"seed": args.seed or 0, **(EXPERT if expert else {})}
    return make_device(name, **options)


def controls(device: TeleopDevice) -> str:
    """What to press on this device, or an empty text."""
    names = {device_class(name): name for name in ("gamepad", "hid", "keyboard")}
    return help_text(names.get(type(device), "none"), getattr(device, "labels", None))


@dataclass
class Meter:
    """What the live line and the summary tell of a session."""

    idle: str = "nobody"  # who acts where no human does
    episodes: int = 0
    solved: int = 0
    steps: int = 0
    human_steps: int = 0
    intervals_ms: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=10))

    def add(self, info: dict[str, Any]) -> None:
        """One step. info: as `InputsControlWrapper` gives it."""
        self.steps += 1
        self.human_steps += bool(info[IS_INTERVENTION])
        self.intervals_ms.append(info[STEP_INTERVAL_MS])
        self.latencies_ms.append(info[MOTION_LATENCY_MS])
        self._recent.append(info[STEP_INTERVAL_MS])

    def line(self, info: dict[str, Any], late: int) -> str:
        """Who acts and how, the rate over the last ten steps, the latency of the last one."""
        action = info[TELEOP_ACTION]
        motion = " ".join(f"{axis}{value:+.2f}" for axis, value in zip("xyz", action, strict=False))
        gripper = ("open", "hold", "close")[round(float(np.clip(action[-1], 0, 2)))]
        parts = [
            f"{'human' if info[IS_INTERVENTION] else self.idle:6s}",
            f"{motion} {gripper:5s}",
            f"{1000.0 / np.mean(self._recent):.1f} Hz",
            f"latency {self.latencies_ms[-1]:.1f} ms",
        ]
        return " · ".join([*parts, f"{late} late"] if late else parts)

    def summary(self, late: int) -> str:
        """All of the session; [ms] of the step interval, and of the latency from command to motion."""
        counts = f"episodes {self.episodes}, solved {self.solved}, "
        counts += f"steps {self.steps}, by hand {self.human_steps}"
        if not self.steps:
            return counts
        p50, p99 = np.percentile(self.intervals_ms, [50, 99])
        latency = np.percentile(self.latencies_ms, [50, 99])
        return (
            f"{counts}\nstep interval p50 {p50:.1f}, p99 {p99:.1f}, max {max(self.intervals_ms):.1f} ms "
            f"({late} late) · command to motion p50 {latency[0]:.1f}, p99 {latency[1]:.1f} ms"
        )
