"""Envs with a person in the loop, made as gym-hil makes them; entry point of the Gamepad and Keyboard ids."""

from __future__ import annotations

import inspect
from typing import Any

import gymnasium

import envs
from envs.wrappers import EE_STEP_SIZE, ROTATION_STEP_SIZE, StepSize
from hil_rllib.console import nearest
from hil_rllib.devices import TeleopDevice
from hil_rllib.wrappers import (
    EEActionWrapper,
    GripperPenaltyWrapper,
    InputsControlWrapper,
    PassiveViewerWrapper,
    ResetDelayWrapper,
)


def wrap_env(
    env: gymnasium.Env,
    ee_step_size: StepSize | None = None,
    use_viewer: bool = False,
    use_gamepad: bool = False,
    use_gripper: bool = True,
    use_inputs_control: bool = False,
    auto_reset: bool = False,
    show_ui: bool = True,
    gripper_penalty: float = -0.02,
    reset_delay_seconds: float = 1.0,
    controller_config_path: str | None = None,
    *,
    use_orientation: bool = False,
    rotation_step_size: float = ROTATION_STEP_SIZE,
    device: TeleopDevice | str | None = None,
    mode: str = "hold",
    hz: float | None = None,
) -> gymnasium.Env:
    """The 7-D `env` with actions per axis, and what else is asked for.

    Arguments and defaults are gym-hil 0.1.14's up to controller_config_path; without use_gripper actions are
    3-D indeed. The viewer lies inside the person's control, so that a step is on the screen before the wait
    for the next.

    ee_step_size: metres at motion 1: {"x": …, "y": …, "z": …}, three numbers, or one; None is 0.025.
    use_orientation, rotation_step_size: see `EEActionWrapper`.
    device, mode, hz: see `InputsControlWrapper`; without `device`, use_gamepad chooses gamepad or keyboard.
    """
    env = GripperPenaltyWrapper(env, gripper_penalty)
    step_size = EE_STEP_SIZE if ee_step_size is None else ee_step_size
    env = EEActionWrapper(env, step_size, use_gripper, use_orientation, rotation_step_size)
    if use_viewer:
        env = PassiveViewerWrapper(env, show_left_ui=show_ui, show_right_ui=show_ui)
    if use_inputs_control:
        env = InputsControlWrapper(
            env,
            use_gripper=use_gripper,
            auto_reset=auto_reset,
            use_gamepad=use_gamepad,
            controller_config_path=controller_config_path,
            device=device,
            mode=mode,
            hz=hz,
        )
    return ResetDelayWrapper(env, reset_delay_seconds) if reset_delay_seconds else env


def make_env(env_id: str, *args: Any, **kwargs: Any) -> gymnasium.Env:
    """The env of a Base id, wrapped. Arguments are `wrap_env`'s; other keywords go to `gymnasium.make`.

    The time limit lies innermost, so `auto_reset` sees it. Raises ValueError for any other id.
    """
    bases = [f"hil/{name}Base-v0" for name in envs.TASKS.values()]
    if env_id not in bases:
        raise ValueError(f"make_env wraps the env of a Base id, got {env_id!r}.{nearest(env_id, bases)}")
    wrapping = _take_wrapping(kwargs)
    return wrap_env(gymnasium.make(env_id, disable_env_checker=True, **kwargs), *args, **wrapping)


def make_teleop_env(task: str, device: str, use_viewer: bool = True, **kwargs: Any) -> gymnasium.Env:
    """Entry point of `hil/…Gamepad-v0` and `hil/…Keyboard-v0`: a person may take over.

    task: a key of `envs.TASKS`. device: a name of `hil_rllib.devices`, `gamepad` being HID on macOS. Without
    a display pass use_viewer=False. Other keywords are those of `wrap_env` and of the task.

    `gymnasium.make` puts its time limit outside, where `auto_reset` cannot see it: with auto_reset make the
    id with max_episode_steps=-1, or use `make_env`.
    """
    wrapping = _take_wrapping(kwargs)
    if device not in ("gamepad", "keyboard"):
        wrapping["device"] = device
    return wrap_env(
        envs.make_base(task, **kwargs),
        use_viewer=use_viewer,
        use_gamepad=device == "gamepad",
        use_inputs_control=True,
        **wrapping,
    )


def _take_wrapping(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Those keywords that are `wrap_env`'s; they leave `kwargs`."""
    names = [name for name in inspect.signature(wrap_env).parameters if name in kwargs]
    return {name: kwargs.pop(name) for name in names}
