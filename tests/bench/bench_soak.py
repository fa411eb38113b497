"""An operator at the page for ten minutes, while everything else works beside them.

    python tests/bench/bench_soak.py --minutes 10

`bench_operator.py`'s run of two cameras, always learning and evaluating, a checkpoint every ten seconds;
besides, the operator's episodes are recorded, an autonomous runner is under way, and the operator sits at the
browser's page (its protocol over a real socket, from a process of its own). They drive for three seconds
out of five, and every fifth time fall silent with a key held down: the dead man.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
from bench_operator import Recorder, built, run
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from hil_rllib.collect.pacing import INPUT_LATENCY_MS, LATENCY_MS
from hil_rllib.devices.browser import device as browser
from hil_rllib.logs import quiet

sys.path.insert(0, str(Path(__file__).parents[1]))
from browser_visitor import Visitor

TOKEN = "soak"
SETTLING = 0.3  # of the time, after which memory is measured first: all code has run by then


class Latencies(Recorder):
    """And what passed until a person's action was the robot's, of every step that had one."""

    def __init__(self) -> None:
        super().__init__()
        self.latencies: dict[str, list[float]] = {LATENCY_MS: [], INPUT_LATENCY_MS: []}

    def add(self, episode: SingleAgentEpisode, newest_weights: int) -> None:
        super().add(episode, newest_weights)
        for info in episode.get_infos()[1:]:
            for name, values in self.latencies.items():
                if name in info:
                    values.append(info[name])


async def person(port: int, report: Any) -> None:
    """Drives now and then until killed; tells how long control stays after they fell silent [ms]."""
    async with Visitor(f"http://127.0.0.1:{port}/?token={TOKEN}") as visitor:
        turn = 0
        while True:
            turn += 1
            await visitor.hold(hands=["+z" if turn % 2 else "-z"])
            await asyncio.sleep(3.0)
            if turn % 5 == 0 and visitor.now.get("who") == "human":
                visitor.beating = False
                since = time.monotonic()
                while visitor.now["who"] == "human":
                    await asyncio.sleep(0.002)
                first = visitor.now  # step of the policy: it began an interval before its stamp
                report.put(1000.0 * (first["stamp"] - since) - first["interval_ms"])
                visitor.beating = True
            await visitor.hold()
            await asyncio.sleep(2.0)


def sit(port: int, report: Any) -> None:
    asyncio.run(person(port, report))


def memory() -> dict[str, float]:
    """[MiB] of the operator's runner and of its page's server."""
    for process in psutil.Process().children(recursive=True):
        if any("hil_rllib.devices.browser.process" in part for part in process.cmdline()):
            pair = {"operator's runner": process.parent(), "page's server": process}
            return {name: each.memory_info().rss / 2**20 for name, each in pair.items() if each is not None}
    raise RuntimeError("no page is served")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    args = parser.parse_args()
    quiet()
    load = os.getloadavg()[0]
    print(f"{len(os.sched_getaffinity(0))} cores, load {load:.1f}" + (": NOT IDLE" if load > 1 else ""))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    browser.new_token = lambda: TOKEN
    extra = [
        "operator.device=browser",
        f"operator.port={port}",
        "record.operator=true",
        "runners.autonomous=1",
    ]
    spawn = multiprocessing.get_context("spawn")
    report = spawn.Queue()
    seconds = 60.0 * args.minutes
    with tempfile.TemporaryDirectory() as folder:
        algorithm = built(folder, "full", extra)
        algorithm.stats = stats = Latencies()
        visitor = spawn.Process(target=sit, args=(port, report), daemon=True)
        visitor.start()
        updates = algorithm.updates
        evaluations, checkpoints = run(algorithm, SETTLING * seconds, Path(folder))
        before = memory()
        more, others = run(algorithm, (1 - SETTLING) * seconds, Path(folder))
        after, updates = memory(), algorithm.updates - updates
        visitor.kill()
        algorithm.stop()
        ray.shutdown()

    dead_man = []
    while not report.empty():
        dead_man.append(report.get())
    rows: list[tuple[str, str, float, float]] = []  # what, unit, value, target
    intervals = np.array(stats.intervals_ms)
    rows.append(("step interval, p99", "ms", float(np.percentile(intervals, 99)), 110.0))
    rows.append(("step interval, max", "ms", float(intervals.max()), np.inf))
    reading, arrival = (np.array(stats.latencies[name]) for name in (LATENCY_MS, INPUT_LATENCY_MS))
    rows.append(("reading to acting, p50", "ms", float(np.percentile(reading, 50)), np.inf))
    rows.append(("reading to acting, p99", "ms", float(np.percentile(reading, 99)), 20.0))
    rows.append(("arrival to acting, p99", "ms", float(np.percentile(arrival, 99)), np.inf))
    rows.append(("dead man, longest", "ms", max(dead_man, default=np.nan), 400.0))
    for name in before:
        rows.append((f"growth of the {name}", "MiB", after[name] - before[name], 20.0))
    print(
        f"{len(intervals)} steps, {len(reading)} by hand, {len(dead_man)} dead men, {stats.missed_deadlines} "
        f"deadlines missed; meanwhile {updates / seconds:.1f} updates/s, {evaluations + more} evaluations, "
        f"{len(checkpoints) + len(others)} checkpoints"
    )
    for name, unit, value, target in rows:
        verdict = "" if np.isinf(target) else f"≤ {target:.0f}  " + ("ok" if value <= target else "MISSED")
        print(f"{name:40}{value:10.1f} {unit:5}{verdict}")


if __name__ == "__main__":
    main()
