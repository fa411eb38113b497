"""One run to a folder: a lock that dies with its process."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Self

from hil_rllib.disk import DiskError
from hil_rllib.file_lock import FileLock, HeldError

LOCK_FILE = "run.lock"


class RunInUseError(RuntimeError):
    """Another process trains in this folder."""


class RunLock:
    """Holds a run's folder from `with` to its end, or until this process is gone, however it ends.

    The folder is made, and removed again if nothing was put into it.

    key: what names the folder, for messages.
    """

    def __init__(self, folder: Path, key: str = "run.dir") -> None:
        self._folder, self._key = folder, key
        self._lock = FileLock(folder / LOCK_FILE)
        self._made: list[Path] = []  # folders, innermost first

    def __enter__(self) -> Self:
        """Raises RunInUseError naming who has the folder, OSError where it cannot be made or locked."""
        self._made = [f for f in (self._folder, *self._folder.parents) if not f.exists()]
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except HeldError as owner:
            raise RunInUseError(
                f"{self._folder} is in use by {owner}. Wait for it or stop it, or choose another {self._key}."
            ) from None
        except DiskError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        with contextlib.suppress(OSError):  # not empty: a run is in it
            for folder in self._made:
                folder.rmdir()
