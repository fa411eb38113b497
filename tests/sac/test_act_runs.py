"""ACT on LeRobot data: what a chunk holds, that it learns, and that evaluation acts with what was saved."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from sac_parts import ACTIONS, SPACES, make_obs

from hil_rllib import evaluate, teleop
from hil_rllib.contract import AGENT_POS, GRIPPER_CLOSED, IS_INTERVENTION
from hil_rllib.data.replay import Fragment
from hil_rllib.offline.act_module import PADDED, ACTModule, gripper_command
from hil_rllib.offline.chunks import chunks, ends_of_stretches, to_learn
from hil_rllib.offline.config import HILACTConfig
from hil_rllib.offline.data import by_hand
from hil_rllib.sac.evaluation import GreedyPolicy

ACT = ("run.algorithm=act", "act.chunk=6", "act.width=32", "act.feedforward=32", "act.encoder_layers=1",
       "offline.batch_size=16", "offline.updates=60", "offline.lr=1e-3", "evaluation.every_steps=30",
       "checkpoint.every_steps=30", "env.max_episode_steps=5", "env.reward_type=dense",
       "stop.success=null")  # fmt: skip
SIZES = {"chunk": 4, "width": 32, "heads": 2, "feedforward": 32, "latent": 4}
LAYERS = {"encoder_layers": 1, "decoder_layers": 1, "dropout": 0.1}
MODEL = {**SIZES, **LAYERS, "ensemble_decay": 0.01, "weights": "random", "seed": 0}


# -- chunks ----------------------------------------------------------------------------------------


def test_a_chunk_begins_with_the_observations_own_action_and_ends_with_its_stretch():
    actions = np.arange(8, dtype=np.float32)[:, None] + 1
    starts = np.array([1, 1, 1, 0, 1, 1, 0, 0], bool)  # stretches of three and of two steps, then unwritten
    rows = np.flatnonzero(starts)
    first = np.array([0, 2, 3, 4])
    chosen, padded = chunks(actions[rows], first, ends_of_stretches(rows, starts)[first], 3)
    assert chosen[..., 0].tolist() == [[1, 2, 3], [3, 0, 0], [5, 6, 0], [6, 0, 0]]
    assert padded.tolist() == [[0, 0, 0], [0, 1, 1], [0, 0, 1], [0, 1, 1]]


def test_a_persons_pause_ends_no_chunk_but_what_a_policy_did_does():
    """Between two keys nobody is in charge, see `record`; a policy that acts there is another."""
    fragment = Fragment.from_episode(
        SingleAgentEpisode(
            observations=[np.zeros(1, np.float32)] * 8,
            actions=[np.array([x, 0, 0, 0], np.float32) for x in (1, 0, 0, 1, 1, 0.5, 1)],
            rewards=[0.0] * 7,
            extra_model_outputs={IS_INTERVENTION: [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0]},
            len_lookback_buffer=0,
        )
    )
    assert [(part.first_step, len(part)) for part in by_hand(fragment)] == [(0, 5), (6, 1)]


def learned_of(motions, closed, *, leave_out_idle):
    """Rows and actions of one stretch along x; closed: what the hand is told at each of the L + 1 rows."""
    actions = np.zeros((len(closed), 4), np.float32)
    actions[:-1, 0] = motions
    starts = np.arange(len(closed)) < len(motions)
    rows, done = to_learn(actions, np.array(closed, bool), starts, leave_out_idle)
    return rows.tolist(), done[:, 0].tolist(), done[:, 3].tolist()


def test_the_grippers_entry_is_where_the_hand_is_after_the_step():
    *_, hand = learned_of([1, 1, 1, 1], [0, 0, 1, 1, 0], leave_out_idle=False)
    assert hand == [-1, 1, 1, -1]


def test_steps_in_which_nothing_happens_are_passed_over():
    rows, motions, _ = learned_of([0, 1, 0, 0, 2, 0], [0, 0, 0, 1, 1, 1, 1], leave_out_idle=True)
    assert (rows, motions) == ([1, 2, 4], [1, 0, 2])  # the 0 closes the hand
    assert learned_of([0, 0], [0, 0, 0], leave_out_idle=True)[0] == []


def test_the_hand_is_told_only_what_it_does_not_do_already():
    agent_pos = torch.zeros(4, 18)
    agent_pos[2:, AGENT_POS["gripper"]] = GRIPPER_CLOSED
    wanted = torch.tensor([[0.9], [-0.2], [0.1], [-0.9]])
    assert gripper_command(wanted, agent_pos).flatten().tolist() == [1, 0, 0, -1]


# -- the module ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["state", "features", "pixels"])
def test_it_learns_from_chunks_and_acts_step_by_step(kind):
    spaces = {"observation_space": SPACES[kind], "action_space": ACTIONS, "model_config": MODEL}
    learns = RLModuleSpec(module_class=ACTModule, **spaces).build()
    learns.make_target_networks()
    obs = make_obs(kind, 3)
    batch = {
        Columns.OBS: obs,
        Columns.ACTIONS: torch.randn(3, 4, 4),
        PADDED: torch.zeros(3, 4, dtype=torch.bool),
    }
    assert learns.forward_train(batch)["plan"].shape == (3, 4, 4)
    assert not learns.is_stateful()

    acts = RLModuleSpec(module_class=ACTModule, inference_only=True, **spaces).build()
    acts.set_state(learns.acting_state())
    state = {name: x.expand(3, *x.shape) for name, x in acts.get_initial_state().items()}

    def timed(part):
        return {k: timed(v) for k, v in part.items()} if isinstance(part, dict) else part[:, None]

    first = acts.forward_inference({Columns.OBS: timed(obs), Columns.STATE_IN: state})
    assert first[Columns.ACTIONS].shape == (3, 1, 4)
    assert first[Columns.STATE_OUT]["count"].tolist() == [[1, 1, 1, 0]] * 3
    with torch.no_grad():
        plan = learns.eval().network.plan(obs)
    motion = first[Columns.ACTIONS][:, 0, :3]
    torch.testing.assert_close(motion, plan[:, 0, :3].clamp(-1, 1), rtol=1e-4, atol=1e-5)


# -- runs ------------------------------------------------------------------------------------------


def build_act(config, restore_from=None):
    rllib = HILACTConfig.from_config(config)
    rllib.restore_from = restore_from
    return rllib.build_algo()


@pytest.fixture(scope="module")
def learned(cluster, configure):
    """(config, what 60 updates reported, weights, last checkpoint); checkpoints after 30 and 60."""
    config = configure(*ACT)
    algorithm = build_act(config)
    results = []
    while algorithm.updates < 60:
        results.append(algorithm.train())
        if algorithm.updates in (30, 60):
            path = algorithm.save_to_path(f"{config.run.dir}/trial/checkpoint_{algorithm.updates // 60:06d}")
    weights = algorithm._policy.acting_state()
    algorithm.stop()
    return config, results, weights, Path(path)


def test_it_reports_its_losses_and_learns(learned):
    _, results, _, _ = learned
    losses = [result["learners"]["default_policy"] for result in results]
    assert losses[-1]["l1_loss"] < 0.8 * losses[0]["l1_loss"]
    assert losses[0]["policy_loss"] == pytest.approx(
        losses[0]["l1_loss"] + 10 * losses[0]["kl_loss"], rel=1e-4
    )
    assert [result.get("evaluation", {}).get("at_updates") for result in results] == [None, 30, 30, 60]


def test_a_resumed_run_ends_with_the_same_weights(learned):
    config, _, weights, path = learned
    resumed = build_act(config, restore_from=str(path.with_name("checkpoint_000000")))
    assert resumed.updates == 30
    while resumed.updates < 60:
        resumed.train()
    again = resumed._policy.acting_state()
    resumed.stop()
    assert all(np.array_equal(weights[name], again[name]) for name in weights)


def test_evaluate_measures_what_the_run_measured(learned, capsys):
    config, results, *_ = learned
    assert evaluate.main([config.run.dir, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    rewards = [episode["reward"] for episode in measured["episodes"]]  # dense: they tell weights apart
    assert np.mean(rewards) == pytest.approx(results[-1]["evaluation"]["reward"])
    assert evaluate.main([config.run.dir, "--sampled"]) == 2
    assert "an ACT policy draws nothing" in capsys.readouterr().err


def test_a_person_takes_over_while_it_acts_and_its_plans_are_void(learned, capsys, monkeypatch):
    config, *_ = learned
    resets = []
    reset = GreedyPolicy.reset
    monkeypatch.setattr(GreedyPolicy, "reset", lambda policy: (resets.append(policy), reset(policy)))
    driven = ["--device", "scripted", "--headless", "--episode-steps", "60", "--episodes", "1"]
    assert teleop.main([*driven, "--policy", config.run.dir]) == 0
    by_hand = int(capsys.readouterr().out.split("by hand ")[-1].split()[0])
    assert by_hand > 0
    assert len(resets) == 1 + by_hand  # as the episode begins, and after each step by hand
