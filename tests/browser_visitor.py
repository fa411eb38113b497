"""A page without a browser: the protocol over a real socket, driven by a test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from urllib.parse import urlsplit

import aiohttp

BEAT_S = 0.04
REST = {"hands": [], "touch": [0, 0, 0], "pad": [], "sticks": [0, 0, 0]}


class Visitor:
    """`async with Visitor(url) as visitor:` has it connected; it acknowledges and beats as the page does."""

    def __init__(self, url: str, *, acknowledges: bool = True) -> None:
        self.url, self.acknowledges = url, acknowledges
        self.held = dict(REST)
        self.beating = True
        self.now: dict = {}
        self.run: dict = {}
        self.hello: dict = {}
        self.pictures: list[bytes] = []
        self.heard = 0
        self._at = 0.0

    async def __aenter__(self) -> Visitor:
        origin = "http://" + urlsplit(self.url).netloc
        self.session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        await self._open()
        self.socket = await self.session.ws_connect(origin + "/socket", headers={"Origin": origin})
        self.tasks = [asyncio.ensure_future(self._listen()), asyncio.ensure_future(self._beat())]
        await self.until(lambda: self.now)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await self.socket.close()
        await self.session.close()

    async def _open(self) -> None:
        """As soon as the page is served."""
        for _ in range(1800):
            with contextlib.suppress(aiohttp.ClientConnectorError):
                return (await self.session.get(self.url)).raise_for_status()
            await asyncio.sleep(0.1)

    def seen(self) -> dict:
        return {"seen": self.now["stamp"], "held_ms": 1000 * (time.monotonic() - self._at)}

    def input(self) -> dict:
        return {"type": "input", **self.held, **self.seen()}

    async def send(self, message: dict) -> None:
        await self.socket.send_str(json.dumps(message))

    async def hold(self, **held) -> None:
        self.held = {**REST, **held}
        await self.send(self.input())

    async def until(self, condition, seconds: float = 10.0):
        end = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < end, "waited in vain"
            assert not self.socket.closed or condition(), f"closed: {self.socket.close_code}"
            await asyncio.sleep(0.01)
        return value

    async def _listen(self) -> None:
        async for message in self.socket:
            self.heard += 1
            if message.type is aiohttp.WSMsgType.BINARY:
                self.pictures.append(message.data)
                continue
            data = json.loads(message.data)
            setattr(self, data["type"], data)
            if data["type"] == "now":
                self._at = time.monotonic()
                if self.acknowledges and not (self.beating and data["driving"]):  # else its input does
                    await self.send({"type": "seen", **self.seen()})

    async def _beat(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                if self.beating and self.now.get("driving"):
                    await self.send(self.input())
                await asyncio.sleep(BEAT_S)


NONSENSE = [
    "{",
    "x" * 4096,
    json.dumps({"type": "input", "hands": ["+x"], "touch": [9, 9, 9]}),
    json.dumps({"type": "input", **REST, "hands": ["+x"], "seen": 1e9, "held_ms": 0}),
    json.dumps({"type": "answer", "accept": True, "who": "me"}),
    b"\x80\x04\x8c\x02os\x94.",
]


async def flood(url: str, seconds: float, per_second: float) -> int:
    """Send what must do nothing, by somebody who has the token and comes again when thrown out; how much."""
    origin, sent = "http://" + urlsplit(url).netloc, 0
    end, began = time.monotonic() + seconds, time.monotonic()
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        await session.get(url)
        while time.monotonic() < end:
            try:
                socket = await session.ws_connect(origin + "/socket", headers={"Origin": origin})
            except aiohttp.WSServerHandshakeError:
                await asyncio.sleep(0.05)  # too many connections
                continue
            with contextlib.suppress(ConnectionError):
                while not socket.closed and time.monotonic() < end:
                    for _ in range(50):  # faster than it is thrown out
                        nonsense = NONSENSE[sent % len(NONSENSE)]
                        await (socket.send_bytes if isinstance(nonsense, bytes) else socket.send_str)(
                            nonsense
                        )
                        sent += 1
                    await asyncio.sleep(max(0.0, sent / per_second - (time.monotonic() - began)))
            with contextlib.suppress(ConnectionError):
                await socket.close()
    return sent
