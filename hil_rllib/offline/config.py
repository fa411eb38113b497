"""From our `Config` to RLlib's configuration of its offline algorithms."""

from __future__ import annotations

from typing import Any, Self

import torch
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.iql import IQLConfig
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from hil_rllib.config import Config
from hil_rllib.models.act import ACTSizes
from hil_rllib.offline.act_learner import ACTLearner
from hil_rllib.offline.act_module import ACTModule
from hil_rllib.offline.chunks import ChunkBatches
from hil_rllib.offline.data import DemoBatches
from hil_rllib.offline.module import BCModule, IQLModule
from hil_rllib.offline.skipping_learner import BCLearner, IQLLearner, SkippingLearner
from hil_rllib.sac.config import build_env, demo_options, observed, policy_config
from hil_rllib.sac.module import AveragedModule


class OfflineConfig(MARWILConfig):
    """What the configurations share; everything of ours is in `.hil`."""

    module_class: type[AveragedModule]
    data_class: type[DemoBatches] = DemoBatches
    own_learner: type[SkippingLearner] = BCLearner
    hil: Config
    restore_from: str | None
    resume = False  # without one: continue from what the run stored before its first checkpoint
    rows_to_come = 0  # of the ring, beside the demonstrations'
    clones = True  # of demonstrations that a policy took part in, the person's steps only

    @classmethod
    def from_config(cls, hil: Config) -> Self:
        """The RLlib configuration of a run: no runners, one local learner, batches of demonstrations."""
        config = cls()
        config.hil, config.restore_from = hil, None
        env = build_env(hil.env)
        config.environment(
            observation_space=observed(hil, env.observation_space), action_space=env.action_space
        )
        env.close()
        config.learners(num_learners=0, num_gpus_per_learner=int(torch.cuda.is_available()))
        config.debugging(seed=hil.run.seed, log_level="ERROR")
        config.offline_data(
            input_=hil.demos.source,
            input_read_method_kwargs=demo_options(hil),
            offline_data_class=config.data_class,
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

    def get_default_learner_class(self) -> type:
        return self.own_learner

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=self.module_class, model_config=self.model_parts())

    def model_parts(self) -> dict[str, Any]:
        """The module's model_config."""
        return policy_config(self.hil)


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


class HILACTConfig(HILBCConfig):
    """RLlib's behaviour cloning with ACT's chunks, network and losses."""

    module_class = ACTModule
    data_class = ChunkBatches
    own_learner = ACTLearner

    def __init__(self, algo_class: type | None = None) -> None:
        from hil_rllib.offline.algorithm import HILACT

        super().__init__(algo_class=algo_class or HILACT)

    def model_parts(self) -> dict[str, Any]:
        act, encoder = self.hil.act, self.hil.encoder
        sizes = {name: getattr(act, name) for name in ACTSizes.__dataclass_fields__}
        own = {"ensemble_decay": act.ensemble_decay, "weights": encoder.weights, "seed": self.hil.run.seed}
        return sizes | own | {"max_seq_len": 1}  # RLlib asks for it where a module has a state


class HILIQLConfig(OfflineConfig, IQLConfig):
    """RLlib's implicit Q-learning."""

    module_class = IQLModule
    own_learner = IQLLearner
    clones = False  # what turned out badly is told by its value

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
