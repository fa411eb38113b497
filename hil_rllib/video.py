"""Videos of episodes: `VideoRecorder` around an env, `VideoWriter` for the file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import gymnasium
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from hil_rllib.console import UsageError, new_file
from hil_rllib.contract import CONTROL_DT, IS_INTERVENTION, RERECORD, SUCCESS
from hil_rllib.overlay import Caption, Overlay
from hil_rllib.wrappers import TELEOP_ACTION

logger = logging.getLogger(__name__)

FPS = round(1 / CONTROL_DT)  # as fast as it happened
ENCODERS = {"libx264": {"crf": "20", "preset": "veryfast"}, "libsvtav1": {"crf": "30", "preset": "8"}}
HOLD_LAST = FPS  # frames for which the end of an episode stands


class VideoWriter:
    """Frames to an mp4 that every browser plays; written under a temporary name until it is closed.

    Raises UsageError at once where the file cannot be made. Without a single frame no file appears.
    """

    def __init__(self, path: Path | str, fps: int = FPS) -> None:
        self.path = new_file(Path(path), ".mp4")
        self.fps, self.frames = fps, 0
        self._encoder = next((name for name in ENCODERS if name in av.codecs_available), None)
        if self._encoder is None:
            choices = ", ".join(ENCODERS)
            raise UsageError(f"PyAV has none of the encoders {choices}. Install its wheel: pip install av.")
        self._temporary = self.path.with_name(f".{self.path.name}.part")
        self._container: Any = None
        self._stream: Any = None

    def add(self, image: NDArray[np.uint8]) -> None:
        """image: (H, W, 3), the same size each time, both even."""
        if self._container is None:
            self._container = av.open(
                str(self._temporary), "w", format="mp4", options={"movflags": "faststart"}
            )
            stream = self._container.add_stream(
                self._encoder, rate=Fraction(self.fps), options=ENCODERS[str(self._encoder)]
            )
            assert isinstance(stream, VideoStream)
            stream.height, stream.width = image.shape[:2]
            stream.pix_fmt = "yuv420p"
            self._stream = stream
        self._container.mux(self._stream.encode(VideoFrame.from_ndarray(image, format="rgb24")))
        self.frames += 1

    def close(self) -> None:
        """Finish the file. Calling it twice is fine."""
        if self._container is not None:
            self._container.mux(self._stream.encode())
            self._container.close()
            self._container = None
            self._temporary.replace(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class EpisodeRecorder(gymnasium.Wrapper):
    """Hands every episode over to be drawn, without slowing a step.

    Steps only note the simulator's state; frames are drawn from it once the episode has ended, exactly as
    they would have looked. Where observations bring frames, these are taken.

    who: who acts where no `is_intervention` in `info` says it is the human.
    """

    def __init__(self, env: gymnasium.Env, who: str = "policy") -> None:
        super().__init__(env)
        base: Any = env.unwrapped
        if not all(hasattr(base, name) for name in ("get_state", "set_state", "render_cameras")):
            raise UsageError(f"Pictures are of environments in `envs`; {type(base).__name__} has no cameras.")
        self._base, self._who = base, who
        self._pending: list[tuple[Any, Caption]] = []
        self._episode = self._step = 0
        self._total = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        self._draw()
        observation, info = self.env.reset(seed=seed, options=options)
        self._episode, self._step, self._total = self._episode + 1, 0, 0.0
        self._note(observation, Caption(self._who, self._episode, 0))
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._step, self._total = self._step + 1, self._total + float(reward)
        outcome = ""
        if terminated or truncated:
            outcome = "again" if info.get(RERECORD) else "solved" if info.get(SUCCESS) else "not solved"
        caption = Caption(
            "human" if info.get(IS_INTERVENTION) else self._who,
            self._episode,
            self._step,
            np.array(info.get(TELEOP_ACTION, action), np.float32),
            float(reward),
            self._total,
            outcome,
            good=bool(info.get(SUCCESS)),
        )
        self._note(observation, caption)
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """Draw what is left, close the env."""
        try:
            self._draw()
        finally:
            super().close()

    def draw_episode(self, episode: list[tuple[Any, Caption]]) -> None:
        """Called once per episode with what was seen at each step, for `frames`, and what is told of it."""
        raise NotImplementedError

    def frames(self, seen: Any) -> Mapping[str, NDArray[np.uint8]]:
        """Camera → (H, W, 3)."""
        if isinstance(seen, Mapping):
            return seen
        self._base.set_state(seen)
        drawn: Mapping[str, NDArray[np.uint8]] = self._base.render_cameras()
        return drawn

    def _note(self, observation: Any, caption: Caption) -> None:
        pixels = observation.get("pixels") if isinstance(observation, Mapping) else None
        self._pending.append((self._base.get_state() if pixels is None else pixels, caption))

    def _draw(self) -> None:
        """Frames of the episode that lies behind; the simulator is left where it is."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        now = self._base.get_state()
        self.draw_episode(pending)
        self._base.set_state(now)


class VideoRecorder(EpisodeRecorder):
    """Films every episode: both cameras and the overlay."""

    def __init__(self, env: gymnasium.Env, path: Path | str, who: str = "policy") -> None:
        super().__init__(env, who)
        self.writer, self._overlay = VideoWriter(path), Overlay()

    def close(self) -> None:
        """Draw what is left, finish the file, close the env."""
        try:
            super().close()
        finally:
            self.writer.close()

    def draw_episode(self, episode: list[tuple[Any, Caption]]) -> None:
        for seen, caption in episode:
            image = self._overlay.draw(self.frames(seen), caption)
            self.writer.add(image)
        for _ in range(HOLD_LAST):
            self.writer.add(image)
