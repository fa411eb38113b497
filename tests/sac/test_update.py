"""One gradient update: which loss moves which network, and that it learns."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from sac_parts import changed, make_batch, make_module, parameters

from hil_rllib.config import SACSection
from hil_rllib.contract import DISCRETE_PENALTY, IS_INTERVENTION, Gripper
from hil_rllib.sac.skipping import BATCH_FILE, NotFiniteError, SkippedUpdates
from hil_rllib.sac.update import clone_update, make_optimizers, td_targets, update

CFG = SACSection()
WITHOUT_ANCHORS = replace(CFG, bc_weight=0.0, gripper_margin_weight=0.0)
ANCHORS = {"bc_loss", "gripper_margin_loss"}


def one_update(module, batch, cfg=CFG, *, n_demo=16, train_actor=True, anchor=1.0, seed=0):
    """(metrics, module after) of an update of a copy of `module`."""
    module = copy.deepcopy(module)
    torch.manual_seed(seed)
    optimizers = make_optimizers(module, cfg)
    metrics = update(module, optimizers, batch, cfg, n_demo=n_demo, train_actor=train_actor, anchor=anchor)
    return metrics, module


@pytest.fixture
def module():
    return make_module()


@pytest.fixture
def batch():
    return make_batch()


@pytest.mark.parametrize(
    ("cfg", "how", "present"),
    [
        (CFG, {}, ANCHORS),
        (replace(CFG, bc_weight=0.0), {}, {"gripper_margin_loss"}),
        (replace(CFG, gripper_margin_weight=0.0), {}, {"bc_loss"}),
        (WITHOUT_ANCHORS, {}, set()),
        (CFG, {"anchor": 0.0}, set()),  # decayed
        (CFG, {"n_demo": 0}, set()),  # nobody showed anything yet
        (CFG, {"train_actor": False}, {"gripper_margin_loss"}),
    ],
)
def test_each_demo_term_can_be_switched_off(module, batch, cfg, how, present):
    metrics, _ = one_update(module, batch, cfg, **how)
    assert ANCHORS & metrics.keys() == present
    actor_terms = {"actor_loss", "temperature_loss", "entropy"}
    assert actor_terms & metrics.keys() == (actor_terms if how.get("train_actor", True) else set())


def test_demo_terms_weigh_what_the_config_and_the_decay_say(module, batch):
    full, _ = one_update(module, batch)
    half, _ = one_update(module, batch, anchor=0.5)
    heavier, _ = one_update(module, batch, replace(CFG, bc_weight=2 * CFG.bc_weight))
    for term in ANCHORS:
        torch.testing.assert_close(half[term], 0.5 * full[term])
    torch.testing.assert_close(heavier["bc_loss"], 2 * full["bc_loss"])


def test_only_demo_rows_are_anchored(module, batch):
    """Other people's actions are imitated, one's own are not."""
    reference, _ = one_update(module, batch, n_demo=16)
    for rows, same in ((slice(16, None), True), (slice(0, 16), False)):
        other = copy.deepcopy(batch)
        other[Columns.ACTIONS][rows] = -other[Columns.ACTIONS][rows]
        metrics, _ = one_update(module, other, n_demo=16)
        for term in ANCHORS:
            assert torch.equal(metrics[term], reference[term]) == same, term


@pytest.mark.parametrize("train_actor", [True, False])
def test_gripper_penalty_counts_in_every_update(module, batch, train_actor):
    unpunished = batch | {DISCRETE_PENALTY: torch.zeros(32)}
    torch.manual_seed(0)
    q_target, gripper_target = td_targets(module, batch, CFG)
    torch.manual_seed(0)
    q_without, gripper_without = td_targets(module, unpunished, CFG)
    torch.testing.assert_close(gripper_target - gripper_without, batch[DISCRETE_PENALTY])
    assert torch.equal(q_target, q_without)  # the motion critics never see it

    punished, _ = one_update(module, batch, train_actor=train_actor)
    free, _ = one_update(module, unpunished, train_actor=train_actor)
    assert punished["gripper_loss"] != free["gripper_loss"]
    assert punished["critic_loss"] == free["critic_loss"]


def test_terminated_steps_are_worth_their_reward_alone(module, batch):
    batch[Columns.TERMINATEDS][:] = True
    q_target, gripper_target = td_targets(module, batch, CFG)
    torch.testing.assert_close(q_target, batch[Columns.REWARDS])
    torch.testing.assert_close(gripper_target, batch[Columns.REWARDS] + batch[DISCRETE_PENALTY])


def test_entropy_lowers_the_target_only_where_it_is_backed_up(module, batch):
    with torch.no_grad():
        module.log_alpha.fill_(0.0)
        module.actor.out.weight[3:] = 0.0
        module.actor.out.bias[3:] = -5.0  # so narrow that log π is positive everywhere
    targets = []
    for backup in (True, False):
        torch.manual_seed(0)
        targets.append(td_targets(module, batch, replace(CFG, entropy_backup=backup))[0])
    going_on = ~batch[Columns.TERMINATEDS]
    assert (targets[0] < targets[1])[going_on].all()
    assert torch.equal(targets[0][~going_on], targets[1][~going_on])


def test_targets_follow_by_tau_and_are_networks_of_their_own(module, batch):
    online_storage = {p.data_ptr() for n, p in module.named_parameters() if not n.startswith("target_")}
    assert not online_storage & {
        p.data_ptr() for _, target in module.get_target_network_pairs() for p in target.parameters()
    }
    with torch.no_grad():  # apart from the start, so that staying and following differ
        for online, _ in module.get_target_network_pairs():
            for p in online.parameters():
                p += 0.1
    before = parameters(module)
    _, after = one_update(module, batch, replace(CFG, tau=0.25))
    for name in ("encoder", "actor", "critics", "gripper"):
        for key, online in getattr(after, name).named_parameters():
            target = dict(getattr(after, f"target_{name}").named_parameters())[key]
            expected = 0.75 * before[f"target_{name}.{key}"] + 0.25 * online
            torch.testing.assert_close(target, expected, msg=f"{name}.{key}")


def test_actor_step_leaves_critics_gripper_and_encoder_as_the_critic_step_makes_them(module, batch):
    before = parameters(module)
    _, critic_only = one_update(module, batch, WITHOUT_ANCHORS, train_actor=False)
    _, both = one_update(module, batch, WITHOUT_ANCHORS, train_actor=True)
    differ = changed(parameters(critic_only), parameters(both))
    assert {name.split(".")[0] for name in differ} == {"actor", "target_actor", "log_alpha"}
    moved = {name.split(".")[0] for name in changed(before, parameters(critic_only))}
    targets = {"target_encoder", "target_critics", "target_gripper"}
    assert moved == {"encoder", "critics", "gripper", *targets}


def test_cloning_shapes_the_encoder_too(module, batch):
    _, without = one_update(module, batch, WITHOUT_ANCHORS)
    _, cloned = one_update(module, batch, replace(WITHOUT_ANCHORS, bc_weight=1.0))
    differ = {name.split(".")[0] for name in changed(parameters(without), parameters(cloned))}
    assert "encoder" in differ
    assert "critics" not in differ


def test_every_learned_parameter_is_in_exactly_one_optimizer():
    for kind in ("state", "features", "pixels"):
        module = make_module(kind)
        groups = [p for o in make_optimizers(module, CFG).values() for p in o.param_groups[0]["params"]]
        learned = [p for name, p in module.named_parameters() if not name.startswith("target_")]
        assert sorted(map(id, groups)) == sorted(map(id, learned)), kind


def test_a_trainable_trunk_is_trained_and_its_target_follows():
    module, batch = make_module("pixels"), make_batch("pixels", size=4)
    before = parameters(module)
    _, after = one_update(module, batch, replace(CFG, tau=0.5), n_demo=2)
    moved = changed(before, parameters(after))
    trunk = {name for name, _ in module.named_parameters() if name.startswith("encoder.trunk.")}
    assert trunk
    assert trunk <= moved
    assert {f"target_{name}" for name in trunk} <= moved


def test_cloning_start_imitates_both_heads_and_leaves_the_critics(module):
    batch = make_batch()
    batch[Columns.ACTIONS][:, :3] = torch.tensor([0.5, -0.5, 0.0])
    batch[Columns.ACTIONS][:, 3] = float(Gripper.CLOSE) - 1
    cfg = replace(CFG, actor_lr=3e-3, critic_lr=3e-3)
    optimizers, critics = make_optimizers(module, cfg), parameters(module.critics)
    losses = [clone_update(module, optimizers, batch, cfg) for _ in range(100)]
    for name in ("bc_loss", "gripper_margin_loss"):
        assert losses[-1][name] < 0.1 * losses[0][name]
    assert not changed(critics, parameters(module.critics))


def test_a_policys_own_steps_among_the_demonstrations_teach_critics_only(module):
    batch = make_batch()
    batch[IS_INTERVENTION] = torch.zeros(32)
    metrics, _ = one_update(module, batch, CFG, n_demo=16)
    assert metrics["bc_loss"] == metrics["gripper_margin_loss"] == 0.0
    before = parameters(module)
    clone_update(module, make_optimizers(module, CFG), batch, CFG)
    assert not any("actor" in name for name in changed(before, parameters(module)))


@pytest.mark.parametrize(
    "cfg",
    [WITHOUT_ANCHORS, replace(WITHOUT_ANCHORS, q_normalised_actor=False, num_critics=4, critic_subsample=2)],
)
def test_the_rewarded_choice_is_found_without_being_shown(cfg):
    """One-step task: reward for moving along +x, and for closing; nothing else tells."""
    cfg = replace(cfg, actor_lr=1e-3, critic_lr=1e-3)
    module = make_module(num_critics=cfg.num_critics)
    optimizers = make_optimizers(module, cfg)
    torch.manual_seed(0)
    for step in range(250):
        batch = make_batch(size=64, seed=step)
        closing = batch[Columns.ACTIONS][:, 3] == float(Gripper.CLOSE) - 1
        batch[Columns.REWARDS] = batch[Columns.ACTIONS][:, 0] + closing.float()
        batch[Columns.TERMINATEDS][:] = True
        update(module, optimizers, batch, cfg, n_demo=0, train_actor=True, anchor=1.0)
    module.eval()
    batch = make_batch(size=200, seed=1000)
    latent = module.encoder(batch[Columns.OBS])
    along, against = torch.tensor([[0.8, 0, 0]]).expand(200, -1), torch.tensor([[-0.8, 0, 0]]).expand(200, -1)
    gained = (module.critics(latent, along) - module.critics(latent, against)).mean(1)
    assert (gained > 1.0).all()  # 1.6 in truth
    action = module.forward_inference({Columns.OBS: batch[Columns.OBS]})[Columns.ACTIONS]
    assert action[:, 0].mean() > 0.7
    assert (action[:, 3] == float(Gripper.CLOSE) - 1).float().mean() > 0.95


BROKEN = [
    (Columns.REWARDS, (3,), float("nan")),
    (Columns.REWARDS, (3,), float("inf")),
    (Columns.NEXT_OBS, "agent_pos", float("nan")),
    (Columns.ACTIONS, (0, 1), float("nan")),
]


@pytest.mark.parametrize(("column", "where", "value"), BROKEN)
@pytest.mark.parametrize("train_actor", [True, False])
def test_a_loss_that_is_not_finite_changes_nothing(module, batch, column, where, value, train_actor):
    optimizers = make_optimizers(module, CFG)
    update(module, optimizers, batch, CFG, n_demo=16, train_actor=True, anchor=1.0)
    before = parameters(module), copy.deepcopy({k: o.state_dict() for k, o in optimizers.items()})
    broken = copy.deepcopy(batch)
    if column == Columns.NEXT_OBS:
        broken[column][where][0, 0] = value
    else:
        broken[column][where] = value
    with pytest.raises(NotFiniteError):
        update(module, optimizers, broken, CFG, n_demo=16, train_actor=train_actor, anchor=1.0)
    assert not changed(before[0], parameters(module))
    for name, optimizer in optimizers.items():
        state = optimizer.state_dict()["state"]
        for index, held in before[1][name]["state"].items():
            assert all(torch.equal(state[index][key], value) for key, value in held.items())
    update(module, optimizers, batch, CFG, n_demo=16, train_actor=True, anchor=1.0)  # and it goes on
    assert all(torch.isfinite(value).all() for value in parameters(module).values())


def test_skipped_updates_are_counted_told_and_the_last_batch_is_saved(batch, tmp_path, caplog):
    skips = SkippedUpdates(limit=3, folder=tmp_path)
    batch[Columns.REWARDS][5:7] = torch.nan
    for in_row in (1, 2):
        skips.skipped(batch)
        assert (skips.in_row, skips.too_many) == (in_row, False)
    skips.made()
    for _ in range(3):
        assert not (tmp_path / BATCH_FILE).exists()
        skips.skipped(batch)
    assert (skips.total, skips.too_many) == (5, True)
    resumed = SkippedUpdates(limit=3, folder=tmp_path)
    resumed.set_state({"total": 5, "in_row": 2})
    assert (resumed.get_state(), resumed.too_many) == ({"total": 5, "in_row": 2}, False)
    resumed.set_state(skips.get_state())  # who resumes what had too many tries again
    assert (resumed.total, resumed.in_row) == (5, 0)
    resumed.set_state({})  # of an earlier release
    assert resumed.total == 0
    with np.load(tmp_path / BATCH_FILE) as saved:
        np.testing.assert_array_equal(saved[Columns.REWARDS], batch[Columns.REWARDS])
        np.testing.assert_array_equal(saved["obs/agent_pos"], batch[Columns.OBS]["agent_pos"])
    assert [r.levelname for r in caplog.records] == [
        "WARNING",
        "WARNING",
        "ERROR",
    ]
    assert "rewards in 2 rows" in caplog.text
