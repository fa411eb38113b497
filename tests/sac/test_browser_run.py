"""A run whose operator minds two robots at a page: what they do reaches the learner, and the news them."""

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
    people = (
        "operator.device=browser",
        "operator.count=2",
        "operator.attention=true",
        f"operator.port={port}",
    )
    config = configure("run.mode=async", *people)
    algorithm = build(config)
    demos, seen = len(algorithm.demo), {}

    async def visit():
        async with Visitor(f"http://127.0.0.1:{port}/?token=token") as visitor:
            await visitor.hold(hands=["+z"])
            await visitor.until(lambda: visitor.now.get("who") == "human", 150)
            await visitor.until(lambda: visitor.run.get("values", {}).get("human_seconds", 0) > 0, 150)
            while "success" not in visitor.now["outcomes"]:  # at an episode's very end it says nothing
                await visitor.hold(hands=["success"])
                await asyncio.sleep(0.5)
                await visitor.hold()
                await asyncio.sleep(0.2)
            # An episode is stored when it has ended.
            await visitor.until(lambda: visitor.run["values"]["env_steps"] > 0, 150)
            await visitor.until(lambda: visitor.pictures, 150)
            await visitor.until(lambda: len([r for r in visitor.run["robots"] if r["url"]]) == 2, 150)
            seen.update(visitor.run["values"], points=visitor.run["points"], outcomes=visitor.now["outcomes"])
            seen["robots"] = visitor.run["robots"]

    with ThreadPoolExecutor(1) as elsewhere:
        person = elsewhere.submit(asyncio.run, visit())
        while not person.done():
            result = algorithm.train()
        person.result()
    assert seen["demo_ring"] >= demos
    assert seen["points"][-1][0] == seen["env_steps"]
    assert "success" in seen["outcomes"]
    assert len(algorithm.demo) > demos  # the interventions
    assert result["hil"]["input_latency_ms_p50"] > result["hil"]["latency_ms_p50"] > 0
    first, second = seen["robots"]
    assert (first["robot"], second["robot"]) == ("operator_1", "operator_2")
    assert (first["url"], second["url"]) == tuple(
        f"http://127.0.0.1:{number}/?token=token" for number in (port, port + 1)
    )
    assert all(row["value"] is not None and row["disagreement"] >= 0 for row in seen["robots"])
