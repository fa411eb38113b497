"""An env saved in mid-episode goes on, in another env, as if it had never stopped."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

import envs  # noqa: F401
from envs.episode_state import env_state, set_env_state


def make(limit=12):
    return gymnasium.make(
        "hil/PandaPickCube-v0", random_block_position=True, max_episode_steps=limit, disable_env_checker=True
    )


def drive(env, actions):
    """What comes of the actions, through the ends of episodes."""
    seen = []
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        seen.append((*observation.values(), reward, terminated, truncated))
        if terminated or truncated:
            seen.append(tuple(env.reset()[0].values()))
    return seen


def test_episode_time_limit_and_the_next_starts_are_those_that_would_have_come():
    actions = np.random.default_rng(0).uniform([-1, -1, -1, 0], [1, 1, 1, 2], (40, 4)).astype(np.float32)
    first = make()
    first.reset(seed=3)
    drive(first, actions[:8])
    second = make()  # never reset
    set_env_state(second, env_state(first))
    for before, after in zip(drive(first, actions[8:]), drive(second, actions[8:]), strict=True):
        for a, b in zip(before, after, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_wrapper_that_does_not_tell_its_state_is_named():
    class Mine(gymnasium.Wrapper):
        pass

    with pytest.raises(TypeError, match="Mine cannot be saved in mid-episode: give it STATE"):
        env_state(Mine(make()))


def test_an_env_without_snapshots_is_named():
    env = gymnasium.make("CartPole-v1")
    env.reset()
    with pytest.raises(TypeError, match="CartPoleEnv cannot be saved in mid-episode"):
        env_state(env)
