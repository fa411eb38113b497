"""RLlib's configurations of HG-DAgger: an offline algorithm's, whose data grows, and its one runner's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from hil_rllib.config import Config
from hil_rllib.offline.config import HILACTConfig, HILBCConfig, OfflineConfig
from hil_rllib.sac.config import HILSACConfig


class RoundsConfig(OfflineConfig):
    """An offline configuration whose data grows."""

    seated = True  # see `HILSACConfig`

    @classmethod
    def from_config(cls, hil: Config) -> Self:
        config = super().from_config(hil)
        # At worst every other step is a person's, and each such stretch takes a row more than it has steps.
        config.rows_to_come = 2 * hil.dagger.rounds * hil.dagger.episodes * hil.env.max_episode_steps
        return config

    def operator(self, writers: Sequence[str]) -> AlgorithmConfig:
        """Its runner: the operator's as with SAC, but the policy is this one and does not explore.

        It hands over every step, and only one more is asked for: so it stops soon after it is held back.
        """
        common = HILSACConfig.from_config(self.hil)
        common.seated = self.seated
        config = common.operator(writers=writers)
        config.rl_module(rl_module_spec=self.get_default_rl_module_spec())
        config.env_runners(explore=False, rollout_fragment_length=1, max_requests_in_flight_per_env_runner=2)
        return config


class DAggerACTConfig(RoundsConfig, HILACTConfig):
    def __init__(self, algo_class: type | None = None) -> None:
        from hil_rllib.offline.dagger import DAggerACT

        super().__init__(algo_class=algo_class or DAggerACT)


class DAggerBCConfig(RoundsConfig, HILBCConfig):
    def __init__(self, algo_class: type | None = None) -> None:
        from hil_rllib.offline.dagger import DAggerBC

        super().__init__(algo_class=algo_class or DAggerBC)


class DAggerConfig:
    """Which of the two it is, `dagger.policy` says."""

    @staticmethod
    def from_config(hil: Config) -> RoundsConfig:
        kind: Any = {"act": DAggerACTConfig, "bc": DAggerBCConfig}[hil.dagger.policy]
        return kind.from_config(hil)
