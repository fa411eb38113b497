"""Who may open the page: those with the token, from a page of this very server."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from urllib.parse import urlsplit


def new_token() -> str:
    """128 random bits, to be typed or scanned with the URL."""
    return secrets.token_urlsafe(16)


class Access:
    """Checks tokens and the cookies that take their place. The same token gives the same cookie, so a page
    stays connected when its server is started anew."""

    def __init__(self, token: str, port: int) -> None:
        self._token = token.encode()
        self.cookie = f"hil_{port}"  # browsers send cookies to all ports of a host
        self.session = hmac.new(self._token, b"session", hashlib.sha256).hexdigest()

    def admits(self, token: str) -> bool:
        """Whether this is the token; takes equally long for all wrong ones of a length."""
        return hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._token)

    def knows(self, session: str) -> bool:
        """Whether this is the cookie's value."""
        return hmac.compare_digest(session.encode("utf-8", "surrogatepass"), self.session.encode())


def same_origin(origin: str | None, host: str | None) -> bool:
    """Whether a WebSocket was opened by a page of ours: other pages' browsers name these as its origin."""
    if not origin or not host:
        return False
    try:
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()
    except ValueError:
        return False
