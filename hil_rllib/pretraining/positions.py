"""From feature maps to positions: the heads, their loss and their errors in millimetres.

Every head reads a map as the policy will (`CameraHead`: spatial learned embeddings, Linear, LayerNorm,
tanh), so what training asks of the trunk is what learning by reinforcement later needs from it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hil_rllib.contract import CAMERAS
from hil_rllib.models.heads import CameraHead, mlp

TARGETS = ("cube", "TCP", "cube − TCP")
VIEWS = (*CAMERAS, "both")  # what a head may look at
LATENT_DIM, PER_CHANNEL, DROPOUT = 64, 8, 0.1  # as in the policy's default encoder section
HIDDEN = 256  # the policy's layers behind the latents are as wide

# Where things are on average and how far they stray [m]: outputs start at the mean and are of order one.
_CENTRE = torch.tensor([[0.4, 0.0, 0.04], [0.4, 0.0, 0.16], [0.0, 0.0, -0.12]])
_SPREAD = 0.1
_TARGET_WEIGHTS = torch.tensor([1.0, 0.5, 1.0])  # the policy knows its TCP from the joints
_NEAR, _NEAR_BONUS = 0.1, 2.0  # [m]; close to the cube a millimetre decides over the grasp
_HUBER_BETA = 0.005  # [m] squared below, absolute above: a cube out of sight must not rule the loss
_OWN_VIEW_WEIGHT = 0.5  # each camera alone has to tell what it can


class PositionHeads(nn.Module):
    """maps (B, 2, 512, 4, 4) → positions (B, 3, 3) [m], rows as `TARGETS`, by view as in `VIEWS`."""

    def __init__(self) -> None:
        super().__init__()
        self.cameras = nn.ModuleList(CameraHead(LATENT_DIM, PER_CHANNEL, DROPOUT) for _ in CAMERAS)
        self.own = nn.ModuleList(nn.Linear(LATENT_DIM, 9) for _ in CAMERAS)
        self.both = nn.Sequential(*mlp([LATENT_DIM * len(CAMERAS), HIDDEN]), nn.Linear(HIDDEN, 9))
        self.register_buffer("centre", _CENTRE.clone(), persistent=False)

    def forward(self, maps: Tensor) -> dict[str, Tensor]:
        latents = [head(maps[:, i]) for i, head in enumerate(self.cameras)]
        outputs = [own(latent) for own, latent in zip(self.own, latents, strict=True)]
        outputs.append(self.both(torch.cat(latents, -1)))
        positions = [self.centre + _SPREAD * output.view(-1, 3, 3) for output in outputs]
        return dict(zip(VIEWS, positions, strict=True))


def with_difference(points: Tensor) -> Tensor:
    """(B, 2, 3) cube and TCP → (B, 3, 3) with their difference."""
    return torch.cat([points, points[:, :1] - points[:, 1:]], 1)


def position_loss(predicted: Mapping[str, Tensor], points: Tensor) -> Tensor:
    """Weighted Huber loss in centimetres over all views; points (B, 2, 3) [m]."""
    truth = with_difference(points)
    near = (truth[:, 2].norm(dim=-1) < _NEAR).float()
    weights = (1 + _NEAR_BONUS * near)[:, None] * _TARGET_WEIGHTS.to(truth.device)
    weights = weights / weights.mean()
    total = truth.new_zeros(())
    for view, positions in predicted.items():
        loss = nn.functional.smooth_l1_loss(positions, truth, beta=_HUBER_BETA, reduction="none").sum(-1)
        total = total + (1.0 if view == "both" else _OWN_VIEW_WEIGHT) * (weights * loss).mean()
    return 100 * total


def errors_mm(predicted: Tensor, points: Tensor) -> NDArray[np.float32]:
    """Signed error per scene, target and axis (N, 3, 3) [mm]; predicted (N, 3, 3), points (N, 2, 3) [m]."""
    return (1000 * (predicted - with_difference(points))).cpu().numpy()
