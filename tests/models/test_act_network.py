"""ACT's network, losses and temporal ensembling against what the paper says of them."""

from __future__ import annotations

import math

import act_reference
import numpy as np
import pytest
import torch

from hil_rllib.contract import CAMERAS
from hil_rllib.models.act import ACT, ACTSizes, act_losses
from hil_rllib.models.ensemble import empty_memory, ensemble
from hil_rllib.models.heads import StateScaling

SIZES = ACTSizes(
    chunk=5, width=16, heads=2, feedforward=24, latent=3, encoder_layers=2, decoder_layers=2, dropout=0.1
)


def make(cameras: bool, seed: int = 0) -> tuple[ACT, dict, torch.Tensor, torch.Tensor]:
    """A network, three observations, their chunks, and which steps are padded."""
    torch.manual_seed(seed)
    net = ACT(SIZES, cameras=cameras, world=not cameras).double().eval()
    obs: dict = {"agent_pos": torch.randn(3, 18)}
    if cameras:
        obs["features"] = {camera: torch.rand(3, 512, 4, 4).half() for camera in CAMERAS}
    else:
        obs["environment_state"] = torch.randn(3, 3)
    padded = torch.arange(5) >= torch.tensor([[5], [2], [1]])
    return net, obs, torch.randn(3, 5, 4, dtype=torch.double) * ~padded[..., None], padded


@pytest.mark.parametrize("cameras", [True, False], ids=["cameras", "state"])
def test_network_and_losses_are_those_of_the_paper(cameras: bool) -> None:
    net, obs, actions, padded = make(cameras)
    torch.manual_seed(1)
    with torch.no_grad():
        plan, mean, log_var = net(obs, actions, padded)
    torch.manual_seed(1)
    noise = torch.randn(3, 3, dtype=torch.double).numpy()
    assert plan.shape == (3, 5, 4)
    assert mean.shape == log_var.shape == (3, 3)

    w = {name: value.detach().numpy() for name, value in net.named_parameters()}
    raw = torch.cat([obs["agent_pos"], *([] if cameras else [obs["environment_state"]])], -1)
    scaled = StateScaling(raw.shape[1])(raw).numpy().astype(float)
    plans, means, log_vars = [], [], []
    for b in range(3):
        state, world = scaled[b, :18], None if cameras else scaled[b, 18:]
        maps = [obs["features"][c][b].numpy().astype(float) for c in CAMERAS] if cameras else []
        mu, ln_var = act_reference.style(w, SIZES, state, actions[b].numpy(), padded[b].numpy())
        z = mu + np.exp(ln_var / 2) * noise[b]
        plans.append(act_reference.plan(w, SIZES, z, state, world, maps))
        means.append(mu)
        log_vars.append(ln_var)
    np.testing.assert_allclose(plan.numpy(), plans, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mean.numpy(), means, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_var.numpy(), log_vars, rtol=1e-5, atol=1e-6)
    l1, kl = act_losses(plan, mean, log_var, actions, padded)
    want = act_reference.losses(plans, means, log_vars, actions.tolist(), padded.tolist())
    assert (l1.item(), kl.item()) == pytest.approx(want, rel=1e-5)


def test_what_is_past_the_end_changes_neither_style_nor_losses() -> None:
    net, obs, actions, padded = make(cameras=False)
    other = torch.where(padded[..., None], torch.full_like(actions, 7.0), actions)
    with torch.no_grad():
        before, after = net.style(obs, actions, padded), net.style(obs, other, padded)
        plan = net.plan(obs)
    assert torch.equal(before[0], after[0])
    assert torch.equal(
        act_losses(plan, *before, actions, padded)[0], act_losses(plan, *after, other, padded)[0]
    )


def test_it_acts_with_the_priors_mean() -> None:
    net, obs, *_ = make(cameras=False)
    with torch.no_grad():
        assert torch.equal(net.plan(obs), net.plan(obs, torch.zeros(3, 3, dtype=torch.double)))


def test_every_parameter_is_trained() -> None:
    net, obs, actions, padded = make(cameras=True)
    l1, kl = act_losses(*net(obs, actions, padded), actions, padded)
    (l1 + kl).backward()
    untrained = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert untrained == ["decoder_layers.0.attend.0.value.weight"]  # the decoder begins with zeros, as DETR's


@pytest.mark.parametrize("decay", [0.01, 0.0, -0.5, 1.0])
def test_an_action_is_the_weighted_mean_of_all_that_foresaw_it(decay: float) -> None:
    """a_t = Σ w_i â_t^(i) / Σ w_i over the chunks made at t - i …, w_i = exp(-m·i), i = 0 for the oldest."""
    chunk, steps, rng = 4, 11, np.random.default_rng(0)
    plans = rng.normal(size=(steps, chunk, 2))
    memory = {name: part[None].double() for name, part in empty_memory(chunk, 2).items()}
    for t in range(steps):
        action, memory = ensemble(memory, torch.from_numpy(plans[t])[None], decay)
        foresaw = [plans[made, t - made] for made in range(max(0, t - chunk + 1), t + 1)]  # oldest first
        weights = [math.exp(-decay * i) for i in range(len(foresaw))]
        np.testing.assert_allclose(action[0], np.average(foresaw, axis=0, weights=weights), rtol=1e-9)
