"""A file that one process holds at a time."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from datetime import datetime
from pathlib import Path
from typing import IO, Self

from hil_rllib.disk import DiskError, reason

POLL_S = 0.1


class HeldError(RuntimeError):
    """Another has the file; the message is who: `process 12 on lab since …`."""


class FileLock:
    """Holds `file` from `acquire` to `release`, or until this process is gone, however it ends.

    The kernel keeps the lock (flock), not the file, which only says who has it: one that a killed process
    left behind locks nothing.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._held: IO[str] | None = None

    def acquire(self, wait_s: float = 0.0) -> Self:
        """Returns itself, for `with`.

        Raises HeldError where another still has it after wait_s, OSError where it cannot be made or locked.
        """
        deadline = time.monotonic() + wait_s
        while self._held is None:
            held = open(self._file, "a+", encoding="utf-8")  # noqa: SIM115  open as long as it is locked
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(held.fileno()), self._file.stat()):
                    self._held = held
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    held.seek(0)
                    raise HeldError(_owner(held.read())) from None
                time.sleep(POLL_S)
            except FileNotFoundError:  # removed by the one that had it, between our opening and locking
                pass
            finally:
                if self._held is None:
                    held.close()
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        me = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        try:
            self._held.truncate(0)
            os.write(self._held.fileno(), json.dumps(me).encode())
        except OSError as error:
            self.release()
            raise DiskError(f"{self._file} could not be written: {reason(error)}") from error
        return self

    def release(self) -> None:
        """Removes the file, if it is held."""
        if self._held is None:
            return
        try:
            self._file.unlink(missing_ok=True)
        finally:
            self._held.close()
            self._held = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _owner(text: str) -> str:
    """The words of the file for a person; the owner may be just about to write them."""
    try:
        owner = json.loads(text)
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
