"""A runner saved between two fragments goes on, in another one, as if it had never stopped."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
import tree
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from hil_rllib.collect.snapshot import begin_apart, runner_state, set_runner_state
from hil_rllib.sac.config import HILSACConfig

HELPFUL = (
    "operator.device=scripted",
    "operator.scripted.start_after_step=2",
    "operator.scripted.takeover_probability=0.3",
    "operator.scripted.help_steps=6",
    "runners.autonomous=1",
    "runners.envs_per_runner=2",
    "env.max_episode_steps=12",
)


@pytest.fixture(scope="module")
def make(configure):
    """A runner of a group, in this process, with weights that depend on nothing else."""
    hil = configure(*HELPFUL)

    def make(group: str) -> SingleAgentEnvRunner:
        config = HILSACConfig.from_config(replace(hil))
        config = config.operator() if group == "operator" else config.autonomous()
        runner = SingleAgentEnvRunner(config=config, worker_index=1, num_workers=1)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for parameter in runner.module.parameters():
                parameter.data.normal_(std=0.3)
        return runner

    return make


def sampled(runner, fragments):
    """Everything in the fragments but the episodes' random names."""
    episodes = [episode.to_numpy() for _ in range(fragments) for episode in runner.sample()]
    return [
        (
            e.get_observations(),
            e.get_actions(),
            e.get_rewards(),
            e.extra_model_outputs,
            e.is_done,
            e.t_started,
        )
        for e in episodes
    ]


@pytest.mark.parametrize("group", ["operator", "autonomous"])
def test_it_samples_what_it_would_have_sampled(make, group):
    first = make(group)
    sampled(first, 5)
    saved = pickle.dumps(runner_state(first))
    expected = sampled(first, 8)
    second = make(group)
    torch.manual_seed(123)
    set_runner_state(second, pickle.loads(saved))
    assert second._weights_seq_no == -1  # takes whatever is on offer
    second._weights_seq_no = first._weights_seq_no
    came = sampled(second, 8)
    tree.assert_same_structure(expected, came)
    for (path, a), b in zip(tree.flatten_with_path(expected), tree.flatten(came), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=str(path))
    flags = np.concatenate([extra["is_intervention"] for *_, extra, _, _ in came])
    assert flags.any() == (group == "operator")
    assert sum(done for *_, done, _ in came) >= 2


def test_one_that_goes_on_apart_begins_elsewhere_and_remembers_what_was_spent(make):
    first, second = make("operator"), make("operator")
    begin_apart(second, reseed=500, human_steps=70)
    a, b = sampled(first, 1)[0][0], sampled(second, 1)[0][0]
    assert (a["environment_state"][0] != b["environment_state"][0]).any()  # the cube lies elsewhere
    (connector,) = [c for c in second._module_to_env.connectors if hasattr(c, "begin_apart")]
    assert connector._guard.device.human_seconds >= 7.0
