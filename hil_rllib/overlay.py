"""Draws one frame of a video: the cameras side by side, below them who acts, how, and what came of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil_rllib.contract import CONTROL_DT

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # its greeting goes to stdout, where JSON may go
import pygame

SIDE = 384  # [px] of one camera, three times what the policy sees
GAP, PANEL = 8, 112  # [px] between cameras; height of the text below
MARGIN = 14  # [px]
BACKGROUND, TEXT, FAINT, TRACK = (24, 26, 30), (235, 235, 235), (150, 152, 158), (58, 61, 68)
COLOURS = {"human": (240, 150, 50), "policy": (70, 150, 240)}  # who acts; anyone else is grey
OTHERS = (150, 152, 158)
GOOD, BAD = (90, 200, 110), (230, 90, 80)
MOTIONS, TURNS, GRIPPER = ("x", "y", "z"), ("turn x", "turn y", "turn z"), ("open", "hold", "close")


@dataclass(frozen=True)
class Caption:
    """What is told of one step. who: human, policy, recorded, nobody …; action: as executed, None at a reset.

    action: (3,), (4,), (6,) or (7,): motion, turn where there are six, gripper in [0, 2] where there is one.
    reward: of this step; total: of the episode so far. outcome: shown when the episode ends, green if good.
    """

    who: str
    episode: int
    step: int
    action: NDArray[np.float32] | None = None
    reward: float = 0.0
    total: float = 0.0
    outcome: str = ""
    good: bool = False


class Overlay:
    """Draws `Caption`s; needs no display."""

    def __init__(self) -> None:
        pygame.font.init()
        self._fonts = {size: pygame.font.Font(None, size) for size in (22, 26, 34)}

    def draw(self, frames: Mapping[str, NDArray[np.uint8]], caption: Caption) -> NDArray[np.uint8]:
        """frames: camera → (H, W, 3). Returns uint8 (SIDE + PANEL, cameras · (SIDE + GAP) − GAP, 3)."""
        width = len(frames) * (SIDE + GAP) - GAP
        canvas = pygame.Surface((width, SIDE + PANEL))
        canvas.fill(BACKGROUND)
        for i, (camera, frame) in enumerate(frames.items()):
            left = i * (SIDE + GAP)
            image = pygame.image.frombuffer(np.ascontiguousarray(frame).tobytes(), frame.shape[1::-1], "RGB")
            canvas.blit(pygame.transform.smoothscale(image, (SIDE, SIDE)), (left, 0))
            self._label(canvas, camera, (left + 10, 8))
        self._facts(canvas, caption)
        if caption.action is not None:
            self._action(canvas, caption, MARGIN + 330)
        return np.ascontiguousarray(pygame.surfarray.array3d(canvas).swapaxes(0, 1))

    def _facts(self, canvas: pygame.Surface, caption: Caption) -> None:
        """Left: who acts, where in the run this is, the reward."""
        top = SIDE + 14
        colour = COLOURS.get(caption.who, OTHERS)
        name = self._fonts[34].render(caption.who.upper(), True, BACKGROUND)
        badge = pygame.Rect(MARGIN, top, name.get_width() + 20, 34)
        pygame.draw.rect(canvas, colour, badge, border_radius=6)
        canvas.blit(name, name.get_rect(center=badge.center))
        if caption.outcome:
            outcome_colour = GOOD if caption.good else BAD
            self._write(canvas, caption.outcome, (badge.right + 12, top + 8), 26, outcome_colour)
        place = f"episode {caption.episode}   step {caption.step}   {caption.step * CONTROL_DT:.1f} s"
        self._write(canvas, place, (MARGIN, top + 44), 26, TEXT)
        reward = f"reward {caption.reward:.2f}   sum {caption.total:.2f}"
        self._write(canvas, reward, (MARGIN, top + 68), 26, FAINT)

    def _action(self, canvas: pygame.Surface, caption: Caption, left: int) -> None:
        """Right: a bar per motion from the middle out, and the gripper's command as one of three words."""
        assert caption.action is not None
        action = np.nan_to_num(caption.action)
        colour = COLOURS.get(caption.who, OTHERS)
        has_gripper = len(action) in (4, 7)
        width = canvas.get_width() - MARGIN - left
        columns = [MOTIONS] + ([TURNS] if len(action) >= 6 else [])
        share = width // len(columns)
        for c, names in enumerate(columns):
            indent = 66 if c else 20
            for row, name in enumerate(names):
                x, y = left + c * share, SIDE + 12 + 23 * row
                self._write(canvas, name, (x, y), 22, FAINT)
                track = pygame.Rect(x + indent, y + 2, share - indent - 14, 12)
                pygame.draw.rect(canvas, TRACK, track, border_radius=3)
                half = round(float(np.clip(action[3 * c + row], -1, 1)) * track.width / 2)
                bar = pygame.Rect(track.centerx + min(half, 0), track.top, abs(half), track.height)
                pygame.draw.rect(canvas, colour, bar)
                pygame.draw.line(canvas, FAINT, track.midtop, (track.centerx, track.bottom - 1))
        if has_gripper:
            y = SIDE + 84
            self._write(canvas, "gripper", (left, y), 22, FAINT)
            chosen = int(np.clip(round(float(action[-1])), 0, 2))
            for i, name in enumerate(GRIPPER):
                self._write(canvas, name, (left + 80 + 70 * i, y), 22, colour if i == chosen else TRACK)

    def _label(self, canvas: pygame.Surface, text: str, at: tuple[int, int]) -> None:
        self._write(canvas, text, (at[0] + 1, at[1] + 1), 26, (0, 0, 0))
        self._write(canvas, text, at, 26, (255, 255, 255))

    def _write(self, canvas: pygame.Surface, text: str, at: tuple[int, int], size: int, colour: Any) -> None:
        canvas.blit(self._fonts[size].render(text, True, colour), at)
