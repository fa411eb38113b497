"""Frames to and from video files: RGB uint8 (N, H, W, 3) on our side, any codec FFmpeg knows in the file."""

from __future__ import annotations

import io
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from hil_rllib.data.lerobot_format import DOWNLOAD_AGAIN, DatasetError, check_not_lfs_pointer

Frames = NDArray[np.uint8]
Size = tuple[int, int]  # (height, width) [px]

# Of a frame's duration, between where a row's timestamp and the file put it. LeRobot allows 1e-4 s;
# containers round to a millisecond. A file at another rate is off by more from its second frame on.
TIME_TOLERANCE = 0.1
_WRITERS = {"libx264": "h264", "libsvtav1": "av1"}  # encoder → codec; the first one this FFmpeg has
CRF = {"libx264": "10", "libsvtav1": "12"}  # ours; 4:2:0 chroma limits quality from there on
GOP = 2  # frames between key frames: LeRobot's choice, quick random access


class Converter:
    """Decoded frames → RGB arrays, resized on the way if `size` is given. Not for several threads at once.

    Keeps libswscale's tables: making them takes as long as converting a hundred small frames. So `of_thread`
    keeps a thread's converter from file to file.
    """

    _kept = threading.local()

    def __init__(self, size: Size | None = None) -> None:
        self._size = size
        self._reformatter = VideoReformatter()

    @classmethod
    def of_thread(cls, size: Size | None) -> Converter:
        """This thread's converter to `size`."""
        kept: Converter | None = getattr(cls._kept, "converter", None)
        if kept is None or kept._size != size:
            kept = cls._kept.converter = cls(size)
        return kept

    def rgb(self, frame: VideoFrame) -> Frames:
        """(H, W, 3)."""
        if self._size is None or self._size == (frame.height, frame.width):
            converted = self._reformatter.reformat(frame, format="rgb24", threads=1)
        else:
            height, width = self._size
            converted = self._reformatter.reformat(
                frame, width, height, "rgb24", interpolation="AREA", threads=1
            )
        return np.asarray(converted.to_ndarray(), np.uint8)


def decode(
    path: Path,
    count: int,
    fps: float,
    *,
    start_s: float = 0.0,
    whole_file: bool = False,
    native: Size | None = None,
    size: Size | None = None,
) -> Frames:
    """The `count` frames from `start_s` on, decoded in order. Returns (count, H, W, 3).

    native: what the frames' size must be; size: what to resize them to.

    Raises:
        DatasetError: file missing, a Git LFS pointer, damaged, with frames of another size or rate, or with
            fewer of them than asked for (with whole_file: with more, too).
    """
    if not path.is_file():
        raise DatasetError(path, "this video is missing.", DOWNLOAD_AGAIN)
    check_not_lfs_pointer(path)
    frames: Frames | None = None
    found = 0
    convert = Converter.of_thread(size)
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise IndexError("its index of frames is damaged")
            stream.codec_context.thread_count = 1  # episodes are decoded in parallel, not frames
            if start_s > 0.0 and stream.time_base is not None:
                container.seek(int(start_s / stream.time_base), stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.time is not None and frame.time < start_s - 0.5 / fps:
                    continue
                if found == count:  # one too many
                    found += 1
                    break
                _check_frame(path, frame, found, start_s, fps, native)
                image = convert.rgb(frame)
                if frames is None:
                    frames = np.empty((count, *image.shape), np.uint8)
                frames[found] = image
                found += 1
                if found == count and not whole_file:
                    break
    except (av.FFmpegError, IndexError, OSError) as error:
        raise DatasetError(path, f"cannot be decoded as video ({error}).", DOWNLOAD_AGAIN) from error
    if found != count or frames is None:
        held = f"more than {count}" if found > count else str(found)
        raise DatasetError(
            path,
            f"holds {held} frames from {start_s:g} s on where the data has {count} rows.",
            DOWNLOAD_AGAIN,
        )
    return frames


def _check_frame(
    path: Path, frame: VideoFrame, number: int, start_s: float, fps: float, native: Size | None
) -> None:
    if native is not None and (frame.height, frame.width) != native:
        problem = f"has frames of {(frame.height, frame.width)} pixels where meta/info.json says {native}."
        raise DatasetError(path, problem, DOWNLOAD_AGAIN)
    due_s = start_s + number / fps
    if frame.time is not None and abs(frame.time - due_s) > TIME_TOLERANCE / fps:
        raise DatasetError(
            path,
            f"has frame {number} of the episode at {frame.time:.4f} s where {fps:g} frames a second, as in "
            f"meta/info.json, put it at {due_s:.4f} s.",
            "Record all episodes at one rate, or correct fps in meta/info.json.",
        )


def decode_image(data: bytes, convert: Converter) -> tuple[Size, Frames]:
    """One compressed image (PNG, JPEG) → its own size, and (H, W, 3) as `convert` makes it.

    Raises:
        av.FFmpegError, ValueError: it is none.
    """
    with av.open(io.BytesIO(data), "r") as container:
        for frame in container.decode(video=0):
            return (frame.height, frame.width), convert.rgb(frame)
    raise ValueError("no image in it")


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


def _encoder() -> str:
    for name in _WRITERS:
        if name in av.codecs_available:
            return name
    raise RuntimeError(f"PyAV's FFmpeg has none of {list(_WRITERS)}. Install the `av` wheel from PyPI.")
