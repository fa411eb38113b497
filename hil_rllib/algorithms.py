"""What `run.algorithm` can name, and the policy that each leaves in its checkpoints."""

from __future__ import annotations

from typing import Any

from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from hil_rllib.config import Config
from hil_rllib.offline.config import HILACTConfig, HILBCConfig, HILIQLConfig
from hil_rllib.offline.dagger_config import DAggerConfig
from hil_rllib.reward.config import HILRewardConfig
from hil_rllib.sac.config import HILSACConfig

ALGORITHMS: dict[str, Any] = {
    "sac": HILSACConfig,
    "bc": HILBCConfig,
    "iql": HILIQLConfig,
    "act": HILACTConfig,
    "dagger": DAggerConfig,
    "reward": HILRewardConfig,
}


def acting_spec(config: Config, observation_space: Any, action_space: Any) -> RLModuleSpec:
    """The module that acts in a run of this configuration. observation_space: what it sees."""
    spaces = {DEFAULT_MODULE_ID: (observation_space, action_space)}
    algorithm = ALGORITHMS[config.run.algorithm].from_config(config)
    return algorithm.get_rl_module_spec(spaces=spaces, inference_only=True)
