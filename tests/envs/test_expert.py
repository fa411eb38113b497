"""The scripted expert."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

import envs  # noqa: F401  # registers the ids
from envs.expert import PickCubeExpert


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


def test_noise_needs_a_generator() -> None:
    env = gymnasium.make("hil/PandaPickCube-v0")
    with pytest.raises(ValueError, match="needs an rng"):
        PickCubeExpert(env, noise=0.1)


def test_expert_refuses_another_task() -> None:
    with pytest.raises(TypeError, match="drives PandaPickCubeEnv, not CartPoleEnv"):
        PickCubeExpert(gymnasium.make("CartPole-v1"))
