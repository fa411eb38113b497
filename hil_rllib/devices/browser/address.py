"""Where the page is served, and how others reach it."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Sequence

PORTS = range(8642, 8652)  # where no port is named: the first of these that is free


def listening_socket(bind: str, ports: Sequence[int]) -> socket.socket:
    """Bound to the first of the ports that is free; 0 is any. Raises OSError."""
    for port in ports:
        try:
            (family, *_, address), *_ = socket.getaddrinfo(
                bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            return socket.create_server(address[:2], family=socket.AddressFamily(family))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port == ports[-1]:
                raise
    raise ValueError("no port to listen on")


def why_not_at(bind: str, port: int | None) -> str | None:
    """Why nobody can listen there now, and what to do; None where one can. port: None is one of `PORTS`."""
    try:
        listening_socket(bind, PORTS if port is None else [port]).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return (
                f"The page cannot be served at {bind!r}: {error.strerror or error}. "
                "127.0.0.1 is for this machine alone, 0.0.0.0 for all that can reach it."
            )
        which = f"Ports {PORTS[0]} to {PORTS[-1]} are" if port is None else f"Port {port} is"
        return f"{which} in use on {bind}. Name another, or 0 for any that is free."
    return None


def is_loopback(bind: str) -> bool:
    """Whether only this machine reaches the address."""
    if bind == "localhost":
        return True
    try:
        return ipaddress.ip_address(bind).is_loopback
    except ValueError:
        return False


def page_url(bind: str, port: int, token: str) -> str:
    """What to open. An address that stands for all of this machine's becomes one that others can reach."""
    host = bind
    if bind in ("0.0.0.0", "::"):
        host = _outward_address() or socket.gethostname()
    if ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{port}/?token={token}"


def _outward_address() -> str | None:
    """This machine's address on the way to others; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: an address for examples
            return str(probe.getsockname()[0])
        except OSError:
            return None
