"""An env runner between two fragments, to go on from in another process as if nothing had happened.

RLlib's own `get_state` holds weights and connectors; this adds what it leaves out: the envs in the middle of
their episodes, the episodes so far, the observation that the next action answers, and random state.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from envs.episode_state import env_state, set_env_state
from hil_rllib.collect.intervention import InterventionConnector
from hil_rllib.collect.recording import recording_of

# Of RLlib's runner; copied as they are.
_ATTRIBUTES = (
    "_ongoing_episodes",
    "_cached_to_module",
    "_needs_initial_reset",
    "_ongoing_episodes_for_metrics",
    "_done_episodes_for_metrics",
    "_shared_data",
    "num_env_steps_sampled_lifetime",
)


def runner_state(runner: SingleAgentEnvRunner) -> dict[str, Any]:
    """Called in the runner. The weights are left out: they are pulled anew.

    Raises TypeError where an env does not tell its state.
    """
    vector: Any = runner.env.unwrapped
    for env in vector.envs:
        if (recording := recording_of(env)) is not None:
            recording.flush()  # what a checkpoint counts is on disk
    return {
        "attributes": {name: vars(runner).get(name) for name in _ATTRIBUTES},
        "metrics": runner.metrics.get_state(),
        "env_to_module": runner._env_to_module.get_state(),
        "module_to_env": runner._module_to_env.get_state(),
        "to_be_reset": vector._autoreset_envs,
        "envs": [] if runner._needs_initial_reset else [env_state(env) for env in vector.envs],
        "random": (torch.get_rng_state(), np.random.get_state(), random.getstate()),
    }


def set_runner_state(runner: SingleAgentEnvRunner, state: dict[str, Any]) -> None:
    """Called in the runner: go on from `runner_state`, with the weights on offer at the next sample."""
    vector: Any = runner.env.unwrapped
    for name, value in state["attributes"].items():
        setattr(runner, name, value)
    runner.metrics.set_state(state["metrics"])
    runner._env_to_module.set_state(state["env_to_module"])
    runner._module_to_env.set_state(state["module_to_env"])
    vector._autoreset_envs = state["to_be_reset"]
    for env, inner in zip(vector.envs, state["envs"], strict=False):
        set_env_state(env, inner)
    torch_state, numpy_state, python_state = state["random"]
    torch.set_rng_state(torch_state)
    np.random.set_state(numpy_state)
    random.setstate(python_state)
    runner._weights_seq_no = -1  # older than any on offer


def begin_apart(runner: SingleAgentEnvRunner, reseed: int, human_steps: int) -> None:
    """Called in a runner that starts amid a run, without a snapshot: do not repeat the first episodes.

    reseed: to be added to its seed; human_steps: those that a synthetic human has used up of its patience.
    """
    seed = int(runner._seed or 0) + reseed
    runner._seed = seed
    torch.manual_seed(seed)
    for connector in runner._module_to_env.connectors:
        if isinstance(connector, InterventionConnector):
            connector.begin_apart(seed, human_steps)
