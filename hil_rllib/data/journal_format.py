"""A journal's file: records one after another, each checked, so that what a crash left half written is seen.

    file    b"HILJ"  version u32
    record  b"HREC"  meta bytes u32  body bytes u64  number u64  crc32 u32  meta (JSON)  body (arrays)

All little-endian. The checksum covers header, meta and body. Arrays lie in the body in the order of
`meta["arrays"]`, [[key, dtype, shape], …]. Numbers count a journal's records in its lifetime.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION = 1
FILE_HEADER = struct.Struct("<4sI")
RECORD_HEADER = struct.Struct("<4sIQQ")
CHECKSUM = struct.Struct("<I")
FILE_MAGIC, RECORD_MAGIC = b"HILJ", b"HREC"
ARRAYS = "arrays"


@dataclass(frozen=True)
class Record:
    """number: in the journal's lifetime; meta: plain values; arrays: views of the file, copy to keep them."""

    number: int
    meta: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    end: int  # [bytes] in its file


@dataclass(frozen=True)
class Damage:
    """Bytes of a file that hold no whole record. torn: nothing whole follows, as a crash leaves it."""

    file: Path
    start: int
    end: int
    torn: bool

    def __str__(self) -> str:
        size = self.end - self.start
        if self.torn:
            return (
                f"{self.file}: cut {size} bytes at {self.start}, the last record was not written to its end"
            )
        return f"{self.file}: left out {size} damaged bytes at {self.start}; what follows them is whole"


def file_header() -> bytes:
    return FILE_HEADER.pack(FILE_MAGIC, VERSION)


def encoded(
    number: int, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> list[bytes | memoryview]:
    """A record as the pieces to write one after another; large arrays are not copied."""
    bodies = [np.ascontiguousarray(array) for array in arrays.values()]
    layout = [[key, body.dtype.str, body.shape] for key, body in zip(arrays, bodies, strict=True)]
    text = json.dumps({**meta, ARRAYS: layout}).encode()
    header = RECORD_HEADER.pack(RECORD_MAGIC, len(text), sum(body.nbytes for body in bodies), number)
    pieces: list[bytes | memoryview] = [
        text,
        *(body.reshape(-1).view(np.uint8).data for body in bodies if body.nbytes),
    ]
    check = zlib.crc32(header)
    for piece in pieces:
        check = zlib.crc32(piece, check)
    return [header, CHECKSUM.pack(check), *pieces]


def scan(file: Path) -> Iterator[Record | Damage]:
    """Every whole record of a file in order, and what lies between or after them.

    Raises ValueError where the file is no journal or of a version that this program does not read.
    """
    check_header(file)
    size = file.stat().st_size
    if size < FILE_HEADER.size:  # a crash or a full disk came before the first record
        yield Damage(file, 0, size, torn=True)
        return
    with file.open("rb") as stream:
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)  # lives as long as views of it
    at = FILE_HEADER.size if any(content[: FILE_HEADER.size]) else 0  # 0: its header is damage too
    while at < size:
        record = _record_at(content, at)
        if record is not None:
            at = record.end
            yield record
            continue
        follows = _next_record(content, at + 1)
        yield Damage(file, at, size if follows is None else follows, torn=follows is None)
        at = size if follows is None else follows


def check_header(file: Path) -> None:
    """Raises ValueError where the file is no journal or of a version that this program does not read.

    One whose header never reached the disk, cut off or zeros, is a journal.
    """
    with file.open("rb") as stream:
        header = stream.read(FILE_HEADER.size)
    if len(header) < FILE_HEADER.size or not any(header):
        return
    magic, version = FILE_HEADER.unpack(header)
    if magic != FILE_MAGIC:
        raise ValueError(f"{file} is no journal: it begins with {magic!r}, not {FILE_MAGIC!r}.")
    if version != VERSION:
        raise ValueError(
            f"{file} has version {version}, this program reads {VERSION}. Use the release that wrote it."
        )


def _record_at(content: mmap.mmap, at: int) -> Record | None:
    """The record that begins there, None where none does or it is not whole."""
    start = at + RECORD_HEADER.size + CHECKSUM.size
    if start > len(content):
        return None
    magic, text_size, body_size, number = RECORD_HEADER.unpack_from(content, at)
    end = start + text_size + body_size
    if magic != RECORD_MAGIC or end > len(content):
        return None
    (check,) = CHECKSUM.unpack_from(content, at + RECORD_HEADER.size)
    with memoryview(content) as view:
        actual = zlib.crc32(view[at : at + RECORD_HEADER.size])
        actual = zlib.crc32(view[start:end], actual)
    if actual != check:
        return None
    meta = json.loads(content[start : start + text_size])
    arrays, offset = {}, start + text_size
    for key, dtype, shape in meta.pop(ARRAYS):
        kind, count = np.dtype(dtype), math.prod(shape)
        arrays[key] = np.frombuffer(content, kind, count, offset).reshape(shape)
        offset += count * kind.itemsize
    return Record(number, meta, arrays, end)


def _next_record(content: mmap.mmap, at: int) -> int | None:
    """Where the next whole record begins, or None."""
    while (found := content.find(RECORD_MAGIC, at)) >= 0:
        if _record_at(content, found) is not None:
            return found
        at = found + 1
    return None
