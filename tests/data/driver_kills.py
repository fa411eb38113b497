"""Kill the process that stores, again and again: what it had acknowledged must be there, once, each time.

    python tests/data/driver_kills.py --kills 100 [--seed 0]

The process is real and so are SIGKILL, `Experience`, its journals and files. Runners and learner are left
out, so that a hundred kills take minutes, not hours, and hit the storing itself. It stores what autonomous
runners and a person would: fragments, and episodes held back until they are kept or thrown away.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import select
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import gymnasium as gym
import numpy as np
from ray.rllib.core.columns import Columns

from hil_rllib.contract import DISCRETE_PENALTY, IS_INTERVENTION
from hil_rllib.data import journal
from hil_rllib.data.experience import Experience
from hil_rllib.data.replay import Fragment, Ring

SPACE = gym.spaces.Dict({"x": gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)})  # (episode, step)
CAPACITY = 300_000  # [steps] of either ring: nothing leaves it
Step = tuple[int, int]


def fragment(episode: int, first: int, flags: list[bool]) -> Fragment:
    """Steps `first` … of an episode, flagged where a person acted; observations say which they are."""
    length = len(flags)
    obs = np.stack([np.full(length + 1, float(episode)), first + np.arange(length + 1.0)], axis=1)
    steps = {
        Columns.ACTIONS: np.zeros((length, 4), np.float32),
        Columns.REWARDS: np.zeros(length, np.float32),
        DISCRETE_PENALTY: np.zeros(length, np.float32),
        Columns.TERMINATEDS: np.zeros(length, np.bool_),
        IS_INTERVENTION: np.array(flags, np.float32),
    }
    return Fragment(str(episode), first, {"x": obs}, steps)


def stored(ring: Ring) -> list[Step]:
    rows = ring._starts[(ring._head + np.arange(len(ring))) % ring.capacity] % ring.capacity
    return [(int(episode), int(step)) for episode, step in ring.obs["x"][rows]]


class Driver:
    """The process that is killed. It tells by lines of JSON what came back, and what is acknowledged when."""

    def __init__(self, folder: Path, session: int, say: int) -> None:
        self.folder, self.session, self.pipe = folder, session, say
        self.rng = random.Random(session)
        self.untold: list[tuple[int, dict]] = []  # record, what to tell once it is safe

    def run(self) -> None:
        journal.SEGMENT_BYTES, journal.SYNC_S = 50_000, 0.01  # files end often, and so do syncs
        self.experience = Experience(Ring(CAPACITY, SPACE), Ring(CAPACITY, SPACE), self.folder)
        file = self.folder / "checkpoint.json"
        cursor = json.loads(file.read_text()) if file.exists() else None
        if not self.experience.recover(cursor, exact=False):
            self.experience.clear()
            self.experience.begin()
        self.say(
            resumed=True,
            online=stored(self.experience._online.ring),
            human=stored(self.experience._demo.ring),
        )
        for number in range(1, 1_000_000):
            episode = self.session * 1_000_000 + number
            self.persons_episode(episode) if number % 3 == 0 else self.autonomous_episode(episode)
            if number % 5 == 0:
                self.checkpoint(file)

    def autonomous_episode(self, episode: int) -> None:
        for first in (0, 5):
            flags = [self.rng.random() < 0.3 for _ in range(5)]
            self.experience.add(fragment(episode, first, flags), {})
            self.tell(episode=episode, first=first, flags=flags)

    def persons_episode(self, episode: int) -> None:
        for first in (0, 5, 10):
            flags = [self.rng.random() < 0.6 for _ in range(5)]
            self.experience.hold(fragment(episode, first, flags), {})
            self.tell(episode=episode, first=first, flags=flags)
        kept = self.rng.random() < 0.7
        if not kept:
            self.say(throwing_away=episode)  # from here on it may be gone
        self.experience.end(str(episode), {}, kept=kept)
        if not kept:
            self.tell(thrown_away=episode)

    def checkpoint(self, file: Path) -> None:
        cursor = self.experience.cursor()
        self.experience.forget(cursor)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(cursor))
        partial.replace(file)

    def tell(self, **what: object) -> None:
        """Acknowledge it once the last record is safe."""
        self.untold.append((self.experience._online.journal.records - 1, what))
        while self.untold and self.untold[0][0] < self.experience._online.journal.safe:
            self.say(**self.untold.pop(0)[1])
        time.sleep(0.005)  # else the list of what came back grows by megabytes a session

    def say(self, **what: object) -> None:
        os.write(self.pipe, (json.dumps(what) + "\n").encode())


@dataclass
class Witness:
    """What was acknowledged in all sessions, and what is wrong with what came back."""

    online: set[Step] = field(default_factory=set)
    human: set[Step] = field(default_factory=set)
    throwing_away: set[int] = field(default_factory=set)
    thrown_away: set[int] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    resumes: int = 0

    def hear(self, line: str) -> None:
        said = json.loads(line)
        if "resumed" in said:
            self.resumes += 1
            self.check("online", self.online, [tuple(step) for step in said["online"]])
            self.check("human", self.human, [tuple(step) for step in said["human"]])
        elif "throwing_away" in said:
            self.throwing_away.add(said["throwing_away"])
        elif "thrown_away" in said:
            self.thrown_away.add(said["thrown_away"])
        else:
            steps = [(said["episode"], said["first"] + i) for i in range(len(said["flags"]))]
            self.online.update(steps)
            self.human.update(step for step, flag in zip(steps, said["flags"], strict=True) if flag)

    def check(self, name: str, acknowledged: set[Step], there: list[Step]) -> None:
        counts = Counter(there)
        twice = [step for step, count in counts.items() if count > 1]
        missing = [s for s in acknowledged if s not in counts and s[0] not in self.throwing_away]
        back = [step for step in counts if step[0] in self.thrown_away]
        for what, steps in (("twice", twice), ("missing", missing), ("back though thrown away", back)):
            if steps:
                self.wrong.append(f"resume {self.resumes}, {name}: {len(steps)} {what}, such as {steps[0]}")


def kill_drivers(kills: int, folder: Path, seed: int = 0, longest_s: float = 0.4) -> Witness:
    """`kills` drivers one after another on one folder, each killed at a random time, and one more to look."""
    rng, witness, context = random.Random(seed), Witness(), multiprocessing.get_context("fork")
    for session in range(kills + 1):
        hear, say = os.pipe()
        driver = context.Process(target=Driver(folder, session + 1, say).run)
        driver.start()
        os.close(say)
        rest, kill_at = b"", None
        while True:
            timeout = 60.0 if kill_at is None else max(0.0, kill_at - time.monotonic())
            ready, _, _ = select.select([hear], [], [], timeout)
            if not ready:
                driver.kill()  # then the pipe ends
                kill_at = None
                continue
            data = os.read(hear, 1 << 20)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                witness.hear(line.decode())
            if kill_at is None and driver.is_alive() and lines:  # it has come back
                kill_at = time.monotonic() + (0.0 if session == kills else rng.uniform(0, longest_s))
            if not data:
                break
        os.close(hear)
        driver.join()
    return witness


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        witness = kill_drivers(args.kills, Path(folder), args.seed)
    sys.stdout.write(
        f"{args.kills} kills in {time.monotonic() - began:.0f} s: {len(witness.online)} steps acknowledged, "
        f"{len(witness.human)} of them a person's; wrong: {len(witness.wrong)}\n"
    )
    sys.stdout.write("".join(f"{line}\n" for line in witness.wrong[:20]))
    return 1 if witness.wrong or witness.resumes != args.kills + 1 else 0


if __name__ == "__main__":
    sys.exit(main())
