"""An append-only journal on disk: a thread writes what is appended and syncs it, nobody waits for the disk.

A record is safe, `number < safe`, once it would outlive a power cut: after `SYNC_S` and one sync at most.
A journal is a folder's files `<name>-<number of its first record>.journal`, closed at `SEGMENT_BYTES`.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from hil_rllib.data.journal_format import Damage, Record, check_header, encoded, file_header, scan
from hil_rllib.disk import DiskError, reason

logger = logging.getLogger(__name__)

SYNC_S = 0.2  # [s] at most between a record's arrival and the sync that makes it safe
SEGMENT_BYTES = 64 * 2**20  # about 1,600 steps of two cameras' features
RETRY_S = 1.0  # [s] between attempts to write to a disk that refused
WAITING_BYTES = 256 * 2**20  # records kept in memory while the disk refuses; then `append` raises


@dataclass(frozen=True)
class _Waiting:
    number: int
    pieces: list[bytes | memoryview]
    size: int  # [bytes]
    since: float  # [s] by the monotonic clock


@dataclass(frozen=True)
class Missing:
    """Records that should be there and are in no file: `first` … `stop` - 1."""

    journal: Path
    first: int
    stop: int

    def __str__(self) -> str:
        count, last = self.stop - self.first, self.stop - 1
        return f"{self.journal}: {count} records are missing, {self.first} to {last}: a file of it is gone"


class Journal:
    """One journal, open for appending; `recover` first reads what is there.

    Records that a failed write may have damaged are cut off and written again, until the disk takes them.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.records = 0  # appended in its lifetime; the next record's number
        self.safe = 0  # of these, synced to disk
        self._forget_before = 0
        self._waiting: deque[_Waiting] = deque()  # not safe yet
        self._waiting_bytes = 0
        self._written = 0  # of `_waiting`, handed to the system
        self._sync_now = self._closing = False
        self._error: OSError | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._file: BinaryIO | None = None
        self._sound_bytes = 0  # of the open file

    def segments(self) -> list[tuple[int, Path]]:
        """(number of the first record, file), oldest first."""
        files = self.folder.glob(f"{self.name}-{'[0-9]' * 12}.journal")
        return sorted((int(file.stem.rpartition("-")[2]), file) for file in files)

    # -- reading -----------------------------------------------------------------------------------

    def recover(
        self,
        take: Callable[[Record], None],
        *,
        start: int = 0,
        stop: int | None = None,
        needed: int | None = None,
    ) -> list[Damage | Missing]:
        """Hand over every whole record from number `start` on, cut the rest off, and go on after the last.

        stop: the number of the first record to cut off; None cuts only what is torn. needed: the first record
        that has to be there, `start` unless given. Returns what is damaged or missing.
        Raises ValueError where a file is of another version.
        """
        for _, file in self.segments():
            check_header(file)  # of all, before anything is cut
        if stop is not None:
            for _, file in (entry for entry in self.segments() if entry[0] >= stop):
                file.unlink()
        wrong: list[Damage | Missing] = []
        segments, last = self.segments(), 0
        expected, hurt = start if needed is None else needed, False
        for i, (first, file) in enumerate(segments):
            last = max(last, first)
            if i + 1 < len(segments) and segments[i + 1][0] <= start:
                continue
            sound, cut = 0, i + 1 == len(segments)  # within others a tail stays, and is reported again
            for part in scan(file):
                if isinstance(part, Damage):
                    wrong.append(part)
                    hurt = True
                    continue
                if stop is not None and part.number >= stop:
                    cut = True
                    break
                if part.number > expected and not hurt:  # otherwise the damage is what is missing
                    wrong.append(Missing(self.folder / self.name, expected, part.number))
                again = part.number < last  # the disk refused when it was written, and to be cut back
                expected, hurt = max(expected, part.number + 1), False
                sound, last = part.end, max(last, part.number + 1)
                if part.number >= start and not again:
                    take(part)
            if cut and (sound < file.stat().st_size or not sound):
                _truncate(file, sound)
        self.records = self.safe = last
        return wrong

    # -- writing -----------------------------------------------------------------------------------

    def append(self, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> int:
        """Take a record and return its number. arrays: not to be changed afterwards.

        Raises DiskError where the disk has refused for so long that too much waits to be written.
        """
        number = self.records
        pieces = encoded(number, meta, arrays)
        size = sum(len(piece) for piece in pieces)
        with self._changed:
            if self._error is not None and self._waiting_bytes + size > WAITING_BYTES:
                raise DiskError(
                    f"{self.folder}: {self._waiting_bytes >> 20} MiB wait to be written, and the disk still "
                    f"refuses: {reason(self._error)}"
                ) from self._error
            self._waiting.append(_Waiting(number, pieces, size, time.monotonic()))
            self._waiting_bytes += size
            self.records = number + 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"journal-{self.name}", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return number

    def request_sync(self) -> None:
        """Have all that was appended synced now; `wait_safe` waits for it."""
        with self._changed:
            self._sync_now = bool(self._waiting)
            self._changed.notify_all()

    def wait_safe(self, timeout: float = 60.0) -> None:
        """Return once everything appended is safe. Raises DiskError where the disk refuses."""
        self.request_sync()
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting or self._error is not None, timeout)
            if self._waiting:
                why = reason(self._error) if self._error else f"{timeout:.0f} s passed"
                raise DiskError(f"{self.folder} could not be synced: {why}")

    def forget(self, before: int) -> None:
        """Allow the files to go that hold only records with smaller numbers."""
        with self._changed:
            self._forget_before = max(self._forget_before, before)
            self._changed.notify_all()

    def close(self) -> None:
        """Write and sync what waits, as far as the disk takes it."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._closing = False
        if self._waiting:
            logger.error(
                "%s: %d records could not be written: %s", self.folder, len(self._waiting), self._error
            )
            self._waiting.clear()
            self._waiting_bytes = self._written = 0
        self._close_file()

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work, self._until_due())
                todo = list(self._waiting)[self._written :]
                due = self._waiting and (self._sync_now or self._closing or self._until_due() == 0.0)
                closing = self._closing
            try:
                self._write(todo)
                if due:
                    self._sync()
                self._drop_old()
            except OSError as error:
                self._refused(error)
                if closing:
                    return
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, RETRY_S)
                continue
            with self._changed:
                if self._closing and not self._waiting:
                    return

    def _has_work(self) -> bool:
        unwritten = self._written < len(self._waiting)
        return unwritten or self._sync_now or self._closing or self._forget_before > 0

    def _until_due(self) -> float | None:
        """[s] to the next sync; None while nothing waits for one."""
        return max(0.0, self._waiting[0].since + SYNC_S - time.monotonic()) if self._waiting else None

    def _write(self, todo: list[_Waiting]) -> None:
        for record in todo:
            file = self._file or self._open_for(record.number)
            for piece in record.pieces:
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
            self._written += 1

    def _sync(self) -> None:
        with self._changed:
            count = self._written
        if count and self._file is not None:
            os.fsync(self._file.fileno())
            self._sound_bytes = self._file.tell()
            if self._sound_bytes >= SEGMENT_BYTES:
                self._close_file()
        with self._changed:
            for _ in range(count):
                record = self._waiting.popleft()
                self._waiting_bytes -= record.size
                self.safe = record.number + 1
            self._written -= count
            self._sync_now = self._sync_now and bool(self._waiting)
            if count and self._error is not None:
                logger.warning("%s can be written again; nothing is missing.", self.folder)
                self._error = None
            self._changed.notify_all()

    def _open_for(self, number: int) -> BinaryIO:
        """The last file where it has room, else a new one that begins with this record."""
        self.folder.mkdir(parents=True, exist_ok=True)
        segments = self.segments()
        if segments and len(file_header()) <= segments[-1][1].stat().st_size < SEGMENT_BYTES:
            file = segments[-1][1]
            self._file = file.open("ab", buffering=0)
        else:
            file = self.folder / f"{self.name}-{number:012d}.journal"
            self._file, self._sound_bytes = file.open("wb", buffering=0), 0
            self._file.write(file_header())
            sync_folder(self.folder)
        self._sound_bytes = self._file.tell()
        return self._file

    def _refused(self, error: OSError) -> None:
        """Put the file back to what is surely sound; its records are written again later."""
        if self._error is None:
            logger.error(
                "%s cannot be written: %s. Training goes on, what it stores waits in memory.",
                self.folder,
                error,
            )
        with self._changed:
            self._error = error
            self._written = 0
            self._changed.notify_all()
        if self._file is not None:
            file, path = self._file, Path(self._file.name)
            self._file = None
            try:
                os.ftruncate(file.fileno(), self._sound_bytes)
                file.close()
            except OSError as again:
                logger.error("%s could not be cut back: %s; its last record is damaged.", path, again)

    def _drop_old(self) -> None:
        with self._changed:
            before, self._forget_before = self._forget_before, 0
        segments = self.segments() if before else []
        for (_, file), (next_first, _) in itertools.pairwise(segments):
            if next_first <= before:
                file.unlink()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def sync_folder(folder: Path) -> None:
    """Make new, renamed and removed names in a folder safe."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _truncate(file: Path, size: int) -> None:
    if size:
        with file.open("rb+") as stream:
            stream.truncate(size)
            os.fsync(stream.fileno())
    else:
        file.unlink()
