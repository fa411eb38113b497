"""Action and penalty wrappers."""

from __future__ import annotations

import inspect
import time
from typing import Any

import gymnasium
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import envs  # noqa: F401  # registers the ids
from envs.panda import MAX_TURN
from envs.wrappers import ResetDelayWrapper

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


def test_a_command_that_was_held_costs_nothing() -> None:
    env = gymnasium.make("hil/PandaPickCube-v0")
    env.reset(seed=0)
    *_, info = env.step(np.array([np.nan, 0.0, 0.0, CLOSE], np.float32))
    assert (info["held_commands"], info["discrete_penalty"]) == (1, 0.0)


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


def test_step_size_may_name_the_axes_as_in_gym_hil() -> None:
    env = gymnasium.make("hil/PandaPickCube-v0", ee_step_size={"z": 0.01, "x": 0.03, "y": 0.02})
    env.reset(seed=0)
    target = env.unwrapped.data.mocap_pos[0]
    start = target.copy()
    env.step(np.array([1.0, 1.0, 1.0, HOLD], np.float32))
    np.testing.assert_allclose(target - start, (0.03, 0.02, 0.01), atol=1e-12)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"ee_step_size": {"x": 0.01}}, r"names the axes \['x'\]; it needs x, y and z"),
        ({"ee_step_size": (0.01, 0.01)}, "one positive number of metres, or three"),
        ({"ee_step_size": -0.01}, "one positive number of metres, or three"),
        ({"rotation_step_size": 0.0}, r"must be positive \[rad\]"),
        ({"reset_delay_seconds": -1.0}, "a time of 0 s or more"),
    ],
)
def test_wrong_wrapper_arguments_are_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gymnasium.make("hil/PandaPickCube-v0", **kwargs)


@pytest.mark.parametrize(
    ("use_orientation", "use_gripper", "shape"),
    [(False, False, (3,)), (False, True, (4,)), (True, False, (6,)), (True, True, (7,))],
)
def test_action_has_what_was_asked_for(
    use_orientation: bool, use_gripper: bool, shape: tuple[int, ...]
) -> None:
    env = gymnasium.make("hil/PandaPickCube-v0", use_orientation=use_orientation, use_gripper=use_gripper)
    assert env.action_space.shape == shape
    env.reset(seed=0)
    for _ in range(3):  # from open, towards closed where there is a gripper
        env.step(env.action_space.high)
    base = env.unwrapped
    assert base.gripper == (255.0 if use_gripper else 0.0)
    turned = not np.array_equal(base.data.mocap_quat[0], base.model.body("target").quat)
    assert turned is use_orientation


def tcp_mat(base: gymnasium.Env) -> np.ndarray:
    """(3, 3) the TCP's axes in the world frame, as columns."""
    return base.data.site("pinch").xmat.reshape(3, 3).copy()


@pytest.mark.parametrize("task", ["PandaPickCube", "PandaArrangeBoxes"])
@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_turn_turns_the_hand_about_that_world_axis_by_that_angle(
    task: str, axis: int, direction: float
) -> None:
    env = gymnasium.make(f"hil/{task}-v0", use_orientation=True, rotation_step_size=0.06)
    env.reset(seed=0)
    base = env.unwrapped
    still, turn = np.zeros(7), np.zeros(7)
    still[6] = turn[6] = HOLD
    turn[3 + axis] = direction
    settle(env, still)
    before, place = tcp_mat(base), base.tcp_pos
    for _ in range(5):
        env.step(turn)
    settle(env, still)
    expected = np.zeros(3)
    expected[axis] = direction * 5 * 0.06
    actual = Rotation.from_matrix(tcp_mat(base) @ before.T).as_rotvec()
    np.testing.assert_allclose(actual, expected, atol=0.01)  # [rad]
    np.testing.assert_allclose(base.tcp_pos, place, atol=0.003)  # [m] about the TCP, which stays


def test_turning_stops_at_its_limit_and_comes_back() -> None:
    env = gymnasium.make("hil/PandaPickCube-v0", use_orientation=True, use_gripper=False)
    env.reset(seed=0)
    base = env.unwrapped
    yaw = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    settle(env, 0 * yaw)
    before = tcp_mat(base)
    for _ in range(40):  # 4 rad were asked for
        env.step(yaw)
    settle(env, 0 * yaw)
    turned = Rotation.from_matrix(tcp_mat(base) @ before.T).as_rotvec()
    np.testing.assert_allclose(turned, [0.0, 0.0, MAX_TURN], atol=0.01)
    for _ in range(15):
        env.step(-yaw)
    settle(env, 0 * yaw)
    back = Rotation.from_matrix(tcp_mat(base) @ before.T).as_rotvec()
    np.testing.assert_allclose(back, [0.0, 0.0, MAX_TURN - 1.5], atol=0.01)


def settle(env: gymnasium.Env[Any, Any], still: np.ndarray) -> None:
    for _ in range(12):
        env.step(still)


def test_delay_waits_in_reset_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    env = gymnasium.make("hil/PandaPickCube-v0", reset_delay_seconds=0.7)
    observation, _ = env.reset(seed=5, options={"block_xy": (0.4, 0.1)})
    env.step(gripper_action(HOLD))
    assert waits == [0.7]
    np.testing.assert_allclose(observation["environment_state"][:2], (0.4, 0.1))  # arguments pass through
    assert inspect.signature(ResetDelayWrapper).parameters["delay_seconds"].default == 1.0  # gym-hil's
    gymnasium.make("hil/PandaPickCube-v0").reset()
    assert waits == [0.7]


def test_every_id_of_gym_hil_has_its_counterpart() -> None:
    pytest.importorskip("gym_hil")
    theirs = {name.split("/")[1] for name in gymnasium.registry if name.startswith("gym_hil/")}
    ours = {name.split("/")[1] for name in gymnasium.registry if name.startswith("hil/")}
    assert theirs == ours
    assert len(ours) == 10
    for name in ours:
        assert gymnasium.spec(f"hil/{name}").max_episode_steps == 100
