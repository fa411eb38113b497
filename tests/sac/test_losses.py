"""The update's pure parts against hand-made numbers and the formulas they come from."""

from __future__ import annotations

import math

import pytest
import torch

from hil_rllib.models.augment import random_shift
from hil_rllib.models.heads import Critics, squashed_sample
from hil_rllib.sac import losses


def test_only_termination_ends_the_value():
    reward, value = torch.tensor([1.0, 1.0]), torch.tensor([10.0, 10.0])
    target = losses.td_target(reward, torch.tensor([1.0, 0.0]), value, gamma=0.9)
    torch.testing.assert_close(target, torch.tensor([1.0, 10.0]))


def test_margin_is_zero_once_the_expert_leads_by_it_and_grows_with_the_shortfall():
    expert = torch.tensor([1, 1])
    leading = torch.tensor([[0.0, 0.2, 0.1]])
    behind = torch.tensor([[0.3, 0.2, 0.0]])
    shown = torch.tensor([True])
    assert losses.gripper_margin_loss(leading, expert[:1], shown, 0.1) == pytest.approx(0.0)
    assert losses.gripper_margin_loss(behind, expert[:1], shown, 0.1) == pytest.approx(0.3 + 0.1 - 0.2)


def test_what_no_person_did_is_not_imitated():
    action, expert, q = torch.randn(8, 3), torch.randn(8, 3), torch.randn(8, 3)
    choice = torch.tensor([0, 1, 2, 1, 0, 2, 2, 2])
    shown = torch.arange(8) < 5
    cloning = losses.cloning_loss(action, expert, choice, shown)
    margin = losses.gripper_margin_loss(q, choice, shown, 0.1)
    everyone = torch.ones(5, dtype=torch.bool)
    torch.testing.assert_close(cloning, losses.cloning_loss(action[:5], expert[:5], choice[:5], everyone))
    torch.testing.assert_close(margin, losses.gripper_margin_loss(q[:5], choice[:5], everyone, 0.1))
    nobody = torch.zeros(8, dtype=torch.bool)
    assert losses.cloning_loss(action, expert, choice, nobody) == 0.0
    assert losses.gripper_margin_loss(q, choice, nobody, 0.1) == 0.0


def test_actor_loss_does_not_depend_on_the_scale_of_values_when_normalised():
    log_prob, q, none = torch.zeros(64), torch.rand(64) + 1, torch.tensor(0.0)
    small = losses.actor_loss(log_prob, q, none, normalise=True)
    large = losses.actor_loss(log_prob, 100 * q, none, normalise=True)
    assert small == pytest.approx(large.item(), rel=1e-5)
    assert losses.actor_loss(log_prob, 100 * q, none, normalise=False) < 50 * small


def test_temperature_falls_when_entropy_exceeds_its_target():
    log_alpha = torch.tensor(0.0, requires_grad=True)
    losses.temperature_loss(log_alpha, log_prob=torch.full((8,), -5.0), target_entropy=-2.0).backward()
    assert log_alpha.grad > 0  # entropy 5 > -2: descent lowers log α


def test_the_actor_climbs_the_minimum_or_beside_a_subset_the_mean_of_all():
    q = torch.randn(5, 8)
    assert torch.equal(losses.policy_value(q, None), q.min(0).values)
    assert torch.equal(losses.policy_value(q, 2), q.mean(0))


def test_ensemble_value_is_the_minimum_and_a_subset_is_never_lower():
    q = torch.randn(10, 256)
    assert torch.equal(losses.ensemble_value(q, None), q.min(0).values)
    assert (losses.ensemble_value(q, 2) >= q.min(0).values).all()


def test_squashed_log_density_matches_torch():
    mean, std = torch.randn(5000, 3), torch.rand(5000, 3) + 0.1
    torch.manual_seed(3)
    sample, log_prob = squashed_sample(mean, std)
    tanh = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(mean, std), [torch.distributions.TanhTransform()]
    )
    inside = (sample.abs() < 0.999).all(-1)  # beyond, the reference itself loses its digits
    reference = tanh.log_prob(sample.clamp(-0.999, 0.999)).sum(-1)
    torch.testing.assert_close(log_prob[inside], reference[inside], atol=1e-3, rtol=1e-3)
    assert torch.isfinite(log_prob).all()


def test_critics_of_an_ensemble_are_independent_networks():
    critics = Critics(3, in_dim=5, hidden=(8, 8))
    latent, action = torch.randn(4, 2), torch.randn(4, 3)
    before = critics(latent, action)
    with torch.no_grad():
        for weight in critics.weights:
            weight[1] += 1.0
    after = critics(latent, action)
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not torch.allclose(before[1], after[1])
    assert math.prod(before.shape) == 12


def test_shift_moves_each_frame_by_at_most_the_padding_and_repeats_edges():
    torch.manual_seed(0)
    ramp = torch.arange(32, dtype=torch.uint8)
    frames = ramp[None, :, None, None].expand(64, 32, 32, 3).contiguous()
    shifted = random_shift(frames, pad=4)
    assert shifted.dtype == torch.uint8
    assert shifted.shape == frames.shape
    moves = shifted[:, 16, 0, 0].int() - 16
    assert moves.min() == -4
    assert moves.max() == 4
    assert torch.equal(random_shift(frames, 0), frames)
