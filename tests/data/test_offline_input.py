"""LeRobot data through RLlib's own door: `config.offline_data(offline_data_class=LeRobotOfflineData)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchDiagGaussian
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule

from hil_rllib.contract import DISCRETE_PENALTY, IS_INTERVENTION
from hil_rllib.data.demos import load_demos
from hil_rllib.data.env_replay import EnvSpec
from hil_rllib.data.offline_input import LeRobotOfflineData

ENV = EnvSpec(kwargs={"random_block_position": True})


class StatePolicy(TorchRLModule):
    """A linear Gaussian policy on both parts of the state observation."""

    def setup(self) -> None:
        self.net = torch.nn.Linear(21, 8)
        self.action_dist_cls = TorchDiagGaussian

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        parts = [batch[Columns.OBS][name] for name in ("agent_pos", "environment_state")]
        return {Columns.ACTION_DIST_INPUTS: self.net(torch.tanh(torch.cat(parts, -1)))}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def config(cache: Path) -> BCConfig:
    env = ENV.make(image_obs=False)
    options = {"env": ENV, "image_obs": False, "fallback_episodes": 3, "cache_dir": cache}
    made = (
        BCConfig()
        .environment(observation_space=env.observation_space, action_space=env.action_space)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=StatePolicy))
        .training(train_batch_size_per_learner=32, lr=1e-2)
        .learners(num_learners=0)
        .debugging(seed=0)
        .offline_data(
            input_="scripted",
            input_read_method_kwargs=options,
            offline_data_class=LeRobotOfflineData,
            dataset_num_iters_per_learner=1,
        )
    )
    env.close()
    return made


def test_episodes_hold_what_the_demos_hold_in_module_space(config: BCConfig, cache: Path):
    demos = load_demos("scripted", env=ENV, image_obs=False, fallback_episodes=3, cache_dir=cache).demos
    data = LeRobotOfflineData(config)
    episodes = data.episodes()
    assert len({episode.id_ for episode in episodes}) == 3
    for episode, demo in zip(episodes, demos, strict=True):
        assert "_" not in episode.id_
        assert episode.is_terminated
        assert not episode.is_truncated
        assert len(episode) == len(demo)
        actions = episode.get_actions()
        np.testing.assert_array_equal(actions[:, :3], demo.actions[:, :3])
        assert set(np.unique(actions[:, 3])) <= {-1, 0, 1}
        np.testing.assert_array_equal(actions[:, 3] + 1, demo.actions[:, 3])
        np.testing.assert_array_equal(episode.get_observations()["agent_pos"], demo.agent_pos)
        np.testing.assert_array_equal(episode.get_rewards(), demo.rewards)
        assert [info[DISCRETE_PENALTY] for info in episode.get_infos()[1:]] == pytest.approx(demo.penalties)
        assert episode.get_extra_model_outputs(IS_INTERVENTION).tolist() == [1.0] * len(demo)
    with pytest.raises(RuntimeError, match="handed over"):
        data.episodes()


def test_observations_fit_the_environment_with_and_without_images(real_demos: Path, tmp_path: Path):
    for image_obs in (False, True):
        env = gymnasium.make("hil/PandaPickCube-v0", image_obs=image_obs, render_quality="fast")
        options = {"env": EnvSpec(), "image_obs": image_obs, "episodes": [5], "cache_dir": tmp_path}
        config = BCConfig().offline_data(input_=str(real_demos), input_read_method_kwargs=options)
        (episode,) = LeRobotOfflineData(config).episodes()
        for t in (0, len(episode)):
            assert env.observation_space.contains(episode.get_observations(t))
        env.close()


@pytest.mark.parametrize("iterations", [1, 3])  # a batch, and an iterator that the learner draws from
def test_behaviour_cloning_of_rllib_learns_from_it(config: BCConfig, iterations: int, local_ray: None):
    config.offline_data(dataset_num_iters_per_learner=iterations)
    algo = config.build_algo()
    try:
        assert isinstance(algo.offline_data, LeRobotOfflineData)
        losses = [algo.train()["learners"][DEFAULT_MODULE_ID]["total_loss"] for _ in range(15)]
    finally:
        algo.stop()
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_unknown_option_is_refused_before_the_run(config: BCConfig):
    config.offline_data(input_read_method_kwargs={"env": ENV, "image_obs": False, "frmes": "recorded"})
    with pytest.raises(TypeError, match="frmes"):
        LeRobotOfflineData(config)
