"""What the interactive commands share: a live line, a polite Ctrl-C, clear words about names and files."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import shutil
import signal
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Self, TextIO

INTERRUPTED = 130  # exit status of a process ended by Ctrl-C
LONGEST_ERROR = 1500  # characters: what came may be a whole file
PLAIN_EVERY_S = 10.0  # [s] between lines where the output is no terminal


class UsageError(ValueError):
    """What was asked for cannot be done; the message says why and what can."""


def seed_number(text: str) -> int:
    """What `--seed` takes, for argparse: what Gymnasium does, with room to count on."""
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"a seed is a whole number from 0 to {2**31 - 1}, not {text!r}")
    return int(text)


def fitting(text: str, stream: TextIO) -> str:
    """`text` cut to one row of the terminal: of several only the last could be written over."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # no terminal
        columns = 0
    columns = columns or shutil.get_terminal_size().columns
    return text if len(text) < columns else f"{text[: columns - 2]}…"


@contextlib.contextmanager
def keys_not_typed(wanted: bool = True) -> Iterator[None]:
    """Keys pressed meanwhile do not show in the terminal, and the shell does not take them as typed later.

    For keys that drive the arm whatever window has the focus: ↑ and Enter would be the last command again.
    Where stdin is a terminal with this process in the foreground; Ctrl-C works as ever.
    """
    if not wanted or not sys.stdin.isatty() or os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp():
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    silent = termios.tcgetattr(terminal)
    silent[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(terminal, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)  # what was typed is thrown away


class LiveLine:
    """One line on a terminal that is written over; a plain line every ten seconds elsewhere."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._shown_at = time.monotonic()
        self._open = False

    def show(self, text: str) -> None:
        """The state of this moment."""
        if self._live:
            self._write(f"\r\x1b[K{fitting(text, self._stream)}")
            self._open = True
        elif time.monotonic() - self._shown_at >= PLAIN_EVERY_S:
            self._shown_at = time.monotonic()
            self._write(f"{text}\n")

    def keep(self, text: str) -> None:
        """A line that stays."""
        self._write(f"\r\x1b[K{text}\n" if self._open else f"{text}\n")
        self._open = False

    def close(self) -> None:
        """Leave the cursor on a line of its own."""
        if self._open:
            self._write("\n")
            self._open = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class Interrupt:
    """Ctrl-C as a request: `with Interrupt() as ctrl_c:`, then `ctrl_c.asked`. Pressed again it interrupts.

    Work under way, such as the file of a finished episode, is thus never cut in two.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> Any:
        self.asked = True
        signal.signal(signal.SIGINT, self._previous)


def report(error: object) -> None:
    """The error as one line on stderr; what a terminal would obey instead of showing is escaped."""
    text = " ".join(str(error).splitlines())
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)
    if len(shown) > LONGEST_ERROR:
        shown = f"{shown[:LONGEST_ERROR]} …"
    sys.stderr.write(f"error: {shown or type(error).__name__}\n")


def new_file(path: Path, suffix: str) -> Path:
    """`path`, if a file can be created there. Raises UsageError, before any work was done."""
    if path.suffix.lower() != suffix:
        raise UsageError(f"{path}: the name must end in {suffix}.")
    if path.exists():
        raise UsageError(f"{path} exists already. Choose another name, or remove it first.")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}. Create it first.")
    return path


def nearest(name: str, choices: list[str]) -> str:
    """' Did you mean X? Choose from …'"""
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    guess = f" Did you mean {near[0]}?" if near else ""
    return f"{guess} Choose from {', '.join(choices)}."
