"""The same work in several processes, its results in the order of the input."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Sequence[Item]], Iterable[Result]], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """A result per item, in order. work: items → their results, in order, in whatever process it runs.

    One worker is this process. Several are forked from it, which is quick because all is imported; nothing
    that does not survive a fork (OpenGL, Ray) may be open. What a worker raises is raised here.
    """
    if workers == 1:
        yield from work(items)
        return
    fork = multiprocessing.get_context("fork")
    ends, processes = [], []
    for i in range(workers):
        ours, theirs = fork.Pipe(duplex=False)
        processes.append(fork.Process(target=_send, args=(work, items[i::workers], theirs), daemon=True))
        processes[-1].start()
        theirs.close()  # the worker's copy remains, so that its death is an end of file here
        ends.append(ours)
    try:
        for i, item in enumerate(items):
            try:
                result, error = ends[i % workers].recv()
            except EOFError:
                raise OSError(f"The process that worked on {item} died.") from None
            if error is not None:
                raise error
            yield result
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _send(work: Callable[[Sequence[Item]], Iterable[Result]], items: Sequence[Item], out: Connection) -> None:
    try:
        for result in work(items):
            out.send((result, None))
    except Exception as error:
        out.send((None, error))
