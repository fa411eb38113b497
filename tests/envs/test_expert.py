"""The scripted experts."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

import envs  # noqa: F401  # registers the ids
from envs.expert import PickCubeExpert, make_expert


@pytest.mark.parametrize(("noise", "mean_steps"), [(0.0, 20), (0.3, 25)])
def test_expert_lifts_every_random_cube(noise: float, mean_steps: float) -> None:
    env = gymnasium.make("hil/PandaPickCube-v0", random_block_position=True)
    expert = PickCubeExpert(env, noise, np.random.default_rng(0))
    lengths = []
    for seed in range(20):
        env.reset(seed=seed)
        expert.reset()
        terminated = truncated = False
        steps = 0
        while not (terminated or truncated):
            action = expert.action()
            assert env.action_space.contains(action)
            _, _, terminated, truncated, info = env.step(action)
            steps += 1
        assert info["succeed"], f"seed {seed} failed after {steps} steps"
        lengths.append(steps)
    assert np.mean(lengths) < mean_steps


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_expert_carries_every_box_to_its_plate(noise: float) -> None:
    env = gymnasium.make("hil/PandaArrangeBoxes-v0", max_episode_steps=300)
    expert = make_expert(env, noise, np.random.default_rng(0))
    for seed in range(3):
        env.reset(seed=seed)
        expert.reset()
        best, waited, ended = -np.inf, 0, False
        while not ended:
            action = expert.action()
            assert env.action_space.contains(action)
            _, _, terminated, truncated, info = env.step(action)
            ended = terminated or truncated
            best, waited = (expert.progress, 0) if expert.progress > best else (best, waited + 1)
            assert waited < 40, f"seed {seed}: no progress"
        assert info["succeed"], f"seed {seed}"


def test_expert_goes_on_with_the_box_that_somebody_else_has_in_the_hand() -> None:
    env = gymnasium.make("hil/PandaArrangeBoxes-v0", max_episode_steps=300)
    env.reset(seed=0)
    first = make_expert(env)
    while max_height(env) < 0.06:
        env.step(first.action())
    second = make_expert(env)
    second.look()
    grippers = []
    while max_height(env) > 0.05:  # until that box is put down
        action = second.action()
        grippers.append(float(action[3]))
        env.step(action)
    assert set(grippers[:-3]) == {1.0}  # never opened on the way
    assert sum(np.linalg.norm(env.unwrapped.box_pos - env.unwrapped.target_pos, axis=1) < 0.05) == 1


def max_height(env: gymnasium.Env[Any, Any]) -> float:
    """Of the boxes' centres [m]."""
    return float(env.unwrapped.box_pos[:, 2].max())  # type: ignore[attr-defined]


def test_noise_needs_a_generator() -> None:
    env = gymnasium.make("hil/PandaPickCube-v0")
    with pytest.raises(ValueError, match="needs an rng"):
        PickCubeExpert(env, noise=0.1)


def test_expert_refuses_another_task() -> None:
    with pytest.raises(TypeError, match="drives PandaPickCubeEnv, not CartPoleEnv"):
        PickCubeExpert(gymnasium.make("CartPole-v1"))
