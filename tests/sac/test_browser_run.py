"""A run whose operator sits at the page: what they do reaches the learner, and how it goes reaches them."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

from browser_visitor import Visitor

from hil_rllib.devices.browser import device as browser


def test_a_person_at_the_page_drives_a_run_and_sees_how_it_goes(build, configure, monkeypatch):
    monkeypatch.setattr(browser, "new_token", lambda: "token")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = configure("run.mode=async", "operator.device=browser", f"operator.port={port}")
    algorithm = build(config)
    demos, seen = len(algorithm.demo), {}

    async def visit():
        async with Visitor(f"http://127.0.0.1:{port}/?token=token") as visitor:
            await visitor.hold(hands=["+z"])
            await visitor.until(lambda: visitor.now.get("who") == "human", 150)
            await visitor.until(lambda: visitor.run.get("values", {}).get("human_seconds", 0) > 0, 150)
            await visitor.hold(hands=["success"])  # an episode is stored when it has ended
            await visitor.until(lambda: visitor.run["values"]["env_steps"] > 0, 150)
            await visitor.until(lambda: visitor.pictures, 150)
            seen.update(visitor.run["values"], points=visitor.run["points"], outcomes=visitor.now["outcomes"])

    with ThreadPoolExecutor(1) as people:
        person = people.submit(asyncio.run, visit())
        while not person.done():
            result = algorithm.train()
        person.result()
    assert seen["demo_ring"] >= demos
    assert seen["points"][-1][0] == seen["env_steps"]
    assert "success" in seen["outcomes"]
    assert len(algorithm.demo) > demos  # the interventions
    assert result["hil"]["input_latency_ms_p50"] > result["hil"]["latency_ms_p50"] > 0
