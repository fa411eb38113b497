"""RLlib's BC and IQL on LeRobot data: they learn it, evaluate, stop and go on; SAC begins with theirs."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import tree
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from sac_parts import ACTIONS, MODEL, SPACES, changed, make_batch, make_module, parameters

from hil_rllib.config import ConfigError
from hil_rllib.contract import IS_INTERVENTION
from hil_rllib.data.demos import load_demos
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.offline.act_module import PADDED
from hil_rllib.offline.config import HILACTConfig, HILBCConfig, HILIQLConfig
from hil_rllib.offline.data import idle
from hil_rllib.offline.distribution import MIN_STD, HybridDistribution
from hil_rllib.offline.module import BCModule, IQLModule
from hil_rllib.sac.init_from import check_policy, load_policy
from hil_rllib.sac.skipping import BATCH_FILE

BC = ("run.algorithm=bc", "offline.batch_size=32", "offline.updates=60", "evaluation.every_steps=30",
      "checkpoint.every_steps=30", "env.max_episode_steps=5", "stop.success=null")  # fmt: skip
ACT_SIZES = ("act.chunk=6", "act.width=32", "act.feedforward=32", "act.encoder_layers=1")
POLICY = {"encoder", "actor", "gripper"}


def offline_module(kind, module_class):
    torch.manual_seed(0)
    spaces = {"observation_space": SPACES[kind], "action_space": ACTIONS}
    return RLModuleSpec(module_class=module_class, model_config=MODEL, **spaces).build()


# -- the likelihood --------------------------------------------------------------------------------


def test_the_likelihood_is_that_of_motion_and_choice_together():
    mean, logits = torch.tensor([[0.3, -0.2, 0.0]]), torch.tensor([[0.0, 1.0, 3.0]])
    dist = HybridDistribution.from_logits(torch.cat([mean, torch.full((1, 3), 0.5), logits], -1))
    best = torch.cat([torch.tanh(mean), torch.tensor([[1.0]])], -1)  # closes
    peak = -3 * (np.log(0.5) + 0.5 * np.log(2 * np.pi))
    assert dist.logp(best).item() == pytest.approx(
        peak + torch.log_softmax(logits, -1)[0, 2].item(), abs=1e-5
    )
    opens = best.clone()
    opens[0, 3] = -1
    assert (dist.logp(best) - dist.logp(opens)).item() == pytest.approx(3.0, abs=1e-5)


def test_a_perfect_fit_has_a_finite_likelihood():
    sure = HybridDistribution(torch.zeros(1, 3), torch.full((1, 3), 1e-5), torch.zeros(1, 3))
    assert sure.logp(torch.zeros(1, 4)).item() < -3 * np.log(MIN_STD)


def test_rare_choices_count_as_much_as_common_ones():
    """Where observations tell nothing, the head is to be undecided, however rare a choice is."""
    module = offline_module("state", BCModule)
    counts = torch.tensor([10, 290, 300])
    module.set_gripper_prior(counts)
    obs = {name: torch.zeros(600, *space.shape) for name, space in SPACES["state"].spaces.items()}
    actions = torch.zeros(600, 4)
    actions[:, 3] = torch.repeat_interleave(torch.tensor([-1.0, 0.0, 1.0]), counts)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    for _ in range(100):
        out = module.forward_train({Columns.OBS: obs})
        loss = -HybridDistribution.from_logits(out[Columns.ACTION_DIST_INPUTS]).logp(actions).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        q = module.gripper(module.encoder({name: x[:1] for name, x in obs.items()}))[0]
    assert (q.max() - q.min()).item() < 0.02  # unbalanced: log(30) · 0.05 = 0.17


def test_idle_rows_neither_move_nor_open_nor_close():
    rows = np.zeros((4, 4), np.float32)
    rows[1, 0], rows[2, 3], rows[3, 3] = 0.4, -1, 1
    assert idle(rows).tolist() == [True, False, False, False]


@pytest.mark.parametrize("kind", ["state", "features", "pixels"])
def test_iql_rates_the_datas_actions_by_networks_of_their_own(kind):
    module, batch = offline_module(kind, IQLModule), make_batch(kind, 4)
    module.make_target_networks()
    out = module.forward_train(batch)
    for name in ("qf_preds", "qf_twin_preds", "qf_target_preds", "vf_preds", "vf_preds_next"):
        assert out[name].shape == (4,)
    out["qf_preds"].sum().backward()
    with_gradient = {name.split(".")[0] for name, p in module.named_parameters() if p.grad is not None}
    assert with_gradient == {"qf", "qf_encoder"}


def test_rllib_averages_iqls_critics_alone():
    """What acts is averaged by the run, with every algorithm alike: twice would halve the span."""
    module = offline_module("state", IQLModule)
    module.make_target_networks()
    nets = [net for net, _ in module.get_target_network_pairs()]
    assert nets == [module.qf, module.qf_encoder, module.qf_twin, module.qf_twin_encoder]
    assert hasattr(module, "target_actor")


# -- what is learned -------------------------------------------------------------------------------


def mostly_the_policys(keep):
    """`load_demos` of demonstrations whose last `keep` steps alone are a person's."""

    def load(*args, **kwargs):
        demos = load_demos(*args, **kwargs)
        for demo in demos.demos:
            demo.interventions = np.float32(np.arange(len(demo), 0, -1) <= keep)
        return demos

    return load


@pytest.mark.parametrize(
    ("kind", "by_hand_only"), [(HILBCConfig, True), (HILACTConfig, True), (HILIQLConfig, False)]
)
def test_cloning_learns_the_persons_steps_only(configure, monkeypatch, kind, by_hand_only):
    monkeypatch.setattr("hil_rllib.data.offline_input.load_demos", mostly_the_policys(keep=3))
    rllib = kind.from_config(configure(*BC, *ACT_SIZES, "offline.leave_out_idle=false"))
    data = rllib.data_class(rllib)
    episodes = data._held()
    expected = 3 * len(episodes) if by_hand_only else sum(map(len, episodes))
    data.fill()
    assert data.size == expected
    by_hand = data.ring.steps[IS_INTERVENTION][data.ring.is_start(np.arange(data.ring.capacity))]
    assert by_hand.sum() == 3 * len(episodes)
    if kind is HILACTConfig:  # of a chunk, too, only what the person did
        assert (~data.sample(100)[DEFAULT_MODULE_ID][PADDED]).sum(1).max() == 3


def test_demonstrations_without_a_person_cannot_be_cloned(configure, monkeypatch):
    monkeypatch.setattr("hil_rllib.data.offline_input.load_demos", mostly_the_policys(keep=0))
    rllib = HILBCConfig.from_config(configure(*BC))
    with pytest.raises(DatasetError, match="no step of it is a person's, so there is nothing to clone"):
        rllib.data_class(rllib)


# -- runs ------------------------------------------------------------------------------------------


def build_offline(config, kind, restore_from=None):
    rllib = kind.from_config(config)
    rllib.restore_from = restore_from
    return rllib.build_algo()


@pytest.fixture(scope="module")
def cloned(cluster, configure):
    """(config, checkpoint, policy) of 60 updates of BC, and what it reported on the way."""
    config = configure(*BC)
    algorithm = build_offline(config, HILBCConfig)
    results = []
    while algorithm.updates < 60:
        results.append(algorithm.train())
        if algorithm.updates in (30, 60):
            path = algorithm.save_to_path(f"{config.run.dir}/trial/checkpoint_{algorithm.updates // 60:06d}")
    policy = parameters(algorithm._policy)
    counts = algorithm.offline_data.gripper_counts()
    algorithm.stop()
    return config, path, policy, results, counts


def test_cloning_reports_evaluates_and_saves_by_updates(cloned):
    config, path, _, results, counts = cloned
    assert [r["hil"]["updates"] for r in results] == [20, 30, 40, 60]
    assert [r["timesteps_total"] for r in results] == [20, 30, 40, 60]
    assert [r.get("evaluation", {}).get("at_updates") for r in results] == [None, 30, 30, 60]
    assert [bool(r.get("should_checkpoint")) for r in results] == [False, True, False, True]
    losses = [r["learners"]["default_policy"]["policy_loss"] for r in results]
    assert losses[-1] < losses[0] - 1
    assert results[-1]["hil"]["demo_ring"] == counts.sum()
    assert check_policy(config.run.dir, config) == check_policy(path, config)


def test_a_resumed_run_ends_with_the_same_policy(cloned):
    config, path, policy, *_ = cloned
    resumed = build_offline(config, HILBCConfig, restore_from=str(Path(path).with_name("checkpoint_000000")))
    assert resumed.updates == 30
    assert resumed.evaluations.latest["at_updates"] == 30
    while resumed.updates < 60:
        resumed.train()
    assert not changed(policy, parameters(resumed._policy))
    resumed.stop()


def test_a_finished_run_that_is_resumed_ends_as_it_did(cloned):
    config, path, policy, results, _ = cloned
    resumed = build_offline(config, HILBCConfig, restore_from=path)
    result = resumed.train()
    assert result["hil"]["updates"] == 60
    assert result["evaluation"] == results[-1]["evaluation"]
    assert not changed(policy, parameters(resumed._policy))
    resumed.stop()


def test_iql_runs_on_rllibs_own_losses(cluster, configure):
    config = configure(*BC, "run.algorithm=iql", "offline.updates=20", "evaluation.every_steps=20")
    algorithm = build_offline(config, HILIQLConfig)
    before = parameters(algorithm._policy)
    result = algorithm.train()
    parts = {name.split(".")[0] for name in changed(before, parameters(algorithm._policy))}
    averaged = POLICY | {"qf", "qf_encoder", "qf_twin", "qf_twin_encoder"}
    assert parts == averaged | {f"target_{name}" for name in averaged} | {"vf", "vf_encoder"}
    assert result["evaluation"]["at_updates"] == 20
    assert np.isfinite(result["learners"]["default_policy"]["qf_loss"])
    algorithm.stop()


def test_sac_begins_with_a_cloned_policy_and_no_cloning_of_its_own(cloned, configure, build):
    _, path, policy, *_ = cloned
    config = configure(f"run.init_from={path}", "sac.bc_start_updates=50", "evaluation.episodes=1")
    algorithm = build(config)
    state = algorithm.learner_group._learner._policy.state_dict()
    for name in policy:
        if name.split(".")[0] in POLICY:
            averaged = policy[f"target_{name}"]  # they act
            assert torch.equal(state[name], averaged)
            assert torch.equal(state[f"target_{name}"], averaged)
    assert algorithm.evaluations.latest["at_env_steps"] == 0
    algorithm.stop()


@pytest.mark.parametrize("kind", [HILBCConfig, HILIQLConfig, HILACTConfig])
def test_updates_on_nan_are_skipped_and_too_many_in_a_row_end_the_run(cluster, configure, kind, tmp_path):
    """Nothing that learns changes; one good batch in between begins the count anew."""
    name = kind.__name__.removeprefix("HIL").removesuffix("Config").lower()
    config = configure(*BC, f"run.algorithm={name}", *ACT_SIZES, "sac.skip_limit=3", "evaluation.episodes=1")
    Path(config.run.dir).mkdir(parents=True)
    algorithm = build_offline(config, kind)
    learner, sample = algorithm.learner_group._learner, algorithm.offline_data.sample
    before, optimizers = parameters(algorithm._policy), deepcopy(learner._get_optimizer_state())
    poisoned = iter([True, True, False] + [True] * 9)

    def sometimes_nan(*args, **kwargs):
        batch = sample(*args, **kwargs)
        if next(poisoned):
            assert not changed(before, parameters(algorithm._policy)) or algorithm.updates > 2
            batch[DEFAULT_MODULE_ID][Columns.ACTIONS][0] = np.nan
        elif algorithm.updates == 2:
            state = learner._get_optimizer_state()
            tree.map_structure(np.testing.assert_array_equal, state, optimizers)
        return batch

    algorithm.offline_data.sample = sometimes_nan
    hil = algorithm.train()["hil"]
    assert (hil["updates"], hil["skipped_updates"], hil["diverged"]) == (6, 5, 1)
    good = parameters(algorithm._policy)
    assert changed(before, good)
    assert all(value.isfinite().all() for value in good.values())
    with np.load(Path(config.run.dir) / BATCH_FILE) as batch:
        assert np.isnan(batch["actions"]).any()
    checkpoint = algorithm.save_to_path(tmp_path / "checkpoint")
    algorithm.skips.total = 0
    algorithm.restore_from_path(checkpoint)
    assert algorithm.skips.get_state() == {"total": 5, "in_row": 0}  # who goes on is given another try
    algorithm.stop()


# -- what does not fit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("sac.hidden=[16]", ["sac.hidden was [32, 32], here it is [16]"]),
        ("encoder.latent_dim=8", ["encoder.latent_dim was 16, here it is 8"]),
        ("env.image_obs=true", ["env.image_obs was False, here it is True"]),
    ],
)
def test_a_policy_of_another_shape_is_refused_with_the_keys_that_differ(cloned, configure, override, parts):
    with pytest.raises(ConfigError) as error:
        check_policy(cloned[1], configure(override))
    for part in ["run.init_from", "does not fit", *parts]:
        assert part in str(error.value)


def test_a_place_without_a_policy_is_refused(configure, tmp_path):
    for where, message in (
        (tmp_path, "holds no checkpoint of this project"),
        (tmp_path / "x", "no such folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_policy(str(where), configure())


def test_tensors_that_do_not_fit_are_named(cloned):
    with pytest.raises(ValueError, match=r"13 tensors of the policy .* such as actor\.trunk"):
        load_policy(make_module("features"), Path(cloned[1]))
