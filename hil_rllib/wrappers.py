"""gym-hil's wrappers under their own names; the one that puts a person in charge is defined here.

`EEActionWrapper`, `GripperPenaltyWrapper`, `ResetDelayWrapper`, `PassiveViewerWrapper` come from `envs`,
`load_controller_config` from the devices.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.viewer import PassiveViewerWrapper
from envs.wrappers import EEActionWrapper, GripperPenaltyWrapper, ResetDelayWrapper
from hil_rllib.collect.pacing import OperatorWrapper
from hil_rllib.contract import (
    HELD_COMMANDS,
    IDLE,
    IS_INTERVENTION,
    MOTION_DIM,
    RERECORD,
    SUCCESS,
    Command,
    EpisodeEnd,
    Gripper,
)
from hil_rllib.devices import InterventionMode, TeleopDevice, make_device
from hil_rllib.devices.gamepad_maps import load_controller_config
from hil_rllib.devices.guard import DeviceGuard

__all__ = [
    "EEActionWrapper",
    "GripperPenaltyWrapper",
    "InputsControlWrapper",
    "PassiveViewerWrapper",
    "ResetDelayWrapper",
    "load_controller_config",
]

# In `info` of every step, beside those of `contract`.
TELEOP_ACTION = "teleop_action"  # the action that was executed, whoever gave it; LeRobot's name
ACTION_INTERVENTION = "action_intervention"  # the same, gym-hil's older name
NEXT_SUCCESS = "next.success"  # whether the task is solved now, by the env's word or the person's
# From reading the device until the arm has moved (and the viewer shows it).
MOTION_LATENCY_MS = "command_latency_ms"


class InputsControlWrapper(gymnasium.Wrapper):
    """A person at an input device takes over from the policy, and ends the episode.

    `step(action)` reads the device and executes the person's command where they are in charge, else `action`.
    A device that is not plugged in, or is lost, is said once; the policy keeps control until it is there.

    `info` of every step: `is_intervention`, `teleop_action` and `action_intervention` (what was executed),
    `next.success`, `success_label`, `rerecord_episode`, `step_interval_ms`, `command_latency_ms`;
    from below come `succeed` and `discrete_penalty`. Success and failure by the person terminate, rerecord
    truncates.

    Arguments up to controller_config_path are gym-hil 0.1.14's, with these differences: input_threshold is
    obeyed (gym-hil never reads it; its default 0.001 would be the noise of a stick), and use_gripper=False
    holds the gripper where the env has one.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        x_step_size: float = 1.0,
        y_step_size: float = 1.0,
        z_step_size: float = 1.0,
        use_gripper: bool = False,
        auto_reset: bool = False,
        input_threshold: float = 0.1,
        use_gamepad: bool = True,
        controller_config_path: str | None = None,
        *,
        device: TeleopDevice | str | None = None,
        mode: str = "hold",
        hz: float | None = None,
    ) -> None:
        """env: action (3,) or (6,) of motion, or these and the gripper: (4,) or (7,).

        x_step_size, y_step_size, z_step_size: action at full deflection of the device along each axis.
        auto_reset: an ended episode is followed by the next at once; `step` then returns its first
            observation, and the last one of the old episode in info["final_obs"]. A `TimeLimit` must lie
            inside, or it counts on across episodes.
        input_threshold: deflection from which a motion takes over in mode `auto`.
        use_gamepad: gamepad (through HID on macOS) or keyboard, where `device` does not say.
        controller_config_path: a JSON file with the gamepad's map.
        device: a device of `hil_rllib.devices`, owned from here on, or its name.
        mode: hold, toggle or auto; see `InterventionMode`. A synthetic device is taken at its word.
        hz: control rate to keep [1/s]; None leaves the clock to the caller.
        """
        space = env.action_space
        if not isinstance(space, spaces.Box) or space.shape not in ((3,), (4,), (6,), (7,)):
            raise ValueError(
                f"InputsControlWrapper drives 3 or 6 motions, with or without a gripper; got {space}."
            )
        self._box = space
        self._has_gripper = space.shape[0] in (4, 7)
        if use_gripper and not self._has_gripper:
            raise ValueError(
                f"use_gripper=True needs an env whose actions have a gripper; this one takes {space.shape}. "
                "Make it with use_gripper=True too, or pass use_gripper=False."
            )
        if device is None:
            device = ("hid" if sys.platform == "darwin" else "gamepad") if use_gamepad else "keyboard"
        if isinstance(device, str):
            options = {"controller_config": controller_config_path} if controller_config_path else {}
            device = make_device(device, **options)
        self._timer = _Timer(env)
        self._operator = OperatorWrapper(self._timer, hz)
        super().__init__(self._operator)
        self.auto_reset, self.use_gripper = auto_reset, use_gripper
        self._scale = np.array([x_step_size, y_step_size, z_step_size])
        synthetic = InterventionMode("hold", release_s=0.0)
        self._mode = device.intervention_mode(mode) if device.realtime else synthetic
        self._mode.dead_zone = input_threshold
        self._guard = DeviceGuard(device)
        self._operator.on_close(self._guard.close)
        self._guard.start(self)
        self._operator.on_step(self._guard.show)

    @property
    def device(self) -> TeleopDevice:
        return self._guard.device

    @property
    def missed_deadlines(self) -> int:
        """Steps that came later than `hz` asks for."""
        return self._operator.missed_deadlines

    def idle_action(self) -> NDArray[np.float32]:
        """The action of nobody: no motion, gripper held."""
        return self._action(IDLE)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """A new episode; a verdict about the old one that was not read yet is forgotten."""
        result = self.env.reset(seed=seed, options=options)
        self._guard.reset()  # afterwards: resetting takes a while, in which a key may still be pressed
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        read_at = time.perf_counter()
        command = self._command()
        executed = action if command is None else self._action(command)
        observation, reward, terminated, truncated, info = self.env.step(executed)
        if HELD_COMMANDS in info:
            executed = self.idle_action()
        info[MOTION_LATENCY_MS] = 1000.0 * (self._timer.moved_at - read_at)
        info[IS_INTERVENTION] = command is not None
        inside = np.clip(executed, self._box.low, self._box.high)  # as the env does
        info[TELEOP_ACTION] = info[ACTION_INTERVENTION] = np.array(inside, np.float32)
        info[NEXT_SUCCESS] = bool(info.get(SUCCESS, False))
        info.setdefault(RERECORD, False)
        if self.auto_reset and (terminated or truncated):
            info["final_obs"] = observation
            observation, first = self.reset()
            info = {**first, **info}
        return observation, reward, terminated, truncated, info

    def _command(self) -> Command | None:
        """What the person does now, or None where they leave it to the policy."""
        self._operator.reading()
        command = self._guard.read()
        label = command is not None and command.label
        if command is None:
            self._mode.reset()
        elif command.end is not EpisodeEnd.NONE:
            self._operator.request_end(command.end)
        if command is not None and not self._mode.update(command, time.monotonic()):
            command = None
        self._operator.declare(command is not None, self.device.input_age_s, label)
        return command

    def _action(self, command: Command) -> NDArray[np.float32]:
        """The command in this env's action space; what no device commands, such as a turn, is 0."""
        low, high = self._box.low, self._box.high
        action = np.zeros(low.shape, np.float32)
        action[:MOTION_DIM] = self._scale * command.motion
        if self._has_gripper:
            gripper = command.gripper if self.use_gripper else Gripper.HOLD
            action[-1] = low[-1] + (high[-1] - low[-1]) * gripper / Gripper.CLOSE  # [0, 2], or [-1, 1]
        return np.clip(action, low, high)


class _Timer(gymnasium.Wrapper):
    """Notes when the env has moved, before the pacing around it waits."""

    moved_at = 0.0  # [s] of time.perf_counter

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        result = self.env.step(action)
        self.moved_at = time.perf_counter()
        return result
