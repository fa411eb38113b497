"""A residual policy begins as its base, corrects it within bounds, and its checkpoint needs nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from ray.rllib.core.columns import Columns
from sac_parts import ACTIONS, MODEL, SPACES, make_obs
from test_act_runs import ACT, build_act

from hil_rllib import evaluate
from hil_rllib.config import ConfigError
from hil_rllib.contract import IS_INTERVENTION
from hil_rllib.data.replay import nested_map
from hil_rllib.models.heads import BASE_ACTION, ResidualActor
from hil_rllib.sac.base import Acting, Base, with_base_action
from hil_rllib.sac.config import HILSACConfig
from hil_rllib.sac.init_from import check_policy
from hil_rllib.sac.module import HILSACModule

DENSE = ("env.max_episode_steps=8", "env.reward_type=dense", "evaluation.every_steps=1000")


@pytest.fixture(scope="module")
def base_run(cluster, configure):
    """The checkpoint of an ACT policy, and its greedy evaluation."""
    config = configure(*ACT, *DENSE[:2], "offline.updates=20", "evaluation.every_steps=20")
    algorithm = build_act(config)
    result = algorithm.train()
    path = algorithm.save_to_path(f"{config.run.dir}/trial/checkpoint_000000")
    algorithm.stop()
    return Path(path), result["evaluation"]


@pytest.fixture(scope="module")
def residual(base_run, configure):
    """(config, algorithm after 60 steps, its first evaluation)."""
    config = configure(*DENSE, "sac.residual=true", f"run.init_from={base_run[0]}",
                       "operator.device=scripted",
                       "operator.scripted.takeover_probability=0.3", "operator.scripted.start_after_step=2",
                       "operator.scripted.help_steps=2", "operator.scripted.reaction_s=0")  # fmt: skip
    algorithm = HILSACConfig.from_config(config).build_algo()
    algorithm.train()
    first = dict(algorithm.evaluations.latest)
    while algorithm.env_steps < 60:
        algorithm.train()
    yield config, algorithm, first
    algorithm.stop()


@pytest.mark.parametrize("kind", ["state", "features"])
def test_at_first_it_does_what_its_base_does(kind):
    torch.manual_seed(0)
    own = MODEL | {"residual_scale": 0.5, "residual_margin": 0.1}
    space = with_base_action(SPACES[kind])
    module = HILSACModule(observation_space=space, action_space=ACTIONS, model_config=own)
    base = torch.tensor([[0.4, -0.2, 0.9, -1], [0.0, 0.1, -1.0, 0], [-0.5, 1.0, 0.0, 1]])
    obs = make_obs(kind, 3) | {BASE_ACTION: base}
    torch.testing.assert_close(module.forward_inference({Columns.OBS: obs})[Columns.ACTIONS], base)


def test_it_corrects_within_bounds():
    torch.manual_seed(0)
    actor = ResidualActor(12, (16,), 3, scale=0.5)
    with torch.no_grad():
        for weight in actor.parameters():
            weight.normal_(std=3)
    latent = torch.randn(200, 12)
    base = latent[:, -4:-1].clamp_(-1, 1)
    for motion in (actor.greedy(latent), actor.sample(latent)[0]):
        assert motion.abs().max() <= 1
        assert 0.4 < (motion - base).abs().max() <= 0.5 + 1e-5


def test_its_first_evaluation_is_its_bases(base_run, residual):
    assert residual[2]["reward"] == pytest.approx(base_run[1]["reward"], rel=1e-3)


def test_replay_holds_the_bases_action_for_every_observation(base_run, residual):
    _, algorithm, _ = residual
    acting = Acting(Base.of(base_run[0]).build())
    ring = algorithm.online
    by_hand, episode_begins = ring.steps[IS_INTERVENTION][:60] > 0, True
    assert by_hand.any()
    for row in range(60):
        if episode_begins or by_hand[row - 1]:
            acting.reset()
        told = acting({name: x[row] for name, x in ring.obs.items() if name != BASE_ACTION})
        np.testing.assert_allclose(ring.obs[BASE_ACTION][row], told, atol=1e-5)
        episode_begins = not ring.is_start(np.array([row]))[0]
    demo = nested_map(lambda x: x[3], algorithm.demo.obs)
    told = demo.pop(BASE_ACTION)
    acting.reset()
    np.testing.assert_allclose(told, acting(demo), atol=1e-5)


def test_what_was_executed_is_stored(residual):
    """The base's action and a bounded correction; a person's as it was."""
    _, algorithm, _ = residual
    ring, rows = algorithm.online, np.arange(algorithm.online.rows_written)
    rows = rows[ring.is_start(rows)]
    by_hand = ring.steps[IS_INTERVENTION][rows] > 0
    executed = ring.steps[Columns.ACTIONS][rows, :3]
    difference = np.abs(executed - ring.obs[BASE_ACTION][rows, :3]).max(-1)
    assert 0 < difference[~by_hand].max() <= 0.5 + 1e-5
    assert difference[by_hand].max() > 0.6  # the expert moves at full speed


def test_a_checkpoint_is_evaluated_and_resumed_without_the_base_it_began_with(
    residual, tmp_path, capsys, monkeypatch
):
    config, algorithm, _ = residual
    path = Path(algorithm.save_to_path(tmp_path / "checkpoint_000000"))
    state = json.loads((path / "hil_state.json").read_text())
    state["config"]["run"]["init_from"] = str(tmp_path / "gone")
    (path / "hil_state.json").write_text(json.dumps(state))
    assert evaluate.main([str(path), "--json", "--workers", "1"]) == 0
    measured = json.loads(capsys.readouterr().out)
    own = ray.get(algorithm.evaluator.run.remote(algorithm.policy_state()["default_policy"]))
    assert [e["reward"] for e in measured["episodes"]] == pytest.approx([e.reward for e in own])
    resumed = HILSACConfig.from_config(config)
    resumed.restore_from = str(path)
    assert resumed.base is not None
    np.testing.assert_equal(resumed.base.state, algorithm.base.state)
    shutil.rmtree(path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sac.residual=true"], "Name a trained run"),
        (["sac.residual=true", "run.algorithm=bc", "run.init_from=x"], "by run.algorithm 'sac'"),
    ],
)
def test_without_a_base_it_is_refused(configure, overrides, message):
    with pytest.raises(ConfigError, match=message):
        configure(*overrides)


def test_act_cannot_start_the_actor_itself(base_run, configure):
    with pytest.raises(ConfigError, match=r"the network in .* is ACT's"):
        check_policy(str(base_run[0]), configure())
    residual = configure("sac.residual=true", f"run.init_from={base_run[0]}")
    assert check_policy(str(base_run[0]), residual) == base_run[0]
