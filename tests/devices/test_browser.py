"""The browser device over real sockets: the real server process, the real env, no browser."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time

import aiohttp
import gymnasium
import pytest
from browser_visitor import REST, Visitor, flood
from operator_rig import Rig, assert_drives
from yarl import URL

from hil_rllib.collect.pacing import OperatorWrapper
from hil_rllib.contract import IDLE
from hil_rllib.devices import DeviceUnavailable, check_present, make_device
from hil_rllib.devices.browser import device as browser
from hil_rllib.devices.browser import server
from hil_rllib.devices.browser.link import Link
from hil_rllib.devices.browser.protocol import MAX_BYTES
from hil_rllib.devices.controls import CONTROLS


@pytest.fixture
def rig(vector_env):
    """The operator's env with a page on a free port; its clock is the real one."""
    made = Rig(vector_env, make_device("browser", port=0), retry_s=0.2)
    made.connector._clock = time.monotonic
    yield made
    made.env.on_close(lambda: None)
    made.connector._close()
    made.env._on_close.clear()
    made.env._on_step.clear()


@pytest.fixture
def patient(monkeypatch):
    """No dead man while a busy machine keeps the test waiting."""
    monkeypatch.setattr(browser, "DEAD_MAN_S", 5.0)


def the_device(rig):
    return rig.connector._guard.device


def url(rig):
    return the_device(rig).url


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60.0))


def down(rig):
    """What the runner knows to be held."""
    the_device(rig)._receive()
    return the_device(rig)._keys.down() | the_device(rig)._pad.down()


async def steps(rig, seconds, every=0.03):
    """Control steps for so long; whether the person acted, of each."""
    taken, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        taken.append(rig.step()[1])
        await asyncio.sleep(every)
    return taken


def test_only_the_token_opens_the_page(rig):
    async def visit():
        base, _, token = url(rig).partition("/?token=")
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as stranger:
            for path in (
                "/",
                "/main.js",
                "/socket",
                "/?token=",
                f"/?token={token[:-1]}",
                f"/main.js?token={token}",
            ):
                assert (await stranger.get(base + path)).status == 401
            page = await stranger.get(url(rig))
            assert (page.status, page.content_type) == (200, "text/html")
            assert token not in await page.text()
            assert "default-src 'none'" in page.headers["Content-Security-Policy"]
            cookie = page.headers["Set-Cookie"]
            assert {"HttpOnly", "SameSite=Strict"} <= {part.strip() for part in cookie.split(";")}
            known = {"Cookie": cookie.split(";")[0]}
            for name in ("main.js", "input.js", "view.js", "style.css", "icon.svg"):
                assert (await stranger.get(f"{base}/{name}", headers=known)).status == 200
            assert (await stranger.get(f"{base}/..%2fserver.py", headers=known)).status == 404
            for origin in ({}, {"Origin": "http://evil.example"}):
                with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                    await stranger.ws_connect(base + "/socket", headers={**known, **origin})

    run(visit())


@pytest.mark.parametrize("group", ["hands", "pad"])
def test_every_control_does_what_it_says(rig, patient, group):
    async def drive():
        async with Visitor(url(rig)) as visitor:

            async def wait(names):
                await visitor.until(lambda: down(rig) == set(names))

            loop = asyncio.get_running_loop()

            def press(control):
                held = [control.name]
                if group == "pad" and control.name in ("open", "close"):
                    held.append(
                        "intervene"
                    )  # as on any gamepad, the triggers act only while one is in charge
                asyncio.run_coroutine_threadsafe(visitor.hold(**{group: held}), loop).result(5)
                asyncio.run_coroutine_threadsafe(wait(held), loop).result(10)

            def release(control):
                asyncio.run_coroutine_threadsafe(visitor.hold(), loop).result(5)
                asyncio.run_coroutine_threadsafe(wait([]), loop).result(10)

            def settle():
                now = time.monotonic()
                rig.connector._clock = lambda: now + rig.now

            for control in CONTROLS:
                if group == "pad" and control.name[1:] in ("x", "y", "z"):
                    continue  # a gamepad moves by its sticks, below
                await asyncio.to_thread(assert_drives, rig, control, press, release, settle)

    run(drive())


def test_sticks_move_only_while_in_charge_and_a_touch_takes_over_itself(rig, patient):
    async def drive():
        async with Visitor(url(rig)) as visitor:
            for held, taken in (
                ({"sticks": [1, 0, 0]}, False),
                ({"sticks": [1, 0, 0], "pad": ["intervene"]}, True),
                ({"touch": [1, 0, 0]}, True),
                ({"touch": [0.6, 0, 0], "sticks": [0.6, 0, 0]}, True),  # at most full speed
            ):
                rig.reset()
                before = rig.tcp()[0]
                await visitor.hold(**held)
                await asyncio.sleep(0.2)
                results = [rig.step() for _ in range(4)]
                assert [flag for _, flag, _ in results] == [taken] * 4
                assert all(action[0] == taken for action, _, _ in results)
                assert (rig.tcp()[0] - before > 0.03) == taken

    run(drive())


def test_both_cameras_and_the_step_reach_every_page(rig, patient):
    async def look():
        async with Visitor(url(rig)) as driver, Visitor(url(rig)) as watcher:
            await driver.hold(hands=["+z"])
            await asyncio.sleep(0.2)
            await steps(rig, 3.0)
            for visitor in (driver, watcher):
                while len(set(visitor.pictures)) <= 3:
                    await steps(rig, 0.3)
                _, front, wrist = struct.unpack_from("<d2I", visitor.pictures[-1])
                assert len(visitor.pictures[-1]) == 16 + front + wrist
                assert visitor.pictures[-1][16:18] == b"\xff\xd8"  # JPEG
                assert visitor.now["who"] == "human"
                assert visitor.now["timeline"].endswith("hhh")
                assert visitor.now["step"] == len(visitor.now["timeline"]) > 10
                assert visitor.now["input_latency_ms"] >= visitor.now["latency_ms"] > 0
                assert visitor.now["round_trip_ms"] < 1000
            assert [driver.now["driving"], watcher.now["driving"], watcher.now["pages"]] == [True, False, 2]

    run(look())


def test_dead_man_and_closed_page_give_control_back_within_a_step(rig):
    async def silent():
        async with Visitor(url(rig)) as visitor:
            await visitor.hold(hands=["+x"])
            await visitor.until(lambda: rig.step()[1])
            visitor.beating = False  # the network stalls: no message, no close
            await visitor.send(visitor.input())
            since = time.monotonic()
            while rig.step()[1]:
                await asyncio.sleep(0.02)
            return time.monotonic() - since

    async def closed():
        async with Visitor(url(rig)) as visitor:
            await visitor.hold(hands=["+x"])
            await visitor.until(lambda: rig.step()[1])
            since = time.monotonic()
            await visitor.socket.close()
            while rig.step()[1]:
                await asyncio.sleep(0.02)
            return time.monotonic() - since

    assert browser.DEAD_MAN_S == 0.3
    assert min(run(silent()) for _ in range(3)) < 0.4  # of three: this machine may be busy
    assert min(run(closed()) for _ in range(3)) < 0.2


def test_input_that_the_network_held_up_moves_nothing(rig):
    async def delayed():
        async with Visitor(url(rig)) as visitor:
            visitor.beating = False
            await visitor.hold(hands=["+x"])
            await visitor.until(lambda: rig.step()[1])
            old = visitor.input()
            await asyncio.sleep(server.STALE_S + 0.1)
            rig.step()
            for _ in range(5):  # a burst of what was held back
                await visitor.send(old)
                await asyncio.sleep(0.03)
                assert not rig.step()[1]
            await visitor.send(old | {"seen": old["seen"] + 1e6})  # a stamp that was never given
            await asyncio.sleep(0.03)
            assert not rig.step()[1]

    run(delayed())


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        ("{", 1008, "no JSON"),
        (json.dumps({"type": "input", "hands": ["+x"]}), 1008, "input must have"),
        (json.dumps({"type": "run"}), 1008, "type must be one of"),
        ("x" * (MAX_BYTES + 1), 1009, ""),
        (b"\x80\x04N.", 1008, "only text"),  # a pickle is just bytes here
    ],
)
def test_what_is_not_of_the_protocol_ends_the_connection(rig, message, code, reason):
    async def misbehave():
        async with Visitor(url(rig)) as visitor:
            visitor.beating = False
            if isinstance(message, bytes):
                await visitor.socket.send_bytes(message)
            else:
                await visitor.socket.send_str(message)
            await visitor.until(lambda: visitor.socket.closed)
            assert visitor.socket.close_code == code
            assert not rig.step()[1]
        async with Visitor(url(rig)) as another:
            assert another.now["driving"]

    run(misbehave())


def test_too_many_messages_end_the_connection(rig):
    async def flood():
        async with Visitor(url(rig)) as visitor:
            with contextlib.suppress(ConnectionError):  # it may be closed before the last is sent
                for _ in range(2000):
                    await visitor.send(visitor.input())
            await visitor.until(lambda: visitor.socket.closed)
            assert visitor.socket.close_code in (1008, 1006)

    run(flood())


def test_one_drives_the_others_watch_and_may_ask(rig, patient):
    async def share():
        async with Visitor(url(rig)) as first, Visitor(url(rig)) as second:
            assert (first.now["driving"], second.now["driving"]) == (True, False)
            for _ in range(5):
                await second.send(second.input() | {"hands": ["+x"]})
                await asyncio.sleep(0.02)
                assert not rig.step()[1]
            await first.hold(hands=["+y"])  # not idle
            await second.send({"type": "ask"})
            await first.until(lambda: first.now["asked"])
            await second.until(lambda: second.now["asking"])
            await first.send({"type": "answer", "accept": False})
            await second.until(lambda: not second.now["asking"])
            await second.send({"type": "ask"})
            await first.until(lambda: first.now["asked"])
            await first.send({"type": "answer", "accept": True})
            await second.until(lambda: second.now["driving"])
            await first.until(lambda: not first.now["driving"])
            await second.hold(hands=["+x"])
            await asyncio.sleep(0.1)
            assert rig.step()[1]
            await second.send({"type": "give"})
            await first.until(lambda: not first.now["taken"])
            assert not (await steps(rig, 0.1))[-1]

    run(share())


@pytest.mark.parametrize("leaves", [True, False])
def test_what_was_pressed_while_nobody_read_is_forgotten_where_some_of_it_was_lost(patient, leaves):
    """The link holds about 11 s of input; what ends there may be that somebody left, or toggled again."""
    link, descriptors = Link.pair(0)
    pages = server.PageServer(Link.of(descriptors), {"token": "", "arrays": [], "draw": None}, 0)
    device = make_device("browser")
    device._link = link

    def beat(number, *hands):
        now = time.monotonic()
        page = server.Page(number, None)
        page.fresh.sent_at = now
        message = {"type": "input", **REST, "hands": list(hands), "seen": now, "held_ms": 0.0}
        pages._obey(page, message, now)

    pages.seat.arrive(1, time.monotonic())
    for hands in ((), ("toggle",), ()):
        beat(1, *hands)
    assert device.read().intervening
    beats = 0
    while not pages._untold:
        beat(1)
        beats += 1
    assert beats > 100
    person = 1
    if leaves:
        pages._obey(server.Page(1, None), {"type": "give"}, time.monotonic())
        person = 2
        pages.seat.arrive(person, time.monotonic())
    else:
        beat(1, "toggle")
        beat(1)
    assert device.read().intervening  # so far it knows no better, for as long as a dead man's input counts
    beat(person)
    assert device.read() == IDLE
    for hands in (("toggle",), ()):
        beat(person, *hands)
    assert device.read().intervening
    device.close()


def test_a_page_that_takes_nothing_is_sent_no_queue(rig, patient):
    async def slow():
        async with (
            Visitor(url(rig)),
            Visitor(url(rig)) as watcher,
            Visitor(url(rig), acknowledges=False) as stuck,
        ):
            before, heard = watcher.heard, stuck.heard
            await steps(rig, 1.5)
            assert stuck.heard - heard <= 2 * server.ON_THE_WAY + 2
            while watcher.heard - before < 20:
                await steps(rig, 0.2)
            assert stuck.heard - heard < watcher.heard - before

    run(slow())


def test_watchers_and_nonsense_neither_move_the_arm_nor_end_anything(rig):
    async def crowd():
        async with contextlib.AsyncExitStack() as open_pages:
            driver = await open_pages.enter_async_context(Visitor(url(rig)))
            watchers = [await open_pages.enter_async_context(Visitor(url(rig))) for _ in range(20)]
            rig.reset()
            before = rig.tcp()
            floods = asyncio.gather(*(flood(url(rig), 2.0, 400.0) for _ in range(5)))
            while not floods.done():
                assert not rig.step()[1]
                if rig.env.unwrapped.data.time > 8.0:
                    rig.reset()
                await asyncio.sleep(0.03)
            assert abs(rig.tcp() - before).max() < 0.001
            assert sum(floods.result()) > 1000
            for page in (driver, *watchers):
                heard = page.heard
                await page.until(lambda page=page, heard=heard: page.heard > heard)
            asked = time.monotonic()
            await driver.hold(hands=["+x"])
            await driver.until(lambda: rig.step()[1])
            assert time.monotonic() - asked < 5.0

    run(crowd())


def test_a_server_that_dies_is_a_lost_device_that_comes_back_at_the_same_address(rig, caplog):
    async def lose():
        address = url(rig)
        async with Visitor(address) as visitor:
            await visitor.hold(hands=["+x"])
            await visitor.until(lambda: rig.step()[1])
            os.kill(the_device(rig)._server.pid, signal.SIGKILL)
            the_device(rig)._server.wait()
            assert not rig.step()[1]
            assert "BrowserDevice is lost" in caplog.text
            cookie = visitor.session.cookie_jar.filter_cookies(URL(address))
        while "BrowserDevice is back" not in caplog.text:
            began = time.monotonic()
            rig.step()
            rig.now += 0.1
            assert time.monotonic() - began < 0.5  # it is not waited for
            await asyncio.sleep(0.1)
        async with aiohttp.ClientSession(
            cookies={key: morsel.value for key, morsel in cookie.items()}
        ) as known:
            for _ in range(100):
                try:
                    if (await known.get(address.split("?")[0])).status == 200:
                        return
                except aiohttp.ClientError:
                    rig.step()
                    await asyncio.sleep(0.1)
            raise AssertionError("the page is not back")

    run(lose())
    assert url(rig).endswith(the_device(rig).token)


def test_a_port_in_use_is_said_before_any_work():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            DeviceUnavailable, match=rf"Port {port} is in use on 127\.0\.0\.1. Name another, or 0 for any"
        ):
            check_present("browser", port=port)
        env = OperatorWrapper(gymnasium.make("hil/PandaPickCube-v0"))
        with (
            make_device("browser", port=port) as device,
            pytest.raises(DeviceUnavailable, match="cannot be served"),
        ):
            device.start(env)
    with pytest.raises(
        DeviceUnavailable, match=r"cannot be served at 'nowhere.invalid'.* 127.0.0.1 is for this machine"
    ):
        check_present("browser", bind="nowhere.invalid")
    with pytest.raises(ValueError, match="port must lie in"):
        check_present("browser", port=70_000)
    check_present("browser", port=0)


RUNNER = """
import os, sys, time
import gymnasium, envs
from hil_rllib.collect.pacing import claim_priority
from hil_rllib.devices import make_device
claim_priority()
device = make_device("browser", port=0)
device.start(gymnasium.make("hil/PandaPickCube-v0"))
pid = device._server.pid
print(pid, os.sched_getscheduler(pid), os.getpriority(os.PRIO_PROCESS, pid), flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="scheduling classes are Linux's")
def test_the_server_has_no_priority_and_ends_with_its_runner():
    with subprocess.Popen([sys.executable, "-c", RUNNER], stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        pid, scheduler, niceness = map(int, runner.stdout.readline().split())
        runner.kill()
    assert (scheduler, niceness) == (os.SCHED_OTHER, 0)
    end = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < end, "the server outlives its runner"
        time.sleep(0.05)
