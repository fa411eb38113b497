"""Light disturbance of frames, so that features survive other shading, compression and sensors."""

from __future__ import annotations

import torch
from torch import Tensor

from hil_rllib.models.augment import random_shift

BRIGHTNESS, CONTRAST, COLOUR = 0.1, 0.1, 0.05  # largest change, as a share
NOISE = 2 / 255  # standard deviation
SHIFT_PX = 4  # as DrQ
SHIFT_SHARE = 0.1  # of frames: a shift moves the cube away from its label, so most stay in place


def jitter(frames: Tensor) -> Tensor:
    """frames (B, 2, H, W, 3) uint8 → floats in [0, 1], each frame disturbed on its own."""
    flat = frames.flatten(0, 1)
    count, device = len(flat), flat.device
    shifted = torch.rand(count, device=device) < SHIFT_SHARE
    if shifted.any():
        flat = flat.clone()
        flat[shifted] = random_shift(flat[shifted], SHIFT_PX)

    def within(share: float, channels: int = 1) -> Tensor:
        return share * (2 * torch.rand(count, 1, 1, channels, device=device) - 1)

    images = flat.float().div_(255)
    mean = images.mean((1, 2, 3), keepdim=True)
    images.sub_(mean).mul_(1 + within(CONTRAST)).add_(mean)
    images.mul_((1 + within(BRIGHTNESS)) * (1 + within(COLOUR, channels=3)))
    images.add_(torch.randn_like(images), alpha=NOISE)
    return images.clamp_(0, 1).unflatten(0, frames.shape[:2])
