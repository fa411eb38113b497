"""A contact sheet: a row per episode, a few moments of each, to see at one glance what a policy does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil_rllib.overlay import Caption
from hil_rllib.video import EpisodeRecorder

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
import pygame

MOMENTS = 6  # of an episode, its first and last step among them
SIDE, GAP, LABEL = 96, 4, 150  # [px] of a camera's picture; between pictures; width of the words
PAPER, INK = (255, 255, 255), (40, 42, 46)
GOOD, BAD = (60, 160, 90), (205, 70, 60)


@dataclass(frozen=True)
class Strip:
    """An episode's moments. images: (moments, cameras, H, W, 3) uint8."""

    images: NDArray[np.uint8]
    solved: bool


class StripRecorder(EpisodeRecorder):
    """Makes a strip of every episode."""

    strip: Strip | None = None

    def take(self) -> Strip:
        """The episode that is over."""
        self._draw()
        assert self.strip is not None, "take() before the first episode"
        return self.strip

    def draw_episode(self, episode: list[tuple[Any, Caption]]) -> None:
        chosen = np.linspace(0, len(episode) - 1, MOMENTS).round().astype(int)
        images = [np.stack(list(self.frames(episode[i][0]).values())) for i in chosen]
        self.strip = Strip(np.stack(images), episode[-1][1].good)


def write_sheet(strips: Sequence[tuple[str, Strip]], path: Path) -> None:
    """Writes a PNG: a row per strip, its words to the left in the colour of its outcome."""
    pygame.font.init()
    font = pygame.font.Font(None, 20)
    moments, cameras = strips[0][1].images.shape[:2]
    step = cameras * SIDE + 2 * GAP
    canvas = pygame.Surface((LABEL + moments * step, len(strips) * (SIDE + GAP) + GAP))
    canvas.fill(PAPER)
    for row, (words, strip) in enumerate(strips):
        top = GAP + row * (SIDE + GAP)
        pygame.draw.rect(canvas, GOOD if strip.solved else BAD, (GAP, top, 6, SIDE))
        for i, line in enumerate(words.splitlines()):
            canvas.blit(font.render(line, True, INK), (18, top + 14 + 24 * i))
        for m, moment in enumerate(strip.images):
            for c, picture in enumerate(moment):
                image = pygame.image.frombuffer(
                    np.ascontiguousarray(picture).tobytes(), picture.shape[1::-1], "RGB"
                )
                scaled = pygame.transform.smoothscale(image, (SIDE, SIDE))
                canvas.blit(scaled, (LABEL + m * step + c * SIDE, top))
    pygame.image.save(canvas, path)
