"""The arrange-boxes task: what it does not share with picking up the cube."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs  # noqa: F401  # registers the ids
from envs.arrange_boxes import START_X, START_Y, PandaArrangeBoxesEnv, place_reward

BASE, WRAPPED = "hil/PandaArrangeBoxesBase-v0", "hil/PandaArrangeBoxes-v0"
HOLD = np.array([0.0, 0.0, 0.0, 1.0], np.float32)
RED, BLUE = 0, 2  # channels: box 1 and its plate, box 2 and its plate, and nothing else
BOXES, PLATES = slice(0, 97), slice(97, 128)  # rows of the front image


@pytest.fixture(scope="module")
def env() -> Iterator[gymnasium.Env[Any, Any]]:
    env = gymnasium.make(WRAPPED)
    yield env
    env.close()


@pytest.mark.parametrize("env_id", [BASE, WRAPPED])
@pytest.mark.parametrize("kwargs", [{}, {"full_state": True}, {"image_obs": True}], ids=str)
@pytest.mark.filterwarnings("ignore::UserWarning:gymnasium")  # wrapped, gripper not in [-1, 1], unbounded
def test_gymnasium_accepts_it(env_id: str, kwargs: dict[str, Any]) -> None:
    env = gymnasium.make(env_id, render_quality="fast", **kwargs)
    check_env(env.unwrapped if env_id == BASE else env, skip_render_check=False)
    env.close()


def test_boxes_start_in_a_row_in_an_order_that_the_seed_decides(env: gymnasium.Env[Any, Any]) -> None:
    orders = []
    for seed in [*range(20), 0]:
        np.random.seed(len(orders))  # global numpy has no say
        env.reset(seed=seed)
        boxes = base_of(env).box_pos
        np.testing.assert_allclose(boxes[:, 0], START_X, atol=1e-6)
        np.testing.assert_allclose(np.sort(boxes[:, 1]), START_Y, atol=1e-6)
        orders.append(tuple(np.argsort(boxes[:, 1])))
    assert orders[0] == orders[-1]
    assert len(set(orders)) > 10


def test_state_is_that_of_box_one_or_on_request_of_all() -> None:
    for full_state, start in ((False, [0.3, 0.3, 0.02]), (True, [])):
        env = gymnasium.make(WRAPPED, full_state=full_state)
        xy = [[START_X, y] for y in START_Y[::-1]]
        observation, _ = env.reset(options={"block_xy": xy})
        boxes, targets = base_of(env).box_pos, base_of(env).target_pos
        expected = start or [*boxes.ravel(), *targets.ravel()]
        np.testing.assert_allclose(observation["environment_state"], expected, atol=1e-6)
        np.testing.assert_allclose(boxes[:, :2], xy, atol=1e-6)
        np.testing.assert_allclose(targets, [[0.5, y, 0.0] for y in START_Y], atol=1e-6)


@pytest.mark.parametrize("reward_type", ["sparse", "dense"])
def test_success_when_every_box_is_on_its_target_not_when_one_is_off(reward_type: str) -> None:
    env = gymnasium.make(WRAPPED, reward_type=reward_type)
    targets = np.array([[0.5, y] for y in START_Y])
    for off, success in ((0.015, True), (0.03, False)):  # 0.02 of the 0.03 m are height
        xy = targets.copy()
        xy[3, 0] += off
        _, info = env.reset(options={"block_xy": xy})
        assert info["succeed"] is success
        _, reward, terminated, truncated, info = env.step(HOLD)
        assert (terminated, truncated, info["succeed"]) == (success, False, success)
        dense = 4 * place_reward(0.02) + place_reward(float(np.hypot(off, 0.02)))
        assert reward == pytest.approx(
            float(success) if reward_type == "sparse" else dense, abs=0.02
        )  # at rest a box sinks in by 0.1 mm


@pytest.mark.parametrize(("box", "terminates"), [(0, True), (1, False)])
def test_only_box_one_ends_the_episode_by_leaving(
    env: gymnasium.Env[Any, Any], box: int, terminates: bool
) -> None:
    xy = np.stack([np.full(5, START_X), START_Y], axis=1)
    xy[box] = (0.9, 0.0)
    env.reset(options={"block_xy": xy})
    _, reward, terminated, truncated, info = env.step(HOLD)
    assert (reward, terminated, truncated, info["succeed"]) == (0.0, terminates, False, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cubes": 5}, "Unknown reset options \\['cubes'\\]. Choose from block_xy, gripper"),
        ({"block_xy": (0.4, 0.0)}, "5 pairs of finite numbers"),
        ({"block_xy": [(0.4, np.nan)] * 5}, "5 pairs of finite numbers"),
        ({"gripper": -1}, "0 \\(open\\) .. 255"),
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
        ({"full_state": True, "image_obs": True}, "Choose full_state=True or image_obs=True"),
    ],
)
def test_wrong_arguments_are_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gymnasium.make(WRAPPED, **kwargs)


@pytest.mark.parametrize("quality", ["full", "fast"])
def test_cameras_show_boxes_and_plates_where_they_are(quality: str) -> None:
    env = gymnasium.make(WRAPPED, image_obs=True, render_quality=quality)
    xy = np.stack([np.full(5, START_X), START_Y], axis=1)
    for first, second in ((0, 1), (1, 0)):
        xy[[0, 1]] = (START_X, START_Y[first]), (START_X, START_Y[second])
        pixels = env.reset(options={"block_xy": xy})[0]["pixels"]
        red, blue = (column_of(channel, pixels["front"][BOXES]) for channel in (RED, BLUE))
        assert (red < blue) == (first < second)  # the camera looks back along -x, so +y is to its right
        red, blue = (column_of(channel, pixels["front"][PLATES]) for channel in (RED, BLUE))
        assert red < blue < 64  # plates stay
    xy[0], xy[2] = (0.3, 0.0), (0.3, 0.3)  # the red box below the hand
    pixels = env.reset(options={"block_xy": xy})[0]["pixels"]
    assert column_of(RED, pixels["wrist"]) == pytest.approx(64, abs=10)
    env.close()


def column_of(channel: int, image: np.ndarray) -> float:
    """Mean column of the pixels that are strong in this channel alone."""
    values = image.astype(int)
    others = np.delete(values, channel, axis=-1).max(axis=-1)
    _, columns = np.nonzero(values[..., channel] > others + 90)
    assert columns.size > 10
    return float(columns.mean())


def test_snapshot_continues_bit_by_bit_in_another_environment() -> None:
    first, second = (gymnasium.make(BASE, full_state=True).unwrapped for _ in range(2))
    rng = np.random.default_rng(0)
    first.reset(seed=0)
    for _ in range(5):
        first.step(rng.uniform(-0.02, 0.02, 7))
    second.reset(seed=1)
    second.set_state(first.get_state())
    for action in rng.uniform(-0.02, 0.02, (5, 7)):
        ours, theirs = first.step(action), second.step(action)
        for key, value in ours[0].items():
            np.testing.assert_array_equal(value, theirs[0][key])
    np.testing.assert_array_equal(first.get_state(), second.get_state())


def base_of(env: gymnasium.Env[Any, Any]) -> PandaArrangeBoxesEnv:
    base = env.unwrapped
    assert isinstance(base, PandaArrangeBoxesEnv)
    return base
