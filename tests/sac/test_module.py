"""The networks as runners and learner see them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tree
from ray.rllib.core.columns import Columns
from sac_parts import make_batch, make_module, make_obs

from hil_rllib.collect.encode import FrameEncoder
from hil_rllib.contract import ACTION_DIM, Gripper, env_action
from hil_rllib.models.encoder import load_encoder
from hil_rllib.models.heads import FEATURE_SHAPE
from hil_rllib.sac.update import split_action


def act(module, obs, explore=False):
    forward = module.forward_exploration if explore else module.forward_inference
    return forward({Columns.OBS: obs})[Columns.ACTIONS]


@pytest.mark.parametrize("gripper", list(Gripper))
def test_gripper_choice_is_the_same_for_head_environment_and_learner(gripper):
    module = make_module()
    with torch.no_grad():
        module.gripper[-1].bias[gripper] += 100.0
    for explore in (False, True):
        actions = act(module, make_obs("state", 5), explore)
        assert [env_action(a.numpy())[3] for a in actions] == [float(gripper)] * 5
        motion, choice = split_action(actions)
        assert choice.tolist() == [gripper] * 5
        torch.testing.assert_close(torch.cat([motion, choice[:, None] - 1.0], -1), actions)


@pytest.mark.parametrize("kind", ["state", "features"])
def test_greedy_action_is_the_mode_and_exploration_spreads_around_it(kind):
    module, obs = make_module(kind), make_obs(kind, 3)
    greedy = act(module, obs)
    assert greedy.shape == (3, ACTION_DIM)
    assert torch.equal(greedy, act(module, obs))  # no dropout, no noise
    repeated = tree.map_structure(lambda x: x.repeat_interleave(200, 0), obs)
    drawn = act(module, repeated, explore=True).reshape(3, 200, ACTION_DIM)
    assert drawn[..., :3].abs().max() <= 1
    assert (drawn[..., :3].std(1) > 0.1).all()
    torch.testing.assert_close(drawn[..., :3].median(1).values, greedy[:, :3], atol=0.3, rtol=0)
    assert torch.equal(drawn[..., 3], greedy[:, 3:].expand(-1, 200))


@pytest.mark.parametrize("kind", ["state", "features", "pixels"])
def test_runner_acts_as_the_learner_once_it_has_its_state(kind):
    learner = make_module(kind, seed=1)
    runner = make_module(kind, inference_only=True, seed=2)
    obs = make_obs(kind, 4)
    assert not torch.equal(act(runner, obs), act(learner, obs))
    runner.set_state(learner.get_state(inference_only=True))
    assert torch.equal(act(runner, obs), act(learner, obs))


def test_what_acts_are_the_averaged_networks():
    learner, runner = make_module(seed=1), make_module(inference_only=True, seed=2)
    averaged, obs = act(learner, make_obs("state", 4)), make_obs("state", 4)
    with torch.no_grad():
        for online, _ in learner.get_target_network_pairs():
            for parameter in online.parameters():
                parameter += 0.1  # an update the averages have not followed yet
    state = learner.acting_state()
    assert state.keys() == runner.get_state().keys()
    runner.set_state(state)
    assert torch.equal(act(runner, obs), averaged)
    assert not torch.equal(act(learner, obs), averaged)
    assert all(not np.shares_memory(value, learner.acting_state()[name]) for name, value in state.items())


def test_runner_carries_neither_values_nor_targets():
    runner, learner = make_module(inference_only=True), make_module()
    state = learner.get_state(inference_only=True)
    assert state.keys() == runner.get_state().keys()
    assert {name.split(".")[0] for name in state} == {"encoder", "actor", "gripper"}


def test_cached_features_and_frames_give_the_same_action_with_the_same_trunk():
    """Frozen (features from the runner) and trainable (frames, trunk in the module) differ in this only."""
    trainable, frozen = make_module("pixels", seed=3), make_module("features", seed=3)
    frozen.encoder.head.load_state_dict(trainable.encoder.head.state_dict())
    for part in ("actor", "gripper"):
        getattr(frozen, part).load_state_dict(getattr(trainable, part).state_dict())
    obs = make_obs("pixels", 3)
    cached = FrameEncoder("random", seed=0)(obs)
    features = {name: torch.from_numpy(maps) for name, maps in cached["features"].items()}
    assert {maps.shape for maps in features.values()} == {(3, *FEATURE_SHAPE)}
    torch.testing.assert_close(
        act(frozen, {"agent_pos": obs["agent_pos"], "features": features}),
        act(trainable, obs),
        atol=2e-3,  # features are kept in float16
        rtol=0,
    )


def test_only_the_trainable_encoder_has_a_trunk_in_the_learner():
    def trunk(kind):
        return [name for name, _ in make_module(kind).named_parameters() if "encoder.trunk." in name]

    assert trunk("features") == trunk("state") == []
    assert len(trunk("pixels")) == 2 * len(list(load_encoder("random").parameters()))  # and its target


@pytest.mark.parametrize("kind", ["state", "features"])
def test_rllib_can_ask_for_values_of_the_batch(kind):
    module, batch = make_module(kind, num_critics=3), make_batch(kind, 6)
    out = module.forward_train(batch)
    assert out["q"].shape == (3, 6)
    assert out[Columns.ACTION_LOGP].shape == (6,)
    module.eval()
    q = module.compute_q_values(batch)
    torch.testing.assert_close(q, module.forward_target(batch))  # targets begin as copies
    assert q.isfinite().all()
