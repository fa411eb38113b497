"""The arm keeps to its workspace and its speed, and holds still at nonsense, whoever gives the command."""

from __future__ import annotations

import logging
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import envs  # noqa: F401  # registers the ids
from envs.panda import MAX_TURN, PandaEnv
from envs.rotation import turn_between
from envs.safety import HELD_COMMANDS
from hil_rllib import contract

BASE, WRAPPED = "hil/PandaPickCubeBase-v0", "hil/PandaPickCube-v0"
ANY_FLOAT = st.floats(width=64)  # NaN, infinities, the largest and the smallest
BROKEN = [np.nan, np.inf, -np.inf]


def base_of(env: gymnasium.Env[Any, Any]) -> PandaEnv:
    assert isinstance(env.unwrapped, PandaEnv)
    return env.unwrapped


@pytest.mark.parametrize(
    ("env_id", "size", "options"),
    [
        (BASE, 7, {}),
        (BASE, 7, {"use_orientation": True}),
        (WRAPPED, 4, {}),
        ("hil/PandaArrangeBoxes-v0", 4, {}),
    ],
)
def test_no_command_moves_the_target_out_of_the_workspace_or_too_fast(
    env_id: str, size: int, options: dict[str, Any]
) -> None:
    env = gymnasium.make(env_id, max_episode_steps=-1, disable_env_checker=True, **options)
    env.reset(seed=0)
    base = base_of(env)
    base._advance = lambda steps: None  # type: ignore[method-assign]  # the target is decided before physics
    low, high = base.workspace

    @settings(max_examples=150, deadline=None)
    @given(arrays(np.float64, size, elements=ANY_FLOAT | st.floats(-2.0, 2.0)))
    def check(command: np.ndarray) -> None:
        target, quat, gripper = base.data.mocap_pos[0].copy(), base.data.mocap_quat[0].copy(), base.gripper
        *_, info = env.step(command)
        after = base.data.mocap_pos[0]
        assert ((after >= low) & (after <= high)).all()
        assert (np.abs(after - target) <= 0.025 + 1e-12).all()
        assert np.linalg.norm(turn_between(quat, base.data.mocap_quat[0])) <= np.sqrt(3) * 0.1 + 1e-9
        assert np.linalg.norm(turn_between(base._down_quat, base.data.mocap_quat[0])) <= MAX_TURN + 1e-9
        assert 0.0 <= base.gripper <= 255.0
        if np.isfinite(command).all():
            assert HELD_COMMANDS not in info
        else:
            np.testing.assert_array_equal(after, target)
            np.testing.assert_array_equal(base.data.mocap_quat[0], quat)
            assert base.gripper == gripper
            assert HELD_COMMANDS in info

    check()
    env.close()


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_command_is_a_hold_counted_in_info_and_said_once(
    broken: float, caplog: pytest.LogCaptureFixture
) -> None:
    commands = [[0.5, broken, 0.0, 2.0], [0.5, 0.5, 0.0, 1.0], [0.0, 0.0, 0.0, broken]]
    holds = [[0.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]]
    runs = []
    with caplog.at_level(logging.WARNING):
        for actions in (commands, holds):
            env = gymnasium.make(WRAPPED)
            env.reset(seed=0)
            runs.append([env.step(np.array(action)) for action in actions])
            env.close()
    for step, expected in zip(*runs, strict=True):
        np.testing.assert_array_equal(step[0]["agent_pos"], expected[0]["agent_pos"])
        assert step[1:4] == expected[1:4]
    assert [info.get(HELD_COMMANDS) for *_, info in runs[0]] == [1, None, 2]
    assert [info.get(HELD_COMMANDS) for *_, info in runs[1]] == [None] * 3
    assert len([r for r in caplog.records if "the arm holds still" in r.message]) == 1
    assert HELD_COMMANDS == contract.HELD_COMMANDS


def test_the_speed_limit_is_the_step_size_that_was_asked_for_within_what_the_arm_can_do() -> None:
    env = gymnasium.make(WRAPPED, ee_step_size=0.05)
    env.reset(seed=0)
    base = base_of(env)
    target = base.data.mocap_pos[0].copy()
    base.step(np.array([-1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]))  # past the wrapper
    np.testing.assert_allclose(base.data.mocap_pos[0] - target, [-0.05, 0.0, 0.0], atol=1e-12)
    env.close()
    with pytest.raises(ValueError, match=r"at most 0\.17 m"):
        gymnasium.make(WRAPPED, ee_step_size=0.3)
    with pytest.raises(ValueError, match=r"at most 0\.25"):
        gymnasium.make(WRAPPED, rotation_step_size=0.5)
