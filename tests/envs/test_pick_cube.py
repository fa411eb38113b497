"""The pick-cube task as an environment: Gymnasium's contract, seeds, options, endings, snapshots."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs  # noqa: F401  # registers the ids
from envs.expert import PickCubeExpert
from envs.pick_cube import SAMPLING_BOX

BASE, WRAPPED = "hil/PandaPickCubeBase-v0", "hil/PandaPickCube-v0"
HOLD = np.array([0.0, 0.0, 0.0, 1.0], np.float32)
UP = np.array([0.0, 0.0, 1.0, 1.0], np.float32)


@pytest.fixture(scope="module")
def env() -> Iterator[gymnasium.Env[Any, Any]]:
    env = gymnasium.make(WRAPPED, random_block_position=True)
    yield env
    env.close()


def rollout(env: gymnasium.Env[Any, Any], seed: int, steps: int = 10) -> np.ndarray:
    observation, _ = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    rows = [observation]
    for _ in range(steps):
        action = rng.uniform([-1, -1, -1, 0], [1, 1, 1, 2]).astype(np.float32)
        rows.append(env.step(action)[0])
    return np.array([np.concatenate([row["agent_pos"], row["environment_state"]]) for row in rows])


@pytest.mark.parametrize("env_id", [BASE, WRAPPED])
@pytest.mark.parametrize("image_obs", [False, True])
@pytest.mark.filterwarnings("ignore::UserWarning:gymnasium")  # wrapped, gripper not in [-1, 1], unbounded
def test_gymnasium_accepts_it(env_id: str, image_obs: bool) -> None:
    env = gymnasium.make(env_id, image_obs=image_obs, render_quality="fast")
    check_env(env.unwrapped if env_id == BASE else env, skip_render_check=False)
    env.close()


def test_a_seed_decides_the_whole_episode(env: gymnasium.Env[Any, Any]) -> None:
    np.testing.assert_array_equal(rollout(env, seed=3), rollout(env, seed=3))
    assert not np.array_equal(rollout(env, seed=3)[0], rollout(env, seed=4)[0])


def test_global_numpy_seed_changes_nothing(env: gymnasium.Env[Any, Any]) -> None:
    starts = []
    for seed in (1, 2):
        np.random.seed(seed)
        starts.append(env.reset(seed=7)[0]["environment_state"])
    np.testing.assert_array_equal(*starts)


def test_random_cubes_fill_the_sampling_box(env: gymnasium.Env[Any, Any]) -> None:
    cubes = np.array([env.reset(seed=seed)[0]["environment_state"][:2] for seed in range(100)])
    assert (cubes >= SAMPLING_BOX[0]).all()
    assert (cubes <= SAMPLING_BOX[1]).all()
    np.testing.assert_allclose(np.ptp(cubes, axis=0), np.ptp(SAMPLING_BOX, axis=0), rtol=0.1)


def test_cube_is_fixed_unless_random() -> None:
    env = gymnasium.make(WRAPPED)
    for seed in (0, 1):
        observation, _ = env.reset(seed=seed)
        np.testing.assert_allclose(observation["environment_state"], [0.5, 0.0, 0.02], atol=1e-6)


def test_reset_options_place_cube_and_gripper(env: gymnasium.Env[Any, Any]) -> None:
    home = env.reset(seed=0)[0]["agent_pos"]
    observation, _ = env.reset(seed=0, options={"block_xy": (0.35, 0.1), "gripper": 255})
    np.testing.assert_allclose(observation["environment_state"], [0.35, 0.1, 0.02], atol=1e-6)
    assert observation["agent_pos"][14] == env.unwrapped.gripper == 255
    np.testing.assert_array_equal(observation["agent_pos"][:14], home[:14])  # the arm is home, at rest
    closed = env.unwrapped.data.joint("right_driver_joint").qpos[0]
    env.step(HOLD)
    assert closed > 0.5  # [rad] the fingers are closed already …
    assert abs(env.unwrapped.data.joint("right_driver_joint").qpos[0] - closed) < 0.01  # … and stay


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cube": (0.4, 0)}, "Unknown reset options \\['cube'\\]"),
        ({"block_xy": (0.4, np.nan)}, "two finite numbers"),
        ({"block_xy": 0.4}, "two finite numbers"),
        ({"gripper": 256}, "0 \\(open\\) .. 255"),
    ],
)
def test_wrong_reset_options_are_named(
    env: gymnasium.Env[Any, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        env.reset(options=options)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"reward_type": "shaped"}, "Unknown reward_type 'shaped'"),
        ({"render_quality": "ful"}, "Unknown render_quality 'ful'. Choose from full, fast"),
    ],
)
def test_wrong_arguments_are_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gymnasium.make(WRAPPED, **kwargs)


def test_action_of_another_shape_is_refused(env: gymnasium.Env[Any, Any]) -> None:
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"shape \(7,\).*takes \(4,\)"):
        env.step(np.zeros(7))


def test_action_outside_the_box_is_clipped_to_it(env: gymnasium.Env[Any, Any]) -> None:
    env.reset(seed=0)
    state = env.unwrapped.get_state()
    wild, *_ = env.step(np.array([5.0, -9.0, 0.5, 7.0]))
    env.unwrapped.set_state(state)
    clipped, *_ = env.step(np.array([1.0, -1.0, 0.5, 2.0]))
    np.testing.assert_array_equal(wild["agent_pos"], clipped["agent_pos"])


def test_motion_of_one_is_the_step_size_and_stops_at_the_workspace(env: gymnasium.Env[Any, Any]) -> None:
    env.reset(seed=0)
    start = env.unwrapped.tcp_pos
    for action in [UP] * 8 + [HOLD] * 3:  # the TCP lags behind its target
        env.step(action)
    np.testing.assert_allclose(env.unwrapped.tcp_pos - start, [0, 0, 8 * 0.025], atol=5e-3)
    for _ in range(20):
        env.step(UP)
    assert env.unwrapped.tcp_pos[2] == pytest.approx(0.5, abs=5e-3)


def test_time_limit_truncates_and_does_not_terminate() -> None:
    env = gymnasium.make(WRAPPED, max_episode_steps=3)
    env.reset(seed=0)
    ends = [env.step(HOLD)[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_cube_out_of_reach_terminates_without_success(env: gymnasium.Env[Any, Any]) -> None:
    env.reset(options={"block_xy": (0.5, 0.21)})
    _, reward, terminated, truncated, info = env.step(HOLD)
    assert (reward, terminated, truncated, info["succeed"]) == (0.0, True, False, False)


@pytest.mark.parametrize("reward_type", ["sparse", "dense"])
def test_lifting_ends_in_success(reward_type: str) -> None:
    env = gymnasium.make(WRAPPED, reward_type=reward_type)
    _, info = env.reset(seed=0)
    assert info["succeed"] is False
    expert = PickCubeExpert(env)
    rewards, terminated = [], False
    while not terminated:
        _, reward, terminated, truncated, info = env.step(expert.action())
        rewards.append(float(reward))
        assert not truncated
        assert info["succeed"] is terminated
    if reward_type == "sparse":
        assert rewards == [0.0] * (len(rewards) - 1) + [1.0]
    else:
        assert 0.0 <= min(rewards) < rewards[-1] <= 1.0
        assert rewards[-1] > 0.7  # lifted (0.7) and in the hand


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, pickle.dumps])
def test_a_copy_that_would_not_move_is_refused(env: gymnasium.Env[Any, Any], duplicate: Any) -> None:
    with pytest.raises(TypeError, match=r"set_state with this one's get_state\(\)"):
        duplicate(env.unwrapped)


def test_snapshot_continues_bit_by_bit_in_another_environment() -> None:
    first, second = (gymnasium.make(BASE, image_obs=True, render_quality="fast").unwrapped for _ in range(2))
    rng = np.random.default_rng(0)
    first.reset(seed=0)
    for steps in (0, 5, 20):  # right after reset, in free motion, later still
        for _ in range(steps):
            first.step(rng.uniform(-0.02, 0.02, 7))
        second.reset(seed=1)
        second.set_state(first.get_state())
        np.testing.assert_array_equal(first.get_state(), second.get_state())
        for action in rng.uniform(-0.02, 0.02, (3, 7)):
            ours, theirs = first.step(action), second.step(action)
            assert ours[1:] == theirs[1:]
            np.testing.assert_array_equal(ours[0]["agent_pos"], theirs[0]["agent_pos"])
            for camera, image in ours[0]["pixels"].items():
                np.testing.assert_array_equal(image, theirs[0]["pixels"][camera])
    with pytest.raises(ValueError, match="has shape"):
        first.set_state(np.zeros(3))
    first.close()
    second.close()
