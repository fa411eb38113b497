"""The process that serves the page: how the runner starts it, and what it does until the runner is gone."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
from typing import Any

from hil_rllib.devices.browser.address import listening_socket
from hil_rllib.devices.browser.link import Link, LinkClosed

# Neither the runner's real-time priority nor the low one of Ray's workers is for the server. Laid down before
# anything is imported; only a privileged user may rise.
_LAUNCH = """
import os, runpy
if hasattr(os, "sched_setscheduler"):
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
try:
    os.setpriority(os.PRIO_PROCESS, 0, 0)
except PermissionError:
    pass
runpy.run_module("hil_rllib.devices.browser.process", run_name="__main__", alter_sys=True)
"""


def launch(array_bytes: int) -> tuple[Link, subprocess.Popen[bytes]]:
    """The runner's end of the link, and the process at the other, at once; it says when it is ready."""
    link, descriptors = Link.pair(array_bytes)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, *map(str, descriptors)],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal is for the runner; the server follows it
        )
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return link, process


async def serve(link: Link, hello: dict[str, Any]) -> None:
    """Until the runner is gone."""
    from aiohttp import web  # here: the runner imports this file too

    from hil_rllib.devices.browser.server import PageServer

    try:
        listener = listening_socket(hello["bind"], hello["ports"])
    except OSError as error:
        reason = f"The page cannot be served at {hello['bind']}: {error.strerror or error}."
        link.send({"kind": "failed", "reason": reason})
        return
    port = listener.getsockname()[1]
    server = PageServer(link, hello, port)
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    server.listen()
    link.send({"kind": "ready", "port": port})
    await server.closed.wait()


def main(argv: list[str]) -> None:
    """argv: the two descriptors of `Link.pair`. The first message says what to serve, and where."""
    link = Link.of((int(argv[0]), int(argv[1])))
    select.select([link.channel], [], [])
    try:
        hello = next(link.receive())
        asyncio.run(serve(link, hello))
    except (LinkClosed, KeyboardInterrupt):
        pass  # the runner is gone, and with it whoever would care
    # Python's own end would wait for a frame that is being drawn.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
