"""Rendered scenes with the truth beside them: what both cameras see, and where cube and TCP are.

Scenes come from moving the robot, so that every pose is one the controller can reach: the expert picks
the cube up under noise and then carries it about, or the TCP wanders between random targets while the
cube is put somewhere new every other step. Robot, cube and gripper so cover approach, grasp, lift and all
the places a learning policy strays to.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from numpy.typing import NDArray

import envs  # noqa: F401  (registers the environment)
from envs.expert import PickCubeExpert
from hil_rllib.contract import CAMERAS, EE_STEP_SIZE, SUCCESS, Gripper

CUBE_AREA = np.array([[0.22, -0.22], [0.58, 0.22]])  # x, y [m]: sampling box, its tolerance and 3 cm more
TCP_AREA = np.array([[0.22, -0.28, 0.02], [0.58, 0.28, 0.40]])  # x, y, z [m], inside the workspace clip
CUBE_REST_Z = 0.02  # [m] half its side
CLEAR_OF_FINGERS_Z = 0.12  # [m] with the TCP above this a cube anywhere on the floor touches no finger
SHARD = 500  # scenes drawn and kept together
FULL_SHARE = 1 / 3  # of scenes drawn at `full`; the rest at `fast`

Frames = NDArray[np.uint8]
# One scene: frames (2, 128, 128, 3); cube and TCP (2, 3) [m]; whether drawn at `full`.
Scene = tuple[Frames, NDArray[np.float32], bool]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Scenes:
    """N scenes. frames: (N, 2, 128, 128, 3) in the order of `CAMERAS`; full: (N,) bool, drawn at `full`;
    points: (N, 2, 3) [m], world frame, cube then TCP."""

    frames: Frames
    points: NDArray[np.float32]
    full: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.points)


class SceneRenderer:
    """One simulation drawn at either quality: physics runs in the quick one, its state is copied across."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self._envs = {quality: _make(quality) for quality in ("fast", "full")}
        self.env = self._envs["fast"]

    def scenes(self) -> Iterator[Scene]:
        """Endless scenes, the same for the same seed."""
        while True:
            motion = self._pick_and_carry() if self.rng.random() < 0.5 else self._wander()
            for _ in motion:
                yield self.draw(full=bool(self.rng.random() < FULL_SHARE))

    def draw(self, full: bool) -> Scene:
        """The present state as both cameras see it, with the truth beside it."""
        base: Any = self._envs["full" if full else "fast"].unwrapped
        if base is not self._base:
            base.data.qpos[:] = self._base.data.qpos
            mujoco.mj_forward(base.model, base.data)
        images = base.render_cameras()
        points = np.stack([base.block_pos, base.tcp_pos]).astype(np.float32)
        return np.stack([images[camera] for camera in CAMERAS]), points, full

    def close(self) -> None:
        for env in self._envs.values():
            env.close()

    @property
    def _base(self) -> Any:
        return self.env.unwrapped

    def _reset(self) -> None:
        self.env.reset(
            seed=int(self.rng.integers(2**31)),
            options={
                "block_xy": tuple(self.rng.uniform(*CUBE_AREA)),
                "gripper": 255.0 * self.rng.integers(2),
            },
        )

    def _pick_and_carry(self) -> Iterator[None]:
        """A noisy expert's episode, the cube then carried about and dropped."""
        self._reset()
        expert = PickCubeExpert(self.env, noise=float(self.rng.uniform(0.0, 0.6)), rng=self.rng)
        expert.reset()
        for _ in range(30):
            yield
            if self._step(expert.action()):
                break
        for _ in range(int(self.rng.integers(12))):
            yield
            self._step(np.array([*self.rng.uniform(-1, 1, 3), Gripper.HOLD]))
        for _ in range(int(self.rng.integers(3))):
            yield
            self._step(np.array([*self.rng.uniform(-1, 1, 3), Gripper.OPEN]))

    def _wander(self, steps: int = 40) -> Iterator[None]:
        """The TCP visits random points, half of them about the cube, the gripper opening and closing."""
        self._reset()
        target, gripper = self._target(), Gripper.HOLD
        for step in range(steps):
            yield
            if step % 8 == 7:
                target, gripper = self._target(), Gripper(int(self.rng.integers(3)))
            motion = (target - self._base.tcp_pos) / EE_STEP_SIZE + self.rng.normal(0, 0.3, 3)
            self._step(np.array([*np.clip(motion, -1, 1), gripper]))
            if step % 2 and self._base.tcp_pos[2] > CLEAR_OF_FINGERS_Z:
                self._place_cube()

    def _target(self) -> NDArray[np.float64]:
        if self.rng.random() < 0.5:
            return self.rng.uniform(*TCP_AREA)
        return np.clip(self._base.block_pos + self.rng.normal(0, 0.06, 3) + [0, 0, 0.06], *TCP_AREA)

    def _place_cube(self) -> None:
        """Put the cube at rest somewhere on the floor, as often as not under the hand, turned at random."""
        area = CUBE_AREA
        xy = self.rng.uniform(*area)
        if self.rng.random() < 0.5:
            xy = np.clip(self._base.tcp_pos[:2] + self.rng.normal(0, 0.05, 2), *area)
        yaw = self.rng.normal(0, 0.3)
        joint = self._base.data.joint("block")
        joint.qpos[:] = [*xy, CUBE_REST_Z, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
        joint.qvel[:] = 0
        mujoco.mj_forward(self._base.model, self._base.data)

    def _step(self, action: NDArray[Any]) -> bool:
        """True once the cube is lifted. That an episode would end here is no reason to stop looking."""
        return bool(self.env.step(action.astype(np.float32))[4][SUCCESS])


def render_scenes(count: int, seed: int, folder: Path, progress: Progress | None = None) -> Scenes:
    """`count` scenes from `seed`, 98 kB each, in memory; those `folder` holds are not drawn again.

    They are drawn and kept in shards, so an interrupted call loses one shard at most and a larger count only
    draws what is missing.
    """
    look, size = _look(), min(count, SHARD)
    shards = []
    for number in range(-(-count // size)):
        shard = folder / f"scenes-{look}" / f"{seed}-{number}x{size}.npz"
        if not shard.is_file():
            _draw_shard(shard, size, [seed, number])
        shards.append(np.load(shard))
        if progress is not None:
            progress(min((number + 1) * size, count), count)
    parts = (
        np.concatenate([shard[name] for shard in shards])[:count] for name in ("frames", "points", "full")
    )
    return Scenes(*parts)


def _draw_shard(path: Path, size: int, seed: list[int]) -> None:
    renderer = SceneRenderer(np.random.default_rng(seed))
    drawn = list(itertools.islice(renderer.scenes(), size))
    renderer.close()
    frames, points, full = (np.stack(column) for column in zip(*drawn, strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez(part, frames=frames, points=points, full=full)
    part.replace(path)


def _make(quality: str) -> gym.Env:
    return gym.make(
        "hil/PandaPickCube-v0", image_obs=False, render_quality=quality, disable_env_checker=True,
        max_episode_steps=1_000_000,
    )  # fmt: skip


def _look() -> str:
    """Changes when the environment draws or places anything differently: then old scenes do not count."""
    renderer = SceneRenderer(np.random.default_rng(0))
    renderer.env.reset(seed=0)
    drawn = [renderer.draw(full)[0].tobytes() for full in (False, True)]
    renderer.close()
    return hashlib.sha256(b"".join(drawn)).hexdigest()[:12]
