"""What a policy can read from a frozen trunk: fresh heads trained on its maps, tested on unseen scenes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hil_rllib.models.resnet10 import ResNet10
from hil_rllib.pretraining.positions import TARGETS, VIEWS, PositionHeads, errors_mm, position_loss
from hil_rllib.pretraining.scenes import Scenes
from hil_rllib.pretraining.trunk import batches

NEAR = 0.1  # [m] scenes with the TCP this close to the cube are also reported alone
BATCH = 256


@dataclass(frozen=True)
class Errors:
    """Held-out errors of fresh heads. By view: (N, 3, 3) signed [mm], rows as `TARGETS`; near: (N,) bool."""

    by_view: dict[str, NDArray[np.float32]]
    near: NDArray[np.bool_]

    def table(self) -> str:
        """Markdown, by view and target: median and mean distance, median of each axis; then near scenes."""
        lines = [
            "| view | target | median | mean | x | y | z | median near | mean near |",
            "|---|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for view, errors in self.by_view.items():
            for target, error in zip(TARGETS, errors.swapaxes(0, 1), strict=True):
                distance, axes = np.linalg.norm(error, axis=-1), np.median(np.abs(error), axis=0)
                near = distance[self.near]
                figures = [np.median(distance), distance.mean(), *axes, np.median(near), near.mean()]
                lines.append(f"| {view} | {target} | {' | '.join(f'{figure:.1f}' for figure in figures)} |")
        return "\n".join(lines)


def probe(
    trunk: ResNet10, train: Scenes, held_out: Scenes, steps: int = 2000, seed: int = 0, device: str = "cpu"
) -> Errors:
    """Errors on `held_out` of heads trained on the maps of `train`, the trunk untouched."""
    trunk = trunk.to(device)
    maps, points = feature_maps(trunk, train, device)
    heads = fit_heads(maps, points, steps, seed)
    unseen, truth = feature_maps(trunk, held_out, device)
    return measure(heads, unseen, truth)


def fit_heads(maps: Tensor, points: Tensor, steps: int, seed: int) -> PositionHeads:
    """Fresh heads on maps (N, 2, 512, 4, 4) float16 and points (N, 2, 3) [m]."""
    torch.manual_seed(seed)
    heads = PositionHeads().to(maps.device)
    optimiser = torch.optim.Adam(heads.parameters(), lr=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        rows = torch.randint(len(maps), (min(BATCH, len(maps)),), device=maps.device)
        loss = position_loss(heads(maps[rows].float()), points[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return heads.eval()


@torch.inference_mode()
def measure(heads: PositionHeads, maps: Tensor, points: Tensor) -> Errors:
    found: dict[str, list[NDArray[np.float32]]] = {view: [] for view in VIEWS}
    for part, truth in zip(maps.split(BATCH), points.split(BATCH), strict=True):
        for view, positions in heads(part.float()).items():
            found[view].append(errors_mm(positions, truth))
    near = (points[:, 0] - points[:, 1]).norm(dim=-1) < NEAR
    return Errors({view: np.concatenate(errors) for view, errors in found.items()}, near.cpu().numpy())


def feature_maps(trunk: ResNet10, scenes: Scenes, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Maps (N, 2, 512, 4, 4) float16, as replay holds them, and points (N, 2, 3)."""
    maps = [
        trunk.encode(frames.flatten(0, 1)).half().unflatten(0, frames.shape[:2]).contiguous()
        for frames, _ in batches(scenes, device)
    ]
    with torch.inference_mode(False):
        return torch.cat(maps).clone(), torch.from_numpy(scenes.points).to(device)
