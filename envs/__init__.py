"""Simulated Panda tasks, `PandaPickCube` and `PandaArrangeBoxes`. Importing registers them with Gymnasium:

- `hil/<task>Base-v0`: action (7,), see `envs.panda.PandaEnv`
- `hil/<task>-v0`: action (4,), see `envs.wrappers.EEActionWrapper`
- `hil/<task>Viewer-v0`: action (7,) and MuJoCo's viewer, see `envs.viewer.PassiveViewerWrapper`
- `hil/<task>Gamepad-v0`, `hil/<task>Keyboard-v0`: a person may take over; action (4,)

Keyword arguments of `gymnasium.make` are those of the task's environment (`envs.pick_cube`,
`envs.arrange_boxes`) and of `make_task` or `make_viewer`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium

from envs import gl

if TYPE_CHECKING:
    from envs.panda import PandaEnv
    from envs.wrappers import StepSize

gl.prefer_headless()  # before anything imports mujoco, which reads the choice once

TASKS = {"pick_cube": "PandaPickCube", "arrange_boxes": "PandaArrangeBoxes"}  # task -> its name in ids
KEYBOARD_GRIPPER_PENALTY = -0.05  # gym-hil 0.1.14


def make_base(task: str, **kwargs: Any) -> PandaEnv:
    """The bare environment of `task`, a key of `TASKS`: 7-D actions."""
    from envs.arrange_boxes import PandaArrangeBoxesEnv
    from envs.pick_cube import PandaPickCubeEnv

    if task == "pick_cube":
        return PandaPickCubeEnv(**kwargs)
    if task == "arrange_boxes":
        return PandaArrangeBoxesEnv(**kwargs)
    raise ValueError(f"Unknown task '{task}'. Choose from {', '.join(TASKS)}.")


def make_task(
    task: str,
    ee_step_size: StepSize = 0.025,
    use_gripper: bool = True,
    gripper_penalty: float = -0.02,
    use_orientation: bool = False,
    rotation_step_size: float = 0.1,
    reset_delay_seconds: float = 0.0,
    **kwargs: Any,
) -> gymnasium.Env[Any, Any]:
    """`make_base(task, **kwargs)` with penalty, actions per axis and, if asked for, a wait before each reset.

    Unlike gym-hil's ids, which wait a second, these do so only when told: nobody may be watching.
    """
    from envs import wrappers

    env: gymnasium.Env[Any, Any] = wrappers.GripperPenaltyWrapper(make_base(task, **kwargs), gripper_penalty)
    env = wrappers.EEActionWrapper(env, ee_step_size, use_gripper, use_orientation, rotation_step_size)
    return wrappers.ResetDelayWrapper(env, reset_delay_seconds) if reset_delay_seconds else env


def make_viewer(
    task: str, show_left_ui: bool = False, show_right_ui: bool = False, **kwargs: Any
) -> gymnasium.Env[Any, Any]:
    """`make_base(task, **kwargs)` in MuJoCo's viewer."""
    from envs.viewer import PassiveViewerWrapper

    return PassiveViewerWrapper(make_base(task, **kwargs), show_left_ui, show_right_ui)


def _register(env_id: str, entry_point: str, **kwargs: Any) -> None:
    if env_id not in gymnasium.registry:
        gymnasium.register(env_id, entry_point=entry_point, max_episode_steps=100, kwargs=kwargs)


for _task, _name in TASKS.items():
    _register(f"hil/{_name}Base-v0", "envs:make_base", task=_task)
    _register(f"hil/{_name}-v0", "envs:make_task", task=_task)
    _register(f"hil/{_name}Viewer-v0", "envs:make_viewer", task=_task)
    # By name only: devices lie a layer above, and are imported when such an id is made.
    _teleop = "hil_rllib.factory:make_teleop_env"
    _register(f"hil/{_name}Gamepad-v0", _teleop, task=_task, device="gamepad")
    _register(
        f"hil/{_name}Keyboard-v0",
        _teleop,
        task=_task,
        device="keyboard",
        gripper_penalty=KEYBOARD_GRIPPER_PENALTY,
    )
