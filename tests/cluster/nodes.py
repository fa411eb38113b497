"""A Ray cluster of real raylets on this machine, each node in a network namespace of its own.

Root on Linux gets a namespace for each node, joined by a bridge: nodes have addresses, ports and routes of
their own, and one that is killed is silent as a machine is. Elsewhere the nodes are raylets side by side on
addresses of the loopback interface.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# So that a node killed is known as lost in three seconds; as Ray comes it takes about fifteen.
QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}
PORT = 6379


class LocalCluster:
    """Nodes by name; the first one started is the head. Use as a context manager.

    `namespaces` tells whether they have networks of their own.
    """

    def __init__(self) -> None:
        self.tag = f"hil{os.getpid() % 100_000}"
        self.namespaces = _can_make_namespaces(self.tag)
        # Unix sockets lie below; their paths may have 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="hc", dir="/tmp"))
        # Ray 2.60 asks for a token where one lies in the home folder: here always, and for one of our own.
        self._login = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._started: dict[str, subprocess.Popen] = {}
        self._addresses: dict[str, str] = {}

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self._started)):
            self.kill(name)
        for name in self._addresses if self.namespaces else ():
            _ip("netns", "delete", f"{self.tag}{name}")
        shutil.rmtree(self.folder, ignore_errors=True)

    def address(self, name: str) -> str:
        """The node's, as Ray tells it."""
        return self._addresses[name]

    def start(self, name: str, cpus: int, resources: dict[str, int] | None = None) -> None:
        """Start a node, or start it again; returns once it has joined."""
        head = next(iter(self._addresses), name)
        if name not in self._addresses:
            self._connect(name, head)
        command = ["-m", "ray.scripts.scripts", "start", "--block", f"--num-cpus={cpus}"]
        command += [f"--resources={json.dumps(resources or {})}", "--object-store-memory=100000000"]
        command += [f"--node-ip-address={self.address(name)}", f"--temp-dir={self.folder / name}"]
        if name == head:
            command += ["--head", f"--port={PORT}", "--include-dashboard=false"]
            command += [f"--system-config={json.dumps(QUICK)}"]
        else:
            command += [f"--address={self.address(head)}:{PORT}"]
        log = self.folder / f"{name}.log"
        with log.open("w") as stream:
            self._started[name] = self.run(name, command, stdout=stream, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            if self._started[name].poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Node {name} did not start:\n{log.read_text()}")
            time.sleep(0.1)

    def run(self, name: str, arguments: list[str], **how: object) -> subprocess.Popen:
        """A Python process on a node."""
        prefix = ["ip", "netns", "exec", f"{self.tag}{name}"] if self.namespaces else []
        environment = {**os.environ, "HIL_NODE": f"{self.tag}{name}", **self._login}
        environment |= {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
        }  # Ray's own niceness is 15
        environment.pop("RAY_ADDRESS", None)
        environment |= how.pop("env", {})  # type: ignore[arg-type]
        return subprocess.Popen(
            [*prefix, sys.executable, *arguments], env=environment, start_new_session=True, **how
        )

    def kill(self, name: str) -> None:
        """End everything on the node at once, as when its power is cut."""
        mark = f"HIL_NODE={self.tag}{name}".encode()
        for _ in range(2):  # whatever was being started meanwhile
            for process in Path("/proc").iterdir():
                if process.name.isdigit() and int(process.name) != os.getpid() and _has(process, mark):
                    _kill(int(process.name))
        if name in self._started:
            self._started.pop(name).wait()

    def cable(self, name: str, plugged: bool) -> None:
        """Pull a node's cable, or plug it in again; only where there are namespaces."""
        inside = f"{self.tag}{name}"
        _ip("-n", inside, "link", "set", "eth0", "up" if plugged else "down")
        if plugged:
            _ip("-n", inside, "route", "add", "default", "dev", "eth0")

    def ended(self, name: str) -> bool:
        """Whether the node has given up."""
        return self._started[name].poll() is not None

    def _connect(self, name: str, head: str) -> None:
        """Give a new node its address, and in a namespace its cable to the head's bridge."""
        number = len(self._addresses) + 1
        if not self.namespaces:
            self._addresses[name] = f"127.0.0.{number + 1}"
            return
        self._addresses[name] = f"10.213.{os.getpid() % 250}.{number}"
        inside = f"{self.tag}{name}"
        _ip("netns", "add", inside)
        _ip("-n", inside, "link", "set", "lo", "up")
        if name == head:
            device = "bridge0"
            _ip("-n", inside, "link", "add", device, "type", "bridge")
        else:
            device, other = "eth0", f"to{number}"
            _ip("-n", inside, "link", "add", device, "type", "veth", "peer", "name", other)
            _ip("-n", inside, "link", "set", other, "netns", f"{self.tag}{head}")
            _ip("-n", f"{self.tag}{head}", "link", "set", other, "master", "bridge0", "up")
        _ip("-n", inside, "addr", "add", f"{self.address(name)}/24", "dev", device)
        _ip("-n", inside, "link", "set", device, "up")
        _ip("-n", inside, "route", "add", "default", "dev", device)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def _can_make_namespaces(tag: str) -> bool:
    try:
        _ip("netns", "add", f"{tag}try")
    except (OSError, subprocess.CalledProcessError):
        return False
    try:
        _ip("-n", f"{tag}try", "link", "add", "bridge0", "type", "bridge")
        return True
    except subprocess.CalledProcessError:
        return False
    finally:
        _ip("netns", "delete", f"{tag}try")


def _has(process: Path, mark: bytes) -> bool:
    """Whether the process was started with this in its environment."""
    try:
        return mark in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
