"""A disk that takes no more: its errors told from others, and small files that are never half there."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


class DiskError(OSError):
    """Something could not be stored; the message says what, why, and what to do."""


def refusal(error: BaseException | None) -> OSError | None:
    """The disk's part in an error: among the errors that led to it, the one by which a disk refused."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, DiskError) or (isinstance(error, OSError) and error.errno in REFUSALS):
            return error
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__  # cause: RayTaskError's
    return None


def reason(error: OSError) -> str:
    """`No space left on device`, or what a DiskError says."""
    return error.strerror or str(error)


def write_whole(file: Path, text: str) -> None:
    """Write the file, or leave it as it was. Raises DiskError where there is no room."""
    unfinished = file.with_name(f"{file.name}.partial")
    try:
        with unfinished.open("w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if refusal(error) is None:
            raise
        raise DiskError(f"{file} could not be written: {reason(error)}") from error
