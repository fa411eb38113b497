"""Draws docs/cameras.png: what both cameras see at the start of an episode, with labels.

python docs/make_pictures.py
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

import envs  # noqa: F401  # registers the ids, and chooses OpenGL
from envs.panda import CAMERAS
from envs.render import CameraRenderer

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
import pygame

SIZE, GAP, HEAD = 480, 12, 40  # [px]
AXIS_M = 0.1  # [m] length of the drawn axes
WHITE, INK = (255, 255, 255), (30, 32, 36)
AXES = {"+x": (225, 85, 75), "+y": (75, 190, 95), "+z": (85, 150, 245)}
TITLES = {"front": "pixels.front, from opposite the robot", "wrist": "pixels.wrist, from the hand"}


def project(base: Any, camera: str, point: NDArray[np.float64]) -> tuple[int, int] | None:
    """World point [m] → pixel (column, row), or None behind the camera: a pinhole that looks along its −z."""
    index = base.model.camera(camera).id
    seen = base.data.cam_xmat[index].reshape(3, 3).T @ (point - base.data.cam_xpos[index])
    if seen[2] >= 0:
        return None
    focal = SIZE / 2 / np.tan(np.deg2rad(base.model.cam_fovy[index]) / 2)
    return round(SIZE / 2 - focal * seen[0] / seen[2]), round(SIZE / 2 + focal * seen[1] / seen[2])


def label(view: pygame.Surface, text: str, spot: tuple[int, int] | None, offset: tuple[int, int]) -> None:
    """A white box with `text`, `offset` away from the spot it names."""
    if spot is None or not view.get_rect().collidepoint(spot):
        return
    words = pygame.font.Font(None, 26).render(text, True, INK)
    center = (spot[0] + offset[0], spot[1] + offset[1])
    box = words.get_rect(center=center).inflate(14, 8).clamp(view.get_rect())
    pygame.draw.line(view, WHITE, spot, box.center, 2)
    pygame.draw.circle(view, WHITE, spot, 4)
    pygame.draw.rect(view, WHITE, box, border_radius=5)
    view.blit(words, words.get_rect(center=box.center))


def main() -> None:
    env = gymnasium.make("hil/PandaPickCube-v0", random_block_position=True)
    env.reset(options={"block_xy": (0.48, 0.06)})
    for _ in range(4):
        env.step(np.array([-0.4, 0.2, -0.3, 1.0], np.float32))
    base: Any = env.unwrapped
    renderer = CameraRenderer(base.model, CAMERAS, SIZE)
    pictures = renderer.render(base.data)
    tcp, cube = base.tcp_pos, base.block_pos

    pygame.font.init()
    font = pygame.font.Font(None, 28)
    canvas = pygame.Surface((2 * SIZE + GAP, SIZE + HEAD))
    canvas.fill(WHITE)
    for k, (name, camera) in enumerate(CAMERAS.items()):
        view = pygame.image.frombuffer(pictures[name].tobytes(), (SIZE, SIZE), "RGB").copy()

        origin = np.array([0.42, -0.2, 0.0]) if name == "front" else cube * [1, 1, 0] + [0.02, -0.08, 0.0]
        for axis, (text, colour) in enumerate(AXES.items()):
            length = AXIS_M if name == "front" else AXIS_M / 2
            start = project(base, camera, origin)
            end = project(base, camera, origin + length * np.eye(3)[axis])
            if start and end:
                pygame.draw.line(view, colour, start, end, 5)
                view.blit(font.render(text, True, colour), (end[0] + 6, end[1] - 26))
        of_cube, of_tcp = (110, 60), (140, -50)  # [px] of the labels from their spots
        if name == "wrist":
            of_cube, of_tcp = (40, -150), (60, -60)
        label(view, "cube: environment_state", project(base, camera, cube), of_cube)
        label(view, "TCP: agent_pos[15:18]", project(base, camera, tcp), of_tcp)
        canvas.blit(font.render(TITLES[name], True, INK), (k * (SIZE + GAP) + 8, 10))
        canvas.blit(view, (k * (SIZE + GAP), HEAD))
    pygame.image.save(canvas, Path(__file__).with_name("cameras.png"))
    renderer.close()
    env.close()


if __name__ == "__main__":
    main()
