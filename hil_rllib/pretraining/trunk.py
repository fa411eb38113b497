"""Trains a ResNet10 trunk to tell positions.

What is kept is the moving average of the weights at the check on unseen scenes where it did best.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hil_rllib.models.encoder import load_encoder
from hil_rllib.models.resnet10 import ResNet10
from hil_rllib.pretraining.jitter import jitter
from hil_rllib.pretraining.positions import PositionHeads, errors_mm, position_loss
from hil_rllib.pretraining.scenes import Scenes

logger = logging.getLogger(__name__)

EVALUATIONS = 20  # held-out checks, and checkpoints, over a run
AVERAGE_DECAY = 0.998  # of the weights' moving average, per step, once warm
WARM_UP = 0.05  # of the run; then the learning rate falls along a cosine


@dataclass(frozen=True)
class TrunkConfig:
    """minutes bound the run, or exactly `steps` where given; batch counts scenes (two frames each)."""

    minutes: float = 8.0
    steps: int | None = None
    batch: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    seed: int = 0
    device: str = "cpu"


@dataclass
class TrunkProgress:
    """How far a run is. loss: mean of the last steps [cm]; best_mm: the best trunk's median error on unseen
    scenes, cube and difference."""

    step: int = 0
    seconds: float = 0.0
    share: float = 0.0
    loss: float = math.nan
    best_mm: float = math.inf
    losses: list[float] = field(default_factory=list)


class Sight(nn.Module):
    """Trunk and heads: frames of both cameras → positions by view, as `PositionHeads`."""

    def __init__(self, trunk: ResNet10) -> None:
        super().__init__()
        self.trunk, self.heads = trunk, PositionHeads()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """images (B, 2, 128, 128, 3) floats in [0, 1]."""
        maps = self.trunk(images.flatten(0, 1).permute(0, 3, 1, 2))
        return self.heads(maps.unflatten(0, images.shape[:2]))

    @torch.inference_mode()
    def see(self, frames: Tensor) -> dict[str, Tensor]:
        """frames (B, 2, 128, 128, 3) uint8, without gradients."""
        return self.heads(self.trunk.encode(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]))


class TrunkTrainer:
    """Training that can stop at any step and go on from its checkpoint."""

    def __init__(self, config: TrunkConfig, train: Scenes, held_out: Scenes, checkpoint: Path) -> None:
        self.config, self.train_scenes, self.held_out = config, train, held_out
        self.checkpoint = checkpoint
        torch.manual_seed(config.seed)
        self.model = Sight(load_encoder("random", config.seed)).to(config.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.best = _trunk_weights(self.average)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.progress = TrunkProgress()
        self.rng = np.random.default_rng(config.seed)

    def restore(self) -> None:
        """Go on from the checkpoint of an earlier run, by this one's budget. Raises FileNotFoundError."""
        if not self.checkpoint.is_file():
            raise FileNotFoundError(f"No checkpoint {self.checkpoint} to go on from. Start without --resume.")
        content = torch.load(self.checkpoint, map_location=self.config.device, weights_only=True)
        self.model.load_state_dict(content["model"])
        self.average.load_state_dict(content["average"])
        self.best = content["best"]
        self.optimiser.load_state_dict(content["optimiser"])
        self.progress = TrunkProgress(**content["progress"])
        self.progress.share = self._share()
        self.rng.bit_generator.state = content["numpy_rng"]
        torch.set_rng_state(content["torch_rng"].cpu())
        logger.info("Going on from step %d in %s", self.progress.step, self.checkpoint)

    def run(self, report: Callable[[TrunkProgress], None] | None = None) -> ResNet10:
        """Train to the end of the budget, or until interrupted; the best trunk so far.

        Raises KeyboardInterrupt where nothing was learned.
        """
        state = self.progress
        next_evaluation = (math.floor(state.share * EVALUATIONS) + 1) / EVALUATIONS
        before, started = state.seconds, time.monotonic()
        try:
            while state.share < 1.0:
                self._step()
                state.seconds = before + time.monotonic() - started
                state.share = self._share()
                if state.share >= next_evaluation:
                    next_evaluation += 1 / EVALUATIONS
                    self._evaluate()
                    self._save()
                if report is not None:
                    report(state)
        except KeyboardInterrupt:
            if not state.step:
                raise
            logger.warning("Interrupted at step %d: keeping the best trunk so far.", state.step)
            self._evaluate()
            self._save()
        trunk = load_encoder("random", self.config.seed)
        trunk.load_state_dict(self.best)
        return trunk

    def _step(self) -> None:
        rate = self.config.learning_rate * _schedule(self.progress.share)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        rows = np.sort(self.rng.choice(len(self.train_scenes), self.config.batch, replace=False))
        frames = torch.from_numpy(self.train_scenes.frames[rows]).to(self.config.device)
        points = torch.from_numpy(self.train_scenes.points[rows]).to(self.config.device)
        self.model.train()
        loss = position_loss(self.model(jitter(frames)), points)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.progress.step += 1
        self._average_weights()
        self.progress.losses.append(loss.item())
        self.progress.loss = float(np.mean(self.progress.losses[-50:]))

    def _average_weights(self) -> None:
        decay = min(AVERAGE_DECAY, self.progress.step / (self.progress.step + 10))
        for averaged, current in zip(self.average.parameters(), self.model.parameters(), strict=True):
            averaged.lerp_(current.detach(), 1 - decay)

    def _evaluate(self) -> None:
        self.average.eval()
        unseen = batches(self.held_out, self.config.device)
        found = [errors_mm(self.average.see(frames)["both"], points) for frames, points in unseen]
        distance = np.linalg.norm(np.concatenate(found), axis=-1)  # (N, 3)
        score = float(np.median(distance[:, [0, 2]]))
        if score < self.progress.best_mm:
            self.progress.best_mm = score
            self.best = _trunk_weights(self.average)

    def _share(self) -> float:
        if self.config.steps is not None:
            return self.progress.step / self.config.steps
        return self.progress.seconds / (60 * self.config.minutes)

    def _save(self) -> None:
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "model": self.model.state_dict(), "average": self.average.state_dict(), "best": self.best,
            "optimiser": self.optimiser.state_dict(), "progress": vars(self.progress),
            "numpy_rng": self.rng.bit_generator.state, "torch_rng": torch.get_rng_state(),
        }  # fmt: skip
        part = self.checkpoint.with_suffix(".part")
        torch.save(content, part)
        part.replace(self.checkpoint)


def batches(scenes: Scenes, device: str, size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
    """All scenes in order: frames (b, 2, 128, 128, 3) uint8 and points (b, 2, 3)."""
    for start in range(0, len(scenes), size):
        rows = slice(start, start + size)
        yield (
            torch.from_numpy(scenes.frames[rows]).to(device),
            torch.from_numpy(scenes.points[rows]).to(device),
        )


def save_trunk(trunk: ResNet10, path: Path) -> None:
    """The trunk as fp16 safetensors, 9.8 MB, under the published names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: value.half().contiguous() for name, value in trunk.state_dict().items()}
    part = path.with_suffix(".part")
    save_file(weights, part)
    part.replace(path)


def _schedule(share: float) -> float:
    if share < WARM_UP:
        return (share + 0.01) / (WARM_UP + 0.01)
    return 0.5 * (1 + math.cos(math.pi * min((share - WARM_UP) / (1 - WARM_UP), 1.0)))


def _trunk_weights(model: Sight) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.trunk.state_dict().items()}
