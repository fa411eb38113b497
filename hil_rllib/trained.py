"""A trained policy from its checkpoint, ready to act as in the run's own evaluations."""

from __future__ import annotations

import pickle
from pathlib import Path

import gymnasium
import torch

from hil_rllib.algorithms import acting_spec
from hil_rllib.config import Config, from_dict
from hil_rllib.sac.base import Base
from hil_rllib.sac.checkpoint import STATE_FILE, read_state
from hil_rllib.sac.checkpoint_files import MODULE_FILE
from hil_rllib.sac.config import observed
from hil_rllib.sac.evaluation import GreedyPolicy, SampledPolicy
from hil_rllib.sac.module import acting_part


def read_config(checkpoint: Path) -> tuple[Config, int]:
    """What the run was configured with, and its clock at the checkpoint. Raises ValueError."""
    state = read_state(checkpoint)
    config = from_dict(state["config"], str(checkpoint / STATE_FILE))
    if config.run.algorithm == "reward":
        raise ValueError(
            f"{checkpoint} is a classifier of success, not a policy. Its figures are in summary.json."
        )
    return config, state[config.schedule[0]]


def load_policy(checkpoint: Path, config: Config, env: gymnasium.Env, sampled: bool = False) -> GreedyPolicy:
    """The checkpoint's actor, acting in `env`.

    sampled: motions drawn from its distribution instead of their mean.
    Raises ValueError where its weights do not fit, OSError where they are gone.
    """
    torch.set_num_threads(1)  # as there: the sums of matrix products depend on it in their last bits
    spec = acting_spec(config, observed(config, env.observation_space), env.action_space)
    base = Base.of(checkpoint) if config.sac.residual else None
    policy = (SampledPolicy if sampled else GreedyPolicy)(config, spec, base)
    file = checkpoint / MODULE_FILE
    content = file.read_bytes()
    try:
        policy.module.set_state(acting_part(pickle.loads(content), policy.module.acting))
    except (EOFError, pickle.UnpicklingError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]  # RLlib names every parameter there is
        raise ValueError(
            f"{file}: these are no weights of this version's policy in the checkpoint's configuration. "
            f"Evaluate it with the version that trained it. ({type(error).__name__}: {reason}…)"
        ) from error
    return policy
