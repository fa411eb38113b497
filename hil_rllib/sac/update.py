"""One gradient update of a `HILSACModule`: the learner's inner loop, free of RLlib.

Gradients: critics and gripper head shape the shared observation head; the actor's Q term sees a
detached latent (HIL-SERL), its cloning term does not, since demonstrations tell what to look at.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from torch import Tensor, nn

from hil_rllib.config import SACSection
from hil_rllib.contract import DISCRETE_PENALTY, IS_INTERVENTION, MOTION_DIM, Gripper
from hil_rllib.models.heads import float_features
from hil_rllib.sac import losses
from hil_rllib.sac.module import HILSACModule
from hil_rllib.sac.skipping import NotFiniteError

Batch = dict[str, Any]


def make_optimizers(module: HILSACModule, cfg: SACSection) -> dict[str, torch.optim.Optimizer]:
    """Each parameter in exactly one Adam; the observation head belongs to the critic's."""

    def adam(lr: float, *parts: nn.Module) -> torch.optim.Optimizer:
        params = [p for part in parts for p in part.parameters() if p.requires_grad]
        return torch.optim.Adam(params, lr=lr, fused=True)

    return {
        "critic": adam(cfg.critic_lr, module.encoder, module.critics, module.gripper),
        "actor": adam(cfg.actor_lr, module.actor),
        "temperature": torch.optim.Adam([module.log_alpha], lr=cfg.temperature_lr),
    }


def update(
    module: HILSACModule,
    optimizers: dict[str, torch.optim.Optimizer],
    batch: Batch,
    cfg: SACSection,
    *,
    n_demo: int,
    train_actor: bool,
    anchor: float,
) -> dict[str, Tensor]:
    """One critic step, with `train_actor` one actor and temperature step too, then the target step.

    batch: obs and new_obs (nested, B rows), actions (B, 4) in module space, rewards, terminateds,
    discrete_penalty, is_intervention (B,). n_demo: how many rows, the first ones, are demonstrations.
    anchor: factor of both demo terms, 1 → 0 where they decay.
    Returns scalars to log. Raises NotFiniteError, and then has changed nothing.
    Source: RLPD (Ball 2023), HIL-SERL (Luo 2024) for the gripper head.
    """
    motion, choice = split_action(batch[Columns.ACTIONS])
    latent = module.encoder(batch[Columns.OBS])
    q = module.critics(latent, motion)
    gripper_q = module.gripper(latent)

    targets = td_targets(module, batch, cfg)
    terms = {
        "critic_loss": losses.critic_loss(q, targets[0]),
        "gripper_loss": losses.gripper_q_loss(gripper_q, choice, targets[1]),
    }
    anchored = anchor > 0 and n_demo > 0
    shown = batch[IS_INTERVENTION][:n_demo] > 0
    if anchored and cfg.gripper_margin_weight > 0:
        margin = losses.gripper_margin_loss(gripper_q[:n_demo], choice[:n_demo], shown, cfg.gripper_margin)
        terms["gripper_margin_loss"] = anchor * cfg.gripper_margin_weight * margin
    if train_actor:
        sampled, log_prob = module.actor.sample(latent.detach())
        q_of_policy = losses.policy_value(
            frozen(module.critics, latent.detach(), sampled), cfg.critic_subsample
        )
        alpha = module.log_alpha.exp()
        terms["actor_loss"] = losses.actor_loss(log_prob, q_of_policy, alpha.detach(), cfg.q_normalised_actor)
        terms["temperature_loss"] = losses.temperature_loss(module.log_alpha, log_prob, target_entropy(cfg))
        if anchored and cfg.bc_weight > 0:
            cloned, _ = module.actor.sample(latent[:n_demo])
            cloning = losses.cloning_loss(cloned, motion[:n_demo], choice[:n_demo], shown)
            terms["bc_loss"] = anchor * cfg.bc_weight * cloning

    active = optimizers if train_actor else {"critic": optimizers["critic"]}
    descend(list(terms.values()), active, cfg.grad_clip)
    move_targets(module, cfg.tau)

    metrics = {
        **terms,
        "q_mean": q.mean(),
        "td_target_mean": targets[0].mean(),
        "gripper_q_mean": gripper_q.mean(),
    }
    if train_actor:
        metrics |= {"temperature": alpha, "entropy": -log_prob.mean()}
    return {name: value.detach() for name, value in metrics.items()}


def clone_update(
    module: HILSACModule, optimizers: dict[str, torch.optim.Optimizer], batch: Batch, cfg: SACSection
) -> dict[str, Tensor]:
    """Behaviour cloning of both heads on a batch of demonstrations; the optional start before SAC.

    batch: as of `update`.
    """
    motion, choice = split_action(batch[Columns.ACTIONS])
    latent, shown = module.encoder(batch[Columns.OBS]), batch[IS_INTERVENTION] > 0
    cloned, _ = module.actor.sample(latent)
    margin = losses.gripper_margin_loss(module.gripper(latent), choice, shown, cfg.gripper_margin)
    terms = {
        "bc_loss": losses.cloning_loss(cloned, motion, choice, shown),
        "gripper_margin_loss": margin,
    }
    descend(list(terms.values()), {k: optimizers[k] for k in ("critic", "actor")}, cfg.grad_clip)
    move_targets(module, cfg.tau)
    return {name: value.detach() for name, value in terms.items()}


@torch.no_grad()
def td_targets(module: HILSACModule, batch: Batch, cfg: SACSection) -> tuple[Tensor, Tensor]:
    """Targets (B,) of the motion critics and of the gripper head; the latter's reward holds the penalty."""
    module.encoder.eval()  # no dropout in a target
    next_obs = float_features(batch[Columns.NEXT_OBS])  # once for both networks
    next_latent = module.encoder(next_obs)
    module.encoder.train()
    target_latent = module.target_encoder(next_obs)
    reward, terminated = batch[Columns.REWARDS], batch[Columns.TERMINATEDS].float()

    sampled, log_prob = module.actor.sample(next_latent)
    next_value = losses.ensemble_value(module.target_critics(target_latent, sampled), cfg.critic_subsample)
    if cfg.entropy_backup:
        next_value = next_value - module.log_alpha.exp() * log_prob
    next_choice = module.choose(next_latent)  # double DQN: online picks, target rates
    next_gripper = module.target_gripper(target_latent).gather(1, next_choice).squeeze(1)
    return (
        losses.td_target(reward, terminated, next_value, cfg.gamma),
        losses.td_target(reward + batch[DISCRETE_PENALTY], terminated, next_gripper, cfg.gamma),
    )


def split_action(actions: Tensor) -> tuple[Tensor, Tensor]:
    """Module-space actions (B, 4) → motion (B, 3) and gripper class (B,) int64."""
    return actions[:, :MOTION_DIM], (actions[:, MOTION_DIM].clamp(-1, 1) + int(Gripper.HOLD)).round().long()


def target_entropy(cfg: SACSection) -> float:
    """−|A|/2 with the gripper dimension counted, as LeRobot does, unless the config says a value."""
    return -(MOTION_DIM + 1) / 2 if cfg.target_entropy is None else cfg.target_entropy


def frozen(critics: nn.Module, latent: Tensor, motion: Tensor) -> Tensor:
    """The critics' values with gradients for the motion only."""
    params = {name: p.detach() for name, p in critics.named_parameters()}
    return torch.func.functional_call(critics, params, (latent, motion))


def descend(terms: list[Tensor], optimizers: dict[str, torch.optim.Optimizer], clip: float) -> None:
    """One step of all optimisers down the sum of the terms, or of none.

    Raises NotFiniteError where the sum or a gradient is not finite; clipping computes the norms anyway.
    """
    for optimizer in optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    loss = torch.stack(terms).sum()
    loss.backward()
    groups = [group for optimizer in optimizers.values() for group in optimizer.param_groups]
    norms = [nn.utils.clip_grad_norm_(group["params"], clip) for group in groups]
    if not math.isfinite(float(torch.stack([loss.detach(), *norms]).sum())):
        raise NotFiniteError
    for optimizer in optimizers.values():
        optimizer.step()


@torch.no_grad()
def move_targets(module: HILSACModule, tau: float) -> None:
    """target ← (1 - τ)·target + τ·online, buffers excepted (none of ours learns)."""
    for online, target in module.get_target_network_pairs():
        pairs = [(t, p) for t, p in zip(target.parameters(), online.parameters(), strict=True)]
        torch._foreach_lerp_([t for t, _ in pairs], [p for _, p in pairs], tau)
