"""Frames to and from video files: RGB uint8 (N, H, W, 3) on our side, any codec FFmpeg knows in the file."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from hil_rllib.data.lerobot_format import DOWNLOAD_AGAIN, DatasetError, check_not_lfs_pointer

Frames = NDArray[np.uint8]

TIMESTAMP_TOLERANCE_S = 1e-4  # LeRobot's own tolerance between a row's timestamp and its frame
_WRITERS = {"libx264": "h264", "libsvtav1": "av1"}  # encoder → codec; the first one this FFmpeg has
CRF = {"libx264": "10", "libsvtav1": "12"}  # ours; 4:2:0 chroma limits quality from there on
GOP = 2  # frames between key frames: LeRobot's choice, quick random access


def decode(path: Path, count: int, start_s: float = 0.0, whole_file: bool = False) -> Frames:
    """The `count` frames from `start_s` on, decoded in order. Returns (count, H, W, 3).

    Raises:
        DatasetError: file missing, a Git LFS pointer, damaged, or with fewer frames than asked for
            (with whole_file: with more, too).
    """
    if not path.is_file():
        raise DatasetError(path, "this video is missing.", DOWNLOAD_AGAIN)
    check_not_lfs_pointer(path)
    frames: list[Frames] = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # episodes are decoded in parallel, not frames
            if start_s > 0.0 and stream.time_base is not None:
                container.seek(int(start_s / stream.time_base), stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.time is not None and frame.time < start_s - TIMESTAMP_TOLERANCE_S:
                    continue
                frames.append(_rgb(frame))
                if len(frames) == count + whole_file:
                    break
    except (av.FFmpegError, IndexError, OSError) as error:
        raise DatasetError(path, f"cannot be decoded as video ({error}).", DOWNLOAD_AGAIN) from error
    if len(frames) != count:
        held = f"more than {count}" if len(frames) > count else str(len(frames))
        raise DatasetError(
            path,
            f"holds {held} frames from {start_s:g} s on where the data has {count} rows.",
            DOWNLOAD_AGAIN,
        )
    return np.stack(frames)


def decode_image(data: bytes) -> Frames:
    """One compressed image (PNG, JPEG) → (H, W, 3)."""
    with av.open(io.BytesIO(data), "r") as container:
        return _rgb(next(container.decode(video=0)))


def write_codec() -> str:
    """The codec `encode` writes, by its common name."""
    return _WRITERS[_encoder()]


def encode(path: Path, frames: Frames, fps: int) -> None:
    """Writes (N, H, W, 3) as a yuv420p mp4 with constant frame rate."""
    encoder = _encoder()
    options = {"crf": CRF[encoder], "preset": "veryfast" if encoder == "libx264" else "8"}
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(encoder, rate=Fraction(fps), options=options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = GOP
        for image in frames:
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _rgb(frame: VideoFrame) -> Frames:
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def _encoder() -> str:
    for name in _WRITERS:
        if name in av.codecs_available:
            return name
    raise RuntimeError(f"PyAV's FFmpeg has none of {list(_WRITERS)}. Install the `av` wheel from PyPI.")
