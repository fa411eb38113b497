"""What a crowd at the operator's page does to the operator's clock, and to the arm.

    python tests/bench/bench_browser.py                 # a minute
    python tests/bench/bench_browser.py --watchers 0 --messages 0

The operator's env with two cameras, stepped at 10 Hz as in a run; its page open at a driver and 20 watchers;
and others with the token who send 2,000 malformed or oversized messages a second. Pages and senders are in a
process of their own. The driver drives every other second; in the seconds between, nobody may.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from ray.rllib.core.columns import Columns

import envs  # noqa: F401  # registers the ids
from hil_rllib.collect.intervention import InterventionConnector
from hil_rllib.collect.pacing import (
    INPUT_LATENCY_MS,
    LATENCY_MS,
    STEP_INTERVAL_MS,
    OperatorWrapper,
    claim_priority,
)
from hil_rllib.contract import IS_INTERVENTION, env_action
from hil_rllib.devices import make_device
from hil_rllib.logs import quiet

sys.path.insert(0, str(Path(__file__).parents[1]))
from browser_visitor import Visitor, flood

FLOODERS = 10
TARGETS = {"step interval, p99": 110.0, "step interval, max": 150.0, "reading to acting, p99": 20.0}  # [ms]


async def crowd(url: str, seconds: float, watchers: int, messages: float, report: Any) -> None:
    """A driver who drives every other second, watchers, and senders of nonsense."""
    async with contextlib.AsyncExitStack() as pages:
        driver = await pages.enter_async_context(Visitor(url))
        looking = [await pages.enter_async_context(Visitor(url)) for _ in range(watchers)]
        report.put("here")
        shares = FLOODERS if messages else 0
        floods = [asyncio.ensure_future(flood(url, seconds, messages / shares)) for _ in range(shares)]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await driver.hold(hands=["+z"] if int(until - time.monotonic()) % 2 else [])
            await asyncio.sleep(0.02)
        sent = sum(await asyncio.gather(*floods))
        pictures = [len(page.pictures) / seconds for page in looking] or [0.0]
        report.put((sent / seconds, min(pictures), driver.now["round_trip_ms"]))


def visit(*arguments: Any) -> None:
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # the operator's priority is inherited
    asyncio.run(crowd(*arguments))


def drive(
    vector: gymnasium.vector.SyncVectorEnv, connector: InterventionConnector, seconds: float
) -> list[dict]:
    """Steps as RLlib's runner makes them; what each step's info says."""
    env, infos, episode = vector.envs[0], [], type("Episode", (), {"is_reset": True, "id_": 0})()
    env.reset(seed=0)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        batch = {Columns.ACTIONS: {("e",): [np.zeros(4, np.float32)]}}
        batch = connector(batch=batch, episodes=[episode])
        before = np.array(env.unwrapped.tcp_pos)
        *_, terminated, truncated, info = env.step(env_action(batch[Columns.ACTIONS][("e",)][0]))
        moved = float(np.abs(env.unwrapped.tcp_pos - before).max())
        infos.append({**info, "moved_mm": 1000.0 * moved, "cut": bool(terminated or truncated)})
        if terminated or truncated:
            episode.id_ += 1
            env.reset()
    return infos


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--watchers", type=int, default=20)
    parser.add_argument(
        "--messages", type=float, default=2000.0, help="a second, of those that must do nothing"
    )
    args = parser.parse_args()
    quiet()
    load = os.getloadavg()[0]
    print(f"{len(os.sched_getaffinity(0))} cores, load {load:.1f}" + (": NOT IDLE" if load > 1 else ""))

    priority = claim_priority()
    options = {"image_obs": True, "disable_env_checker": True, "max_episode_steps": 100}
    vector = gymnasium.vector.SyncVectorEnv(
        [lambda: OperatorWrapper(gymnasium.make("hil/PandaPickCube-v0", **options), hz=10.0)]
    )
    device = make_device("browser", port=0)
    connector = InterventionConnector(env=vector, device=device, mode=device.intervention_mode("hold"))
    spawn = multiprocessing.get_context("spawn")
    report = spawn.Queue()
    crowd = (device.url, args.seconds, args.watchers, args.messages, report)
    spawn.Process(target=visit, args=crowd, daemon=True).start()
    assert report.get(timeout=120) == "here"
    infos = drive(vector, connector, args.seconds)[5:]
    sent, pictures, trip = report.get(timeout=60)
    vector.close()

    by_hand = [info for info in infos if info[IS_INTERVENTION]]
    alone = [
        info
        for i, info in enumerate(infos)
        if not any(near[IS_INTERVENTION] for near in infos[max(0, i - 3) : i + 1])
    ]
    intervals = np.array([info[STEP_INTERVAL_MS] for info in infos])
    latency = np.array([info[LATENCY_MS] for info in by_hand])
    arrival = np.array([info[INPUT_LATENCY_MS] for info in by_hand])
    rows: list[tuple[str, float, str]] = [
        ("step interval, p50", float(np.percentile(intervals, 50)), "ms"),
        ("step interval, p99", float(np.percentile(intervals, 99)), "ms"),
        ("step interval, max", float(intervals.max()), "ms"),
        ("reading to acting, p99", float(np.percentile(latency, 99)), "ms"),
        ("arrival to acting, p50", float(np.percentile(arrival, 50)), "ms"),
        ("steps by hand", float(len(by_hand)), ""),
        ("moved while nobody drove", max(info["moved_mm"] for info in alone), "mm"),
        ("nonsense received", sent, "messages/s"),
        ("pictures, slowest watcher", pictures, "/s"),
        ("round trip of the driver", trip or 0.0, "ms"),
        ("memory of this process", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MiB"),
    ]
    print(f"priority granted: {priority}")
    for name, value, unit in rows:
        target = TARGETS.get(name)
        verdict = "" if target is None else f"≤ {target:.0f}  " + ("ok" if value <= target else "MISSED")
        print(f"{name:28}{value:10.1f} {unit:12}{verdict}")


if __name__ == "__main__":
    main()
