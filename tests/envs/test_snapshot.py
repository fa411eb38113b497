"""Objects at rest sleep: nothing else changes by it, and snapshots know who slept."""

from __future__ import annotations

import gymnasium
import mujoco
import numpy as np
import pytest

import envs  # noqa: F401  # registers the ids
from envs.arrange_boxes import PandaArrangeBoxesEnv

DOWN = np.array([0.0, 0, -0.025, 0, 0, 0, 0])
INTERNALS = ("qpos", "qvel", "qacc_warmstart", "xpos", "geom_xpos", "site_xpos", "sensordata", "tree_asleep")


def make(sleep: bool = True) -> PandaArrangeBoxesEnv:
    env = gymnasium.make("hil/PandaArrangeBoxesBase-v0").unwrapped
    assert isinstance(env, PandaArrangeBoxesEnv)
    if not sleep:
        env.model.opt.enableflags &= ~int(mujoco.mjtEnableBit.mjENBL_SLEEP)
    return env


def asleep(env: PandaArrangeBoxesEnv) -> int:
    return int((env.data.tree_asleep >= 0).sum())


def push_a_box(env: PandaArrangeBoxesEnv, steps: int) -> np.ndarray:
    """(steps, 5, 3) where the boxes are while the hand comes down beside the middle one, then sweeps."""
    places = []
    for _ in range(steps):
        beside = env.box_pos[2] + np.array([0.0, 0.12, 0.0])
        towards = np.zeros(7)
        towards[:3] = np.clip(beside - env.tcp_pos, -0.025, 0.025)
        if env.tcp_pos[2] < 0.05:
            towards[:3] = (0.0, -0.02, 0.0)
        env.step(towards)
        places.append(env.box_pos)
    return np.array(places)


def test_boxes_at_rest_sleep_until_the_hand_pushes_one() -> None:
    env = make()
    env.reset(seed=0)
    assert asleep(env) == 0
    for _ in range(8):
        env.step(np.zeros(7))
    assert asleep(env) == 5
    start = env.box_pos
    places = push_a_box(env, 35)
    moved = np.linalg.norm(places[-1] - start, axis=1)
    awake = env.data.tree_asleep[1:] < 0  # the robot is the first tree
    assert 0 < awake.sum() < 5
    assert (moved[awake] > 0.01).all()
    assert (moved == 0.0).any()


def test_sleep_changes_a_trajectory_by_no_more_than_rounding_does() -> None:
    with_sleep, without = make(), make(sleep=False)
    for env in (with_sleep, without):
        env.reset(seed=0)
    for _ in range(15):
        for env in (with_sleep, without):
            env.step(DOWN / 5)
        np.testing.assert_allclose(with_sleep.data.qpos, without.data.qpos, rtol=0, atol=1e-13)
    assert (asleep(with_sleep), asleep(without)) == (5, 0)
    # Contact amplifies it, as it does for every rounding error.
    np.testing.assert_allclose(push_a_box(with_sleep, 35), push_a_box(without, 35), rtol=0, atol=1e-4)


@pytest.mark.parametrize("elsewhere", ["just reset", "asleep elsewhere", "just woken"])
def test_snapshot_of_sleepers_continues_bit_by_bit_wherever_the_other_was(elsewhere: str) -> None:
    first, second = make(), make()
    first.reset(seed=0)
    second.reset(seed=1)
    if elsewhere == "asleep elsewhere":
        push_a_box(second, 10)
    elif elsewhere == "just woken":
        push_a_box(second, 30)
    sleepers = set()
    for _ in range(14):
        push_a_box(first, 3)
        sleepers.add(asleep(first))
        second.set_state(first.get_state())
        for _ in range(2):
            for name in INTERNALS:
                ours, theirs = getattr(first.data, name), getattr(second.data, name)
                np.testing.assert_array_equal(ours, theirs, err_msg=name)
            np.testing.assert_array_equal(first.get_state(), second.get_state())
            first.step(DOWN / 10)
            second.step(DOWN / 10)
    assert {0, 4, 5} <= sleepers  # all awake, one pushed, all asleep
