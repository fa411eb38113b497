"""Image augmentation for training on frames."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def random_shift(frames: Tensor, pad: int) -> Tensor:
    """Each frame of uint8 (B, H, W, 3) shifted by up to ±pad pixels, edges repeated.

    Source: DrQ (Kostrikov 2020), pad 4; whole pixels, so a gather is enough and bytes stay bytes.
    """
    if pad == 0:
        return frames
    count, height, width, _ = frames.shape
    padded = F.pad(frames.permute(0, 3, 1, 2).float(), (pad, pad, pad, pad), mode="replicate").to(
        frames.dtype
    )
    offset = torch.randint(0, 2 * pad + 1, (2, count, 1), device=frames.device)
    rows = offset[0] + torch.arange(height, device=frames.device)
    cols = offset[1] + torch.arange(width, device=frames.device)
    batch = torch.arange(count, device=frames.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], cols[:, None, :]]
