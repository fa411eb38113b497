"""From our `Config` to RLlib's configuration of its offline algorithms."""

from __future__ import annotations

from typing import Any, Self

import torch
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.iql import IQLConfig
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from hil_rllib.collect.encode import encoded_space
from hil_rllib.config import Config
from hil_rllib.offline.data import DemoBatches
from hil_rllib.offline.module import BCModule, IQLModule
from hil_rllib.sac.config import build_env, demo_options, policy_config


class OfflineConfig(MARWILConfig):
    """What both configurations share; everything of ours is in `.hil`."""

    module_class: type[BCModule]
    hil: Config
    restore_from: str | None

    @classmethod
    def from_config(cls, hil: Config) -> Self:
        """The RLlib configuration of a run: no runners, one local learner, batches of demonstrations."""
        config = cls()
        config.hil, config.restore_from = hil, None
        env = build_env(hil.env)
        space: Any = env.observation_space
        if hil.env.image_obs and hil.encoder.frozen:
            space = encoded_space(space)
        config.environment(observation_space=space, action_space=env.action_space)
        env.close()
        config.learners(num_learners=0, num_gpus_per_learner=int(torch.cuda.is_available()))
        config.debugging(seed=hil.run.seed, log_level="ERROR")
        config.offline_data(
            input_=hil.demos.source,
            input_read_method_kwargs=demo_options(hil),
            offline_data_class=DemoBatches,
            dataset_num_iters_per_learner=1,
        )
        config.training(train_batch_size_per_learner=hil.offline.batch_size, grad_clip=hil.sac.grad_clip)
        # Reports come after so many updates, not so many seconds: see `OfflineRun.training_step`.
        config.reporting(
            min_time_s_per_iteration=0,
            min_sample_timesteps_per_iteration=0,
            min_train_timesteps_per_iteration=0,
        )
        return config

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=self.module_class, model_config=policy_config(self.hil))


class HILBCConfig(OfflineConfig, BCConfig):
    """RLlib's behaviour cloning."""

    module_class = BCModule

    def __init__(self, algo_class: type | None = None) -> None:
        from hil_rllib.offline.algorithm import HILBC

        super().__init__(algo_class=algo_class or HILBC)
        self.hil, self.restore_from = Config(), None

    @classmethod
    def from_config(cls, hil: Config) -> Self:
        config = super().from_config(hil)
        config.training(lr=hil.offline.lr)
        return config


class HILIQLConfig(OfflineConfig, IQLConfig):
    """RLlib's implicit Q-learning."""

    module_class = IQLModule

    def __init__(self, algo_class: type | None = None) -> None:
        from hil_rllib.offline.algorithm import HILIQL

        super().__init__(algo_class=algo_class or HILIQL)
        self.hil, self.restore_from = Config(), None

    @classmethod
    def from_config(cls, hil: Config) -> Self:
        config, iql = super().from_config(hil), hil.iql
        config.training(
            beta=iql.beta,
            expectile=iql.expectile,
            actor_lr=hil.offline.lr,
            critic_lr=iql.critic_lr,
            value_lr=iql.value_lr,
            gamma=iql.gamma,
            tau=iql.tau,
            target_network_update_freq=0,  # after every update
        )
        return config
