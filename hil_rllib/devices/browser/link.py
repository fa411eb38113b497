"""What connects the operator's runner with the process that serves the page.

Small messages go through a Unix socket that keeps their boundaries and order, arrays through memory that both
processes map. Neither end ever waits for the other, both learn at once when the other is gone, and nothing
of it has a name in the system or outlives its users. Messages are JSON; nothing is unpickled.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import tempfile
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

SLOTS = 4  # arrays in memory at once: the newest, and three steps' time for whoever reads it
MESSAGE_BYTES = 32 * 1024  # the longest message, much more than any is
AT_ONCE = 500  # messages taken in one go, so that a talkative other end cannot hold this one up


class LinkClosed(ConnectionError):  # noqa: N818 - reads as a condition
    """The other end is gone."""


class Link:
    """One end. `Link.pair` makes both; the other process opens its own with `Link.of`."""

    def __init__(self, channel: socket.socket, memory: mmap.mmap) -> None:
        channel.setblocking(False)
        self.channel = channel
        self._memory = memory
        self._next_slot = 0

    @classmethod
    def pair(cls, array_bytes: int) -> tuple[Self, tuple[int, int]]:
        """This end, and descriptors (socket, memory) for the other process; close them once it has them."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if hasattr(os, "memfd_create"):
            memory = os.memfd_create("hil-browser")
        else:
            with tempfile.TemporaryFile() as file:
                memory = os.dup(file.fileno())
        os.ftruncate(memory, SLOTS * max(array_bytes, 1))
        return cls(ours, mmap.mmap(memory, 0)), (theirs.detach(), memory)

    @classmethod
    def of(cls, descriptors: tuple[int, int]) -> Self:
        """The end that was handed over as descriptors."""
        channel, memory = descriptors
        return cls(socket.socket(fileno=channel), mmap.mmap(memory, 0))

    def send(self, message: dict[str, Any]) -> bool:
        """Hand over a message; False where the other end has not taken enough of those before.

        Raises `LinkClosed`.
        """
        try:
            self.channel.send(json.dumps(message).encode())
        except BlockingIOError:
            return False
        except OSError as error:
            raise LinkClosed(str(error)) from error
        return True

    def receive(self) -> Iterator[dict[str, Any]]:
        """All messages that are here. Raises `LinkClosed` once the other end is gone and all are read."""
        for _ in range(AT_ONCE):
            try:
                data = self.channel.recv(MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                raise LinkClosed(str(error)) from error
            if not data:
                raise LinkClosed("the other process has ended")
            yield json.loads(data)

    def put(self, arrays: list[NDArray[Any]]) -> int:
        """Copy arrays one after the other into the next slot; its number, to be sent to the other end."""
        slot, self._next_slot = self._next_slot, (self._next_slot + 1) % SLOTS
        at = slot * (len(self._memory) // SLOTS)
        for array in arrays:
            target = np.frombuffer(self._memory, array.dtype, array.size, at)
            np.copyto(target.reshape(array.shape), array)
            at += array.nbytes
        return slot

    def get(self, slot: int, like: list[tuple[tuple[int, ...], str]]) -> list[NDArray[Any]]:
        """Copies of a slot's arrays. like: their shapes and dtypes."""
        at, arrays = slot * (len(self._memory) // SLOTS), []
        for shape, dtype in like:
            array = np.frombuffer(self._memory, dtype, int(np.prod(shape)), at).reshape(shape).copy()
            at += array.nbytes
            arrays.append(array)
        return arrays

    def close(self) -> None:
        """Let go of this end; the other one notices. The memory goes when no array looks at it any more."""
        self.channel.close()
