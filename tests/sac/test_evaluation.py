"""Greedy evaluation: it can tell success from failure, and gives the same answer twice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from envs.expert import PickCubeExpert
from hil_rllib.collect.encode import encoded_space
from hil_rllib.config import Config, EnvSection, EvaluationSection
from hil_rllib.contract import Gripper
from hil_rllib.sac.config import HILSACConfig, build_env
from hil_rllib.sac.evaluation import Evaluator, greedy_seeds, resets_differ, run_episodes


@pytest.fixture(scope="module")
def config(cache, configure):
    return configure("evaluation.episodes=2", "evaluation.seed=500", "env.max_episode_steps=40")


@pytest.fixture(scope="module")
def env(config):
    env = build_env(config.env)
    yield env
    env.close()


class Does:
    """A policy that asks a function, and remembers nothing."""

    def __init__(self, act):
        self._act = act

    def __call__(self, obs):
        return self._act()

    def reset(self):
        pass


def test_the_expert_passes_and_idling_fails(env):
    expert = PickCubeExpert(env)
    passed = run_episodes(Does(expert.action), env, [1, 2, 3])
    assert [r.success for r in passed] == [True] * 3
    assert all(r.steps < 40 and r.reward == 1.0 for r in passed)
    idle = np.array([0, 0, 0, Gripper.HOLD], np.float32)
    (failed,) = run_episodes(Does(lambda: idle), env, [1])
    assert (failed.success, failed.steps, failed.reward, failed.penalty) == (False, 40, 0.0, 0.0)


def test_penalties_of_the_gripper_add_up(env):
    still = np.zeros(3, np.float32)
    toggling = itertools.cycle([np.array([*still, g], np.float32) for g in (Gripper.CLOSE, Gripper.OPEN)])
    (result,) = run_episodes(Does(lambda: next(toggling)), env, [1])
    assert result.penalty == pytest.approx(-0.02 * 40)


@pytest.mark.parametrize(
    ("env", "episodes"),
    [
        (EnvSection(image_obs=False, random_block_position=True), 7),
        (EnvSection(image_obs=False), 1),  # 7 would be one, seven times
        (EnvSection(image_obs=False, id="hil/PandaArrangeBoxes-v0"), 7),
    ],
)
def test_a_greedy_episode_is_measured_once_where_every_reset_is_the_same(env, episodes):
    assert len(greedy_seeds(Config(env=env, evaluation=EvaluationSection(episodes=7)))) == episodes
    made = build_env(env)
    forward = np.array([1, 0, -0.5, Gripper.HOLD], np.float32)
    lived = []
    for seed in (500, 501):
        made.reset(seed=seed)
        lived.append([made.unwrapped.data.qpos.tolist() for _ in range(20) if made.step(forward)])
        made.step(-forward)  # of which nothing is left after a reset
    made.close()
    assert (lived[0] != lived[1]) == resets_differ(env)


def module_spec(config, encoded=False):
    env = build_env(config.env)
    observations = encoded_space(env.observation_space) if encoded else env.observation_space
    spaces = {"default_policy": (observations, env.action_space)}
    env.close()
    return HILSACConfig.from_config(config).get_rl_module_spec(spaces=spaces, inference_only=True)


def test_the_same_weights_give_the_same_episodes_and_others_do_not(config):
    spec = module_spec(config)

    def weights(gripper):
        module = spec.build()
        with torch.no_grad():
            module.gripper[-1].bias[gripper] += 100.0
        return module.get_state()

    evaluator, closes, holds = Evaluator(config, spec), weights(Gripper.CLOSE), weights(Gripper.HOLD)
    first = evaluator.run(closes)
    assert [r.seed for r in first] == [500, 501]
    assert [r.penalty for r in first] == [-0.02, -0.02]  # once, while open
    assert {r.penalty for r in evaluator.run(holds)} == {0.0}
    assert evaluator.run(closes) == first  # whatever was evaluated in between
    assert Evaluator(config, spec).run(closes) == first  # in another process too


def test_frames_are_encoded_for_the_policy_as_in_the_runners(configure, monkeypatch):
    config = configure("env.image_obs=true", "env.render_quality=fast", "env.max_episode_steps=3")
    spec = module_spec(config, encoded=True)
    evaluator = Evaluator(config, spec)
    module, seen = evaluator._policy.module, []
    act = module.forward_inference
    monkeypatch.setattr(module, "forward_inference", lambda batch: seen.append(batch) or act(batch))
    results = evaluator.run(spec.build().get_state())
    assert [r.steps for r in results] == [3, 3]
    assert len(seen) == 6
    assert {tuple(sorted(batch["obs"])) for batch in seen} == {("agent_pos", "features")}
