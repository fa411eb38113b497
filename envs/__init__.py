"""Simulated Panda tasks. Importing registers them with Gymnasium.

- `hil/PandaPickCubeBase-v0`: action (7,), see `envs.panda.PandaEnv`
- `hil/PandaPickCube-v0`: action (4,), see `envs.wrappers.EEActionWrapper`
"""

from __future__ import annotations

from typing import Any

import gymnasium

from envs import gl

gl.prefer_headless()  # before anything imports mujoco, which reads the choice once


def make_pick_cube(
    ee_step_size: float | tuple[float, float, float] = 0.025,
    use_gripper: bool = True,
    gripper_penalty: float = -0.02,
    **kwargs: Any,
) -> gymnasium.Env[Any, Any]:
    """`PandaPickCubeEnv(**kwargs)` with penalty and 4-D (or, without gripper, 3-D) actions."""
    from envs.pick_cube import PandaPickCubeEnv
    from envs.wrappers import EEActionWrapper, GripperPenaltyWrapper

    env = GripperPenaltyWrapper(PandaPickCubeEnv(**kwargs), gripper_penalty)
    return EEActionWrapper(env, ee_step_size, use_gripper)


def _register(env_id: str, entry_point: str) -> None:
    if env_id not in gymnasium.registry:
        gymnasium.register(env_id, entry_point=entry_point, max_episode_steps=100)


_register("hil/PandaPickCubeBase-v0", "envs.pick_cube:PandaPickCubeEnv")
_register("hil/PandaPickCube-v0", "envs:make_pick_cube")
