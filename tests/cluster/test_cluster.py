"""A run on a cluster whose nodes come and go: raylets of their own, killed as by a power cut."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from nodes import PORT, LocalCluster

CONFIG = """
run: {dir: DIR}
env: {image_obs: false, max_episode_steps: 20}
encoder: {weights: random, latent_dim: 16, embeddings_per_channel: 2}
demos: {source: none}
operator:
  count: 2
  device: [scripted, none]
  realtime: true
  hz: 20
  scripted: {start_after_step: 0, takeover_probability: 0.2}
runners: {autonomous: 2}
sac: {batch_size: 16, hidden: [16, 16], learning_starts: 50, utd_ratio: 0.5, bc_start_updates: 0}
evaluation: {every_steps: 1000000}
checkpoint: {every_steps: 1000000}
stop: {success: null, env_steps: 10000000}
"""


class Run:
    """A training process on the cluster's head, and what it has written down so far."""

    def __init__(self, cluster: LocalCluster, folder: Path) -> None:
        config, self.trace, self.log = (folder / name for name in ("run.yaml", "trace.jsonl", "log.txt"))
        self.dir = folder / "run"
        config.write_text(CONFIG.replace("DIR", str(self.dir)))
        script = str(Path(__file__).with_name("traced_train.py"))
        self.process = cluster.run(
            "head",
            [script, str(self.trace), str(config)],
            env={"RAY_ADDRESS": f"{cluster.address('head')}:{PORT}", "PYTHONUNBUFFERED": "1"},
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
        )

    def events(self, kind: str) -> list[dict]:
        lines = self.trace.read_text().splitlines(keepends=True) if self.trace.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in events if event.pop("event") == kind]

    def wait(self, what: str, done, seconds: float = 240.0) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert self.process.poll() is None, (
                f"the run ended before {what}:\n{self.log.read_text()[-4000:]}"
            )
            assert time.monotonic() < deadline, f"no {what} in {seconds} s:\n{self.log.read_text()[-4000:]}"
            time.sleep(0.1)

    def wait_for_places(self, **places: str) -> None:
        self.wait(f"runners at {places}", lambda: self.events("places")[-1:] == [places])

    def wait_for_steps(self, *groups: str, steps: int = 20) -> None:
        """That many more from each of the groups."""

        def arrived() -> dict[str, int]:
            counts: dict[str, int] = defaultdict(int)
            for fragment in self.events("arrived"):
                counts[fragment["group"]] += fragment["steps"]
            return counts

        before = arrived()
        self.wait(
            f"{steps} steps of {groups}", lambda: all(arrived()[g] >= before[g] + steps for g in groups)
        )


@pytest.fixture
def cluster():
    with LocalCluster() as cluster:
        cluster.start("head", cpus=1)  # the learner's
        with ThreadPoolExecutor() as threads:
            nodes = [
                threads.submit(cluster.start, "worker", 1),
                threads.submit(cluster.start, "seat1", 0, {"operator_1": 1}),
                threads.submit(cluster.start, "seat2", 0, {"operator_2": 1}),
            ]
        for node in nodes:
            node.result()
        yield cluster


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="nodes are killed by /proc")
def test_nodes_are_lost_and_come_back_while_the_run_goes_on(cluster, tmp_path):
    worker = cluster.address("worker")
    seats = {"operator_1": cluster.address("seat1"), "operator_2": cluster.address("seat2")}
    run = Run(cluster, tmp_path)

    # Two more are asked for than the operators', where one has a place. Operators' are at their seats.
    run.wait("three runners", lambda: any(len(places) == 3 for places in run.events("places")))
    places = run.events("places")[-1]
    assert {name: places.pop(name) for name in seats} == seats
    assert list(places.values()) == [worker]
    run.wait_for_steps(*seats, "autonomous")

    cluster.kill("worker")
    run.wait_for_places(**seats)
    run.wait_for_steps(*seats)
    cluster.start("worker", cpus=2)  # a larger one: now there is room for all
    everyone = {"autonomous_1": worker, "autonomous_2": worker} | seats
    run.wait_for_places(**everyone)
    run.wait_for_steps(*seats, "autonomous")

    cluster.kill("seat1")
    run.wait_for_places(**{name: place for name, place in everyone.items() if name != "operator_1"})
    run.wait_for_steps("operator_2", "autonomous")
    cluster.start("seat1", 0, {"operator_1": 1})
    run.wait_for_places(**everyone)
    run.wait_for_steps(*seats, "autonomous", steps=60)

    if cluster.namespaces:  # no process dies, there is only silence
        cluster.cable("seat2", plugged=False)
        run.wait_for_places(**{name: place for name, place in everyone.items() if name != "operator_2"})
        run.wait_for_steps("operator_1", "autonomous")
        cluster.cable("seat2", plugged=True)
        run.wait("end of the seat that was given up", lambda: cluster.ended("seat2"))
        cluster.kill("seat2")
        cluster.start("seat2", 0, {"operator_2": 1})  # as `make seat` does by itself
        run.wait_for_places(**everyone)
        run.wait_for_steps(*seats, "autonomous")

    os.kill(run.process.pid, signal.SIGINT)
    assert run.process.wait(120) == 130
    summary = json.loads((run.dir / "summary.json").read_text())
    stored, arrived = run.events("stored"), run.events("arrived")

    # Nothing is counted twice, and nothing that is stored was not counted.
    steps = [(part["id"], part["first"] + t) for part in stored for t in range(part["steps"])]
    assert len(steps) == len(set(steps)) == summary["env_steps"]
    assert summary["updates"] > 0
    # What arrives of an episode begins at its first step and leaves none out.
    length, ended = defaultdict(int), set()
    for part in arrived:
        assert part["first"] == length[part["id"]], f"{part} does not go on from step {length[part['id']]}"
        assert part["id"] not in ended
        length[part["id"]] += part["steps"]
        ended |= {part["id"]} if part["done"] else set()
    # A person's episodes are stored when they end or are cut off, with all that arrived of them.
    theirs = {part["id"] for part in arrived if part["group"] in seats}
    kept = defaultdict(int)
    for part in stored:
        kept[part["id"]] += part["steps"]
    whole = {name for name in theirs if kept[name]}
    assert {name: kept[name] for name in whole} == {name: length[name] for name in whole}
    assert theirs & ended <= whole
    assert len(theirs & ended) > 3
    assert whole - ended, "the episode that was cut off is missing"
    assert len(theirs - whole) <= len(seats), "more are missing than those under way at the end"
    # The device is theirs alone: the first operator's intervenes, and nobody else does.
    assert {part["group"] for part in arrived if part["human"]} == {"operator_1"}

    log = run.log.read_text()
    for said in (
        rf"Runner operator_1 on {seats['operator_1']} is lost: .* The run goes on: 0 of 1 runner\.",
        rf"Runner operator_1 is here, on {seats['operator_1']}: 1 of 1 runner\.",
        rf"Runner autonomous_\d on {worker} is lost: .* The run goes on: 0 of 2 runners\.",
        rf"Runner autonomous_\d is here, on {worker}: 2 of 2 runners\.",
    ):
        assert len(re.findall(said, log)) == 1, f"{said}\n{log}"
