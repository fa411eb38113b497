"""A binary classifier of success on both cameras' frozen features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hil_rllib.contract import CAMERAS
from hil_rllib.models.heads import CameraHead, mlp


class SuccessHead(nn.Module):
    """features.<camera> (B, 512, 4, 4), any float type → logit (B,) of success.

    A latent per camera as the policy's, one hidden layer. Source: HIL-SERL's reward classifier.

    What calibration found travels with the weights: scale and shift of the logit, and the probability from
    which a frame counts as success.
    """

    scale: Tensor
    shift: Tensor
    threshold: Tensor

    def __init__(self, *, latent_dim: int, per_channel: int, dropout: float, hidden: int) -> None:
        super().__init__()
        self.cameras = nn.ModuleDict({name: CameraHead(latent_dim, per_channel, dropout) for name in CAMERAS})
        self.out = nn.Sequential(*mlp([latent_dim * len(CAMERAS), hidden]), nn.Linear(hidden, 1))
        for name, value in {"scale": 1.0, "shift": 0.0, "threshold": 0.5}.items():
            self.register_buffer(name, torch.tensor(value))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        latents = [head(features[name].float()) for name, head in self.cameras.items()]
        return self.out(torch.cat(latents, -1)).squeeze(-1)

    def probability(self, features: Mapping[str, Tensor]) -> Tensor:
        """Calibrated probability of success (B,)."""
        return torch.sigmoid(self.scale * self(features) + self.shift)

    def set_calibration(self, scale: float, shift: float, threshold: float) -> None:
        for name, value in {"scale": scale, "shift": shift, "threshold": threshold}.items():
            getattr(self, name).fill_(value)
