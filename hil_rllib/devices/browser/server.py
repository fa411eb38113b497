"""Serves the operator's page: a process of its own, started by `device.BrowserDevice`.

Every page gets the newest step and no older ones: a step is sent when the page has acknowledged the one
two before, so a slow one sees fewer, never late ones. What pages say is checked (`protocol`), and only the
one that has the controls (`seat`) is heard by the runner.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from hil_rllib.devices.browser.access import Access, same_origin
from hil_rllib.devices.browser.board import Board
from hil_rllib.devices.browser.link import Link, LinkClosed
from hil_rllib.devices.browser.pictures import Pictures
from hil_rllib.devices.browser.protocol import MAX_BYTES, Allowance, BadMessage, Freshness, parse
from hil_rllib.devices.browser.seat import Seat
from hil_rllib.devices.controls import page_controls

logger = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("page")
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
MAX_PAGES = 40  # open at once
OPENINGS_PER_S, OPENINGS_AT_ONCE = 20.0, 60.0  # of WebSockets, by all together
STALE_S = 0.5  # [s] input that can be older than this moves nothing: the network holds it up
ON_THE_WAY = 2  # steps sent to a page that it has not acknowledged
BEAT_S = 0.2  # [s] between messages to a page while no step comes
PATIENCE_S = 2.0  # [s] for a step to be acknowledged before the next is sent all the same
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Page:
    """One open page: what it has been sent, and what it may still say."""

    def __init__(self, number: int, socket: web.WebSocketResponse) -> None:
        self.number, self.socket = number, socket
        self.allowance, self.fresh = Allowance(), Freshness()
        self.stamps: list[float] = []  # of steps on the way
        self.version, self.sent_at = -1, 0.0  # of the newest step it was sent
        self.wake = asyncio.Event()
        self.run_sent = -1

    def acknowledge(self) -> None:
        self.stamps = [stamp for stamp in self.stamps if stamp > self.fresh.acknowledged]
        self.wake.set()


class PageServer:
    """The pages of one runner. Everything but the coding of frames happens in one event loop."""

    def __init__(self, link: Link, hello: dict[str, Any], port: int) -> None:
        self._link, self._hello = link, hello
        self.access = Access(hello["token"], port)
        self.board, self.seat = Board(), Seat()
        self.pages: dict[int, Page] = {}
        self.closed = asyncio.Event()
        self._untold = False  # the runner has not taken all that was sent
        self._numbers = itertools.count(1)
        self._openings = Allowance(OPENINGS_PER_S, OPENINGS_AT_ONCE)
        self._pictures = Pictures(hello["arrays"], hello["draw"])
        self._coder = ThreadPoolExecutor(1, thread_name_prefix="coder")
        self._picture = b""
        self._waiting: tuple[list[Any], float] | None = None  # arrays to be coded next
        self._coding: asyncio.Future[None] | None = None
        self._blind = False  # frames cannot be drawn here
        self._step_at, self._runs = time.monotonic(), 0
        self._version = 0  # of what pages show
        self._files = {file.name: file.read_bytes() for file in PAGE.iterdir() if file.suffix in TYPES}

    def application(self) -> web.Application:
        """Routes: the page and its parts, and the WebSocket. All but the page's address need its cookie."""
        app = web.Application(client_max_size=MAX_BYTES)
        app.on_response_prepare.append(_secure)
        app.router.add_get("/", self._get_page)
        app.router.add_get("/socket", self._get_socket)
        app.router.add_get("/{name}", self._get_file)
        return app

    # -- from the runner ---------------------------------------------------------------------------

    def listen(self) -> None:
        """Take in what the runner sends from now on."""
        asyncio.get_running_loop().add_reader(self._link.channel, self._receive)

    def _receive(self) -> None:
        newest: dict[str, Any] | None = None
        try:
            for message in self._link.receive():
                if message["kind"] == "step":
                    newest = message
                    self.board.take_step(message)
                elif message["kind"] == "run":
                    self.board.take_values(message["values"])
                    self._runs += 1
        except LinkClosed:
            asyncio.get_running_loop().remove_reader(self._link.channel)
            self.closed.set()
            return
        if newest is not None:
            self._step_at = time.monotonic()
            if newest["slot"] is not None and not self._blind:
                self._waiting = (self._pictures.fetch(self._link, newest["slot"]), self._step_at)
                if self._coding is None or self._coding.done():
                    self._coding = asyncio.ensure_future(self._code())
            else:
                self._wake_all()

    async def _code(self) -> None:
        """Code the newest arrays until there are none."""
        while self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            if self.pages:
                loop = asyncio.get_running_loop()
                try:
                    self._picture = await loop.run_in_executor(self._coder, self._pictures.message, *waiting)
                except Exception:  # no OpenGL, say: the rest of the page goes on
                    logger.exception("The page's cameras cannot be drawn.")
                    self._blind = True
                self._wake_all()

    def _wake_all(self) -> None:
        self._version += 1
        for page in self.pages.values():
            page.wake.set()

    def _tell_runner(self, message: dict[str, Any]) -> None:
        """Hand it on. Where it did not take all before, such as who left, it first forgets what it knows."""
        messages = [{"kind": "left"}, message] if self._untold else [message]
        with contextlib.suppress(LinkClosed):  # the reader sees it too
            self._untold = not all(map(self._link.send, messages))

    # -- to the pages ------------------------------------------------------------------------------

    async def _serve(self, page: Page) -> None:
        """Send a page the newest step, as soon as it has taken those before."""
        picture = b""
        await page.socket.send_str(json.dumps(self._welcome()))
        while not page.socket.closed:
            page.wake.clear()
            now = time.monotonic()
            self._pass_time(now)
            if self._runs != page.run_sent:
                page.run_sent = self._runs
                if self._runs:
                    await page.socket.send_str(json.dumps(self.board.run()))
            due = page.version != self._version or now - page.sent_at >= BEAT_S
            if due and page.stamps and now - page.sent_at > PATIENCE_S:
                page.stamps.clear()
            if due and len(page.stamps) < ON_THE_WAY:
                page.version = self._version
                page.sent_at = page.fresh.sent_at = now
                page.stamps.append(now)
                await page.socket.send_str(json.dumps(self._now(page, now)))
                if picture is not self._picture:
                    picture = self._picture
                    await page.socket.send_bytes(picture)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(page.wake.wait(), BEAT_S)

    def _welcome(self) -> dict[str, Any]:
        hello = self._hello
        return {
            "type": "hello",
            "mode": hello["mode"],
            "idle": hello["idle"],
            "robot": hello["robot"],
            "cameras": hello["cameras"] or (["front", "wrist"] if hello["draw"] else []),
            **page_controls(),
        }

    def _now(self, page: Page, now: float) -> dict[str, Any]:
        seat, number = self.seat, page.number
        trip = page.fresh.round_trip_ms
        return {
            "type": "now",
            "stamp": now,
            **self.board.now(),
            "driving": seat.driver == number,
            "taken": seat.driver is not None,
            "asked": seat.driver == number and seat.asker is not None,
            "asking": seat.asker == number,
            "pages": len(self.pages),
            "quiet_s": round(now - self._step_at, 1),
            "round_trip_ms": None if trip is None else round(trip, 1),
        }

    # -- from the pages ----------------------------------------------------------------------------

    async def _hear(self, page: Page) -> None:
        """Until the page is closed, or says what it must not."""
        async for message in page.socket:
            now = time.monotonic()
            if page.socket.closed:  # too long a message has closed it already
                return
            if not page.allowance.take(now):
                return await self._dismiss(page, "too many messages")
            if message.type is not WSMsgType.TEXT:
                return await self._dismiss(page, "only text is understood")
            try:
                self._obey(page, parse(message.data), now)
            except BadMessage as error:
                return await self._dismiss(page, str(error))

    def _obey(self, page: Page, message: dict[str, Any], now: float) -> None:
        """A message that is well formed."""
        kind, number, driver = message["type"], page.number, self.seat.driver
        if kind in ("input", "seen"):
            age = page.fresh.note(message["seen"], message["held_ms"], now)
            page.acknowledge()
            if kind == "input" and number == driver and age <= STALE_S:
                if message["hands"] or message["pad"] or any(message["touch"]) or any(message["sticks"]):
                    self.seat.active(number, now)
                held = {name: message[name] for name in ("hands", "touch", "pad", "sticks")}
                self._tell_runner({"kind": "input", "at": now, **held})
        elif kind == "ask":
            self.seat.ask(number, now)
        elif kind == "give":
            self.seat.leave(number, now)
        elif kind == "answer":
            self.seat.answer(number, message["accept"], now)
        self._changed_hands(driver)

    def _pass_time(self, now: float) -> None:
        driver = self.seat.driver
        self.seat.update(now)
        self._changed_hands(driver)

    def _changed_hands(self, before: int | None) -> None:
        if self.seat.driver != before:
            if before is not None:
                self._tell_runner({"kind": "left"})
            self._wake_all()

    async def _dismiss(self, page: Page, reason: str) -> None:
        self._remove(page)  # at once: its close may take a while
        await page.socket.close(code=WSCloseCode.POLICY_VIOLATION, message=reason.encode()[:120])

    def _remove(self, page: Page) -> None:
        driver = self.seat.driver
        if self.pages.pop(page.number, None) is not None:
            self.seat.leave(page.number, time.monotonic())
            self._changed_hands(driver)

    # -- HTTP --------------------------------------------------------------------------------------

    def _check_cookie(self, request: web.Request) -> None:
        if not self.access.knows(request.cookies.get(self.access.cookie, "")):
            raise web.HTTPUnauthorized(text="Open the address that the program printed, with its token.\n")

    async def _get_page(self, request: web.Request) -> web.Response:
        """With the token in the address, or the cookie that takes its place; the page removes the token."""
        token = request.query.get("token")
        if token is None:
            self._check_cookie(request)
        elif not self.access.admits(token):
            raise web.HTTPUnauthorized(
                text="This token is not that of the run. The program has printed it.\n"
            )
        response = web.Response(body=self._files["index.html"], content_type="text/html", charset="utf-8")
        if token is not None:
            response.set_cookie(self.access.cookie, self.access.session, httponly=True, samesite="Strict")
        return response

    async def _get_file(self, request: web.Request) -> web.Response:
        self._check_cookie(request)
        name = request.match_info["name"]
        if name not in self._files:
            raise web.HTTPNotFound
        return web.Response(body=self._files[name], content_type=TYPES[Path(name).suffix], charset="utf-8")

    async def _get_socket(self, request: web.Request) -> web.WebSocketResponse:
        self._check_cookie(request)
        if not same_origin(request.headers.get("Origin"), request.host):
            raise web.HTTPForbidden(text="Only the page of this server may connect.\n")
        if len(self.pages) >= MAX_PAGES or not self._openings.take(time.monotonic()):
            raise web.HTTPTooManyRequests(text="Too many pages.\n")
        socket = web.WebSocketResponse(
            max_msg_size=MAX_BYTES, heartbeat=5.0, compress=False, timeout=1.0, writer_limit=16 * 1024
        )
        page = Page(next(self._numbers), socket)
        self.pages[page.number] = page  # before the first wait, so that the limit holds
        try:
            await socket.prepare(request)
            self.seat.arrive(page.number, time.monotonic())
            sender = asyncio.ensure_future(self._serve(page))
            try:
                await self._hear(page)
            finally:
                sender.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                    await sender
        finally:
            self._remove(page)
        return socket


async def _secure(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
