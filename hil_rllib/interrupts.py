"""Ctrl-C and SIGTERM: the first asks for a clean end, the second ends at once."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self


class StopSignals:
    """Takes both signals while it is entered: they raise KeyboardInterrupt, but the first within `asking`."""

    def __init__(self) -> None:
        self._ask: Callable[[], None] | None = None
        self._received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def status(self) -> int:
        """What a shell expects of a process ended by such a signal, 130 or 143; 0 while there was none."""
        return 0 if self._received is None else 128 + self._received

    def __enter__(self) -> Self:
        self._previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def asking(self, ask: Callable[[], None]) -> Iterator[None]:
        """While it is entered, the first signal calls `ask`."""
        self._ask = ask
        self._take()  # again: libraries started since, such as Ray, have handlers of their own
        try:
            yield
        finally:
            self._ask = None

    def _take(self) -> None:
        for number in self._previous:
            signal.signal(number, self._handle)

    def _handle(self, number: int, _: FrameType | None) -> None:
        first = self._received is None
        self._received = self._received or signal.Signals(number)
        if self._ask is None or not first:
            raise KeyboardInterrupt
        sys.stderr.write("\nStopping with a last checkpoint. Ctrl-C again stops at once.\n")
        self._ask()
