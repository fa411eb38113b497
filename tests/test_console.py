"""What the interactive commands do to a terminal: a real one, of a process of its own."""

from __future__ import annotations

import fcntl
import io
import os
import select
import struct
import subprocess
import sys
import termios
import time

import pytest

from hil_rllib.console import LiveLine, fitting

LONG = "episode 1 step 12 · human · x +1.00 y +0.00 z +0.00 · 10.0 Hz · latency 12 ms · reward 0.00 · late 0"

DRIVING = """
import fcntl, os, signal, termios
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from hil_rllib.console import keys_not_typed
with keys_not_typed({wanted}):
    print("begun", flush=True)
    os.read({wait}, 1)
print("over", flush=True)
os.read({wait}, 1)
"""


class Terminal:
    """A pseudo-terminal, with a process in its foreground that waits for a byte to end driving."""

    def __init__(self, wanted: bool) -> None:
        self.ours, self.theirs = os.openpty()
        waits, self.tell = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVING.format(wanted=wanted, wait=waits)],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            start_new_session=True,
            pass_fds=[waits],
        )
        self.shown = ""
        self.wait_for("begun")

    def wait_for(self, word: str) -> None:
        deadline = time.monotonic() + 30
        while word not in self.shown and time.monotonic() < deadline:
            self.look(0.1)
        assert word in self.shown, self.shown

    def look(self, timeout: float) -> None:
        while select.select([self.ours], [], [], timeout)[0]:
            self.shown += os.read(self.ours, 4096).decode()

    def typed(self) -> int:
        """Characters that wait for whoever reads next, such as the shell."""
        return struct.unpack("i", fcntl.ioctl(self.theirs, termios.FIONREAD, b"\0" * 4))[0]


@pytest.fixture
def terminal():
    begun = []

    def make(wanted: bool) -> Terminal:
        begun.append(Terminal(wanted))
        return begun[-1]

    yield make
    for one in begun:
        one.process.kill()
        one.process.wait()


@pytest.mark.parametrize("wanted", [True, False])
def test_keys_that_drive_neither_show_in_the_terminal_nor_wait_for_the_shell(terminal, wanted):
    screen = terminal(wanted)
    before = screen.shown
    os.write(screen.ours, b"\x1b[A\x1b[Arl \r")
    screen.look(0.5)
    assert (screen.shown == before) == wanted
    os.write(screen.tell, b"x")
    screen.wait_for("over")
    assert (screen.typed() == 0) == wanted
    modes = termios.tcgetattr(screen.theirs)[3]
    assert modes & termios.ECHO
    assert modes & termios.ICANON


def test_ctrl_c_interrupts_while_keys_are_not_typed(terminal):
    screen = terminal(True)
    os.write(screen.ours, b"\x03")
    screen.wait_for("KeyboardInterrupt")
    assert screen.process.wait(30) != 0
    assert termios.tcgetattr(screen.theirs)[3] & termios.ECHO


def test_a_live_line_takes_one_row_of_the_terminal_and_all_of_a_file(monkeypatch):
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with os.fdopen(theirs, "w") as stream, os.fdopen(ours, "rb", 0) as screen:
        line = LiveLine(stream)
        line.show(LONG)
        shown = screen.read(4096).decode()
        assert shown.removeprefix("\r\x1b[K") == f"{LONG[:78]}…"
        line.keep(LONG)
        assert screen.read(4096).decode().strip("\r\n").endswith(LONG)
        assert fitting("short", stream) == "short"
    monkeypatch.setenv("COLUMNS", "200")
    assert fitting(LONG, io.StringIO()) == LONG
