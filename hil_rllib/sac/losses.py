"""The SAC update as pure functions of tensors; each returns a scalar loss. B: batch, E: critics."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hil_rllib.contract import Gripper

NO_OP = 1e-3  # largest motion entry, [-1, 1], that still counts as none


def td_target(reward: Tensor, terminated: Tensor, next_value: Tensor, gamma: float) -> Tensor:
    """r + γ·(1 - terminated)·V(s'), all (B,). A truncated step bootstraps: only termination ends value."""
    return reward + gamma * (1.0 - terminated) * next_value


def ensemble_value(q: Tensor, subset: int | None) -> Tensor:
    """Pessimistic value of an ensemble, q (E, B) → (B,): the minimum, over a random subset if one is asked.

    Source: REDQ (Chen 2021), RLPD (Ball 2023); None is clipped double Q over all critics.
    """
    if subset is not None and subset < len(q):
        q = q[torch.randperm(len(q), device=q.device)[:subset]]
    return q.min(0).values


def policy_value(q: Tensor, subset: int | None) -> Tensor:
    """What the actor climbs, q (E, B) → (B,): the minimum, or the mean where targets take a random subset's.

    Source: SAC; REDQ (Chen 2021), RLPD (Ball 2023).
    """
    return q.min(0).values if subset is None else q.mean(0)


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """Mean squared TD error, summed over critics. q: (E, B); target: (B,). Source: SAC, eq. 5."""
    return (q - target).square().mean(-1).sum()


def actor_loss(log_prob: Tensor, q: Tensor, alpha: Tensor, normalise: bool) -> Tensor:
    """α·log π - Q, mean over (B,). Source: SAC, eq. 7.

    normalise: divided by the batch's mean |Q|, so that a cloning term of fixed weight keeps its
    strength whatever the scale of the values. Source: TD3+BC (Fujimoto & Gu 2021), eq. 5.
    """
    loss = (alpha * log_prob - q).mean()
    return loss / q.detach().abs().mean().clamp_min(1e-3) if normalise else loss


def temperature_loss(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """Gradient of the dual of the entropy constraint. Source: SAC, eq. 18, in log α."""
    return -(log_alpha * (log_prob.detach().mean() + target_entropy))


def gripper_margin_loss(q: Tensor, expert: Tensor, shown: Tensor, margin: float) -> Tensor:
    """Large-margin term: max_a [Q(s, a) + margin·1(a ≠ a_E)] - Q(s, a_E). q: (B, 3); expert: (B,) int64.

    shown: (B,) bool, rows that a person did; others do not count.

    Holds the demonstrated choice at least `margin` above the others. The mean is over the choices that
    occur, each with the mean over its own rows: a hand closes once an episode and holds twenty times, and
    unbalanced the head learns to hold for ever. Source: DQfD (Hester 2018), eq. 2; the balance is ours.
    """
    index = expert[:, None]
    penalised = (q + margin).scatter(1, index, q.gather(1, index))
    shortfall = penalised.max(1).values - q.gather(1, index).squeeze(1)
    one_hot = F.one_hot(expert, q.shape[1]).to(q.dtype) * shown[:, None]
    count = one_hot.sum(0)
    return (shortfall @ one_hot / count.clamp_min(1)).sum() / (count > 0).sum().clamp_min(1)


def cloning_loss(action: Tensor, expert: Tensor, choice: Tensor, shown: Tensor) -> Tensor:
    """‖a - a_E‖² over motions (B, 3), a sampled from the policy: E = ‖μ - a_E‖² + Σσ², so noise shrinks too.

    Rows in which the person did nothing (no motion, gripper held; choice (B,)) do not count: they teach the
    mean action to stand still, and a greedy policy that stands still once stands still for good.
    Nor do those that no person did (shown: (B,) bool): a recorded run has the policy's own failures too.
    Source: TD3+BC; leaving no-ops out as OpenVLA (Kim 2024) does.
    """
    active = shown & ((expert.abs().amax(-1) > NO_OP) | (choice != int(Gripper.HOLD)))
    return ((action - expert).square().sum(-1) * active).sum() / active.sum().clamp_min(1)


def gripper_q_loss(q: Tensor, choice: Tensor, target: Tensor) -> Tensor:
    """Double-DQN regression of the executed choice. q: (B, 3); choice: (B,) int64; target: (B,)."""
    return F.mse_loss(q.gather(1, choice[:, None]).squeeze(1), target)
