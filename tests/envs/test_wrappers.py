"""Action and penalty wrappers."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

import envs  # noqa: F401  # registers the ids

OPEN, HOLD, CLOSE = 0.0, 1.0, 2.0


def gripper_action(command: float) -> np.ndarray:
    return np.array([0.0, 0.0, 0.0, command], np.float32)


def test_penalty_falls_on_each_switch_and_only_then() -> None:
    env = gymnasium.make("hil/PandaPickCube-v0", gripper_penalty=-0.5)
    env.reset(seed=0)
    commands = [OPEN, HOLD, CLOSE, CLOSE, HOLD, OPEN, OPEN, 1.4, HOLD]
    expected = [0, 0, -0.5, 0, 0, -0.5, 0, 0, 0]
    steps = [env.step(gripper_action(command)) for command in commands]
    assert [info["discrete_penalty"] for *_, info in steps] == expected
    assert [reward for _, reward, *_ in steps] == [0.0] * len(steps)  # reported, not added


def test_gripper_command_moves_its_share_of_the_range() -> None:
    env = gymnasium.make("hil/PandaPickCube-v0")
    env.reset(seed=0)
    positions = []
    for command in (HOLD, CLOSE, 0.75, OPEN):
        env.step(gripper_action(command))
        positions.append(env.unwrapped.gripper)
    assert positions == [0.0, 255.0, 0.75 * 255.0, 0.0]


def test_without_gripper_the_action_is_three_dimensional_and_the_gripper_holds() -> None:
    env = gymnasium.make("hil/PandaPickCube-v0", use_gripper=False)
    assert env.action_space.shape == (3,)
    env.reset(seed=0, options={"gripper": 255})
    _, _, _, _, info = env.step(np.ones(3, np.float32))
    assert env.unwrapped.gripper == 255
    assert info["discrete_penalty"] == 0.0


@pytest.mark.parametrize(
    ("step_size", "moved"), [(0.01, (0.01, 0.01, 0.01)), ((0.03, 0.02, 0.01), (0.03, 0.02, 0.01))]
)
def test_step_size_scales_each_axis(step_size: Any, moved: tuple[float, ...]) -> None:
    env = gymnasium.make("hil/PandaPickCube-v0", ee_step_size=step_size)
    env.reset(seed=0)
    target = env.unwrapped.data.mocap_pos[0]
    start = target.copy()
    env.step(np.array([1.0, 1.0, 1.0, HOLD], np.float32))
    np.testing.assert_allclose(target - start, moved, atol=1e-12)
