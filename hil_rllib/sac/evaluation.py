"""Greedy evaluation: seeded episodes, the policy's mean action, no exploration, no operator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from hil_rllib.collect.encode import FrameEncoder
from hil_rllib.config import Config, EnvSection
from hil_rllib.contract import DISCRETE_PENALTY, SUCCESS, env_action
from hil_rllib.models.heads import BASE_ACTION
from hil_rllib.sac.base import Acting, Base
from hil_rllib.sac.config import build_env


@dataclass(frozen=True)
class EpisodeResult:
    """One greedy episode. penalty: the sum of gripper penalties, ≤ 0."""

    seed: int
    success: bool
    steps: int
    reward: float
    penalty: float


def resets_differ(env: EnvSection) -> bool:
    """Whether one reset differs from the next; where not, a greedy policy has one episode, however often."""
    return env.random_block_position or not env.id.startswith("hil/PandaPickCube")


def greedy_seeds(hil: Config) -> range:
    """Of the resets with which a run measures its greedy policy."""
    first = hil.evaluation.seed
    return range(first, first + (hil.evaluation.episodes if resets_differ(hil.env) else 1))


class Policy(Protocol):
    """Who acts in an episode, and may remember what happened in it."""

    def __call__(self, obs: dict[str, Any]) -> NDArray[np.float32]:
        """One observation of the environment → its action (4,)."""

    def reset(self) -> None:
        """Forget: an episode begins, or somebody else has acted in between."""


class GreedyPolicy:
    """What the module does without exploring, one observation at a time; a `Policy`.

    base: the policy that it corrects, if it is residual.
    """

    explores: ClassVar[bool] = False

    def __init__(self, hil: Config, module_spec: RLModuleSpec, base: Base | None = None) -> None:
        torch.manual_seed(0)  # weights come later; nothing of the acting below is random
        self.module = module_spec.build()
        frozen = hil.env.image_obs and hil.encoder.frozen
        self._encoder = FrameEncoder(hil.encoder.weights, hil.run.seed) if frozen else None
        self._acting = Acting(self.module, self.explores)
        self._base = Acting(base.build()) if base else None

    def reset(self) -> None:
        self._acting.reset()
        if self._base is not None:
            self._base.reset()

    def __call__(self, obs: dict[str, Any]) -> NDArray[np.float32]:
        if self._encoder is not None:
            obs = self._encoder(obs)
        if self._base is not None:
            obs = {**obs, BASE_ACTION: self._base(obs)}
        return env_action(self._acting(obs))


class SampledPolicy(GreedyPolicy):
    """Motions drawn from the actor's distribution, as while learning, by torch's random state."""

    explores = True


def run_episodes(policy: Policy, env: gym.Env, seeds: Iterable[int]) -> list[EpisodeResult]:
    """One episode per seed; the same policy and seeds give the same results."""
    results = []
    for seed in seeds:
        obs, info = env.reset(seed=seed)
        policy.reset()
        reward = penalty = 0.0
        steps, done = 0, False
        while not done:
            obs, r, terminated, truncated, info = env.step(policy(obs))
            reward, penalty, steps = reward + float(r), penalty + info.get(DISCRETE_PENALTY, 0.0), steps + 1
            done = terminated or truncated
        results.append(EpisodeResult(seed, bool(info[SUCCESS]), steps, reward, penalty))
    return results


class Evaluator:
    """Evaluates in a process of its own (a Ray actor), so that neither learner nor operator waits for it."""

    def __init__(self, hil: Config, module_spec: RLModuleSpec, base: Base | None = None) -> None:
        torch.set_num_threads(1)
        self._hil = hil
        self._policy = GreedyPolicy(hil, module_spec, base)
        self._env = build_env(hil.env)

    def run(self, module_state: dict[str, Any]) -> list[EpisodeResult]:
        """Greedy episodes under these weights; the seeds are the config's, the same each time."""
        self._policy.module.set_state(module_state)
        try:
            return run_episodes(self._policy, self._env, greedy_seeds(self._hil))
        except Exception:
            self._env = build_env(self._hil.env)  # what raised may never work again
            raise
