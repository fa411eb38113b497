"""One run to a folder: a lock that dies with its process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import IO, Self

from hil_rllib.disk import DiskError, reason

LOCK_FILE = "run.lock"


class RunInUseError(RuntimeError):
    """Another process trains in this folder."""


class RunLock:
    """Holds a run's folder from `with` to its end, or until this process is gone, however it ends.

    The folder is made, and removed again if nothing was put into it. The kernel keeps the lock (flock), not
    the file, which only says who has it: one that a killed run left behind locks nothing.

    key: what names the folder, for messages.
    """

    def __init__(self, folder: Path, key: str = "run.dir") -> None:
        self._folder, self._file, self._key = folder, folder / LOCK_FILE, key
        self._made: list[Path] = []  # folders, innermost first
        self._held: IO[str] | None = None

    def __enter__(self) -> Self:
        """Raises RunInUseError naming who has the folder, OSError where it cannot be made or locked."""
        self._made = [f for f in (self._folder, *self._folder.parents) if not f.exists()]
        self._folder.mkdir(parents=True, exist_ok=True)
        while self._held is None:
            held = open(self._file, "a+", encoding="utf-8")  # open as long as it is locked
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.seek(0)
                owner = _owner(held.read())
                held.close()
                raise RunInUseError(
                    f"{self._folder} is in use by {owner}. Wait for it or stop it, or choose another "
                    f"{self._key}."
                ) from None
            try:
                if os.path.samestat(os.fstat(held.fileno()), self._file.stat()):
                    self._held = held
            except FileNotFoundError:
                pass
            if self._held is None:  # removed by the one that had it, between our opening and locking
                held.close()
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        self._held.truncate(0)
        me = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        try:
            os.write(self._held.fileno(), json.dumps(me).encode())
        except OSError as error:
            self.__exit__()
            raise DiskError(f"{self._file} could not be written: {reason(error)}") from error
        return self

    def __exit__(self, *_: object) -> None:
        assert self._held is not None
        self._file.unlink(missing_ok=True)
        self._held.close()
        self._held = None
        with contextlib.suppress(OSError):  # not empty: a run is in it
            for folder in self._made:
                folder.rmdir()


def _owner(text: str) -> str:
    """The words of the lock file for a person; the owner may be just about to write them."""
    try:
        owner = json.loads(text)
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
