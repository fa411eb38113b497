"""From our `Config` to RLlib's configuration of the classifier's training."""

from __future__ import annotations

from typing import Any, Self

import gymnasium as gym
import numpy as np
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from hil_rllib.config import Config
from hil_rllib.contract import CAMERAS
from hil_rllib.models.heads import FEATURE_SHAPE
from hil_rllib.offline.config import HILBCConfig
from hil_rllib.reward.data import LabelledFrames
from hil_rllib.reward.module import RewardModule


def feature_space() -> gym.spaces.Dict:
    """What the classifier sees: `features.<camera>` alone."""
    feature = gym.spaces.Box(-np.inf, np.inf, FEATURE_SHAPE, np.float16)
    return gym.spaces.Dict({"features": gym.spaces.Dict(dict.fromkeys(CAMERAS, feature))})


def head_config(hil: Config) -> dict[str, Any]:
    """`SuccessHead`'s arguments."""
    return {
        "latent_dim": hil.encoder.latent_dim,
        "per_channel": hil.encoder.embeddings_per_channel,
        "dropout": hil.encoder.dropout,
        "hidden": hil.reward.hidden,
    }


class HILRewardConfig(HILBCConfig):
    """RLlib's behaviour cloning, of labels."""

    def __init__(self, algo_class: type | None = None) -> None:
        from hil_rllib.reward.algorithm import HILReward

        super().__init__(algo_class=algo_class or HILReward)

    @classmethod
    def from_config(cls, hil: Config) -> Self:
        config = super().from_config(hil)
        config.environment(observation_space=feature_space(), action_space=gym.spaces.Discrete(2))
        sources = [name for name in (hil.demos.source, *hil.reward.sources) if name != "none"]
        config.offline_data(input_=sources, offline_data_class=LabelledFrames)
        return config

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=RewardModule, model_config=head_config(self.hil))
