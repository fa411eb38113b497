"""Temporal ensembling: every step of the robot is the average of all chunks that foresaw it.

Zhao et al. 2023, section IV.A: the i-th oldest of a step's predictions counts exp(-m·i). The average is kept
up to date as predictions arrive, so an episode's memory is one chunk and a count per step of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Name → tensor. mean (B, K, A): the average of what was predicted for the steps from now on.
# count (B, K): of how many predictions.
Memory = dict[str, Tensor]


def empty_memory(chunk: int, action_dim: int) -> Memory:
    """Of one episode that begins, without the batch's rank."""
    return {"mean": torch.zeros(chunk, action_dim), "count": torch.zeros(chunk)}


def ensemble(memory: Memory, plan: Tensor, decay: float) -> tuple[Tensor, Memory]:
    """Action (B, A) of this step, and the memory for the next. plan: (B, K, A), made now. decay: m."""
    count = memory["count"]
    newest, before = torch.exp(-decay * count), _weights_before(count, decay)
    share = (newest / (before + newest))[..., None]
    mean = memory["mean"] + share * (plan - memory["mean"])
    following = {
        "mean": torch.cat([mean[:, 1:], torch.zeros_like(mean[:, :1])], 1),
        "count": torch.cat([count[:, 1:] + 1, torch.zeros_like(count[:, :1])], 1),
    }
    return mean[:, 0], following


def _weights_before(count: Tensor, decay: float) -> Tensor:
    """exp(-m·0) + … + exp(-m·(count - 1)): a geometric series."""
    if decay == 0:
        return count
    return torch.expm1(-decay * count) / torch.expm1(torch.full_like(count, -decay))
