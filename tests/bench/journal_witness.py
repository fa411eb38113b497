"""What a run's journals held at one moment, to be compared with what they hold at a later one."""

from __future__ import annotations

import json
import shutil
import tempfile
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from hil_rllib.data.experience import Experience
from hil_rllib.data.journal import Journal
from hil_rllib.data.journal_format import Record, scan
from hil_rllib.data.replay import Ring, flat

JOURNALS = ("online", "demo")
CAPACITY = 200_000  # [steps] of either ring: nothing leaves it
Step = tuple[str, int]  # episode, number


@dataclass(frozen=True)
class Entry:
    """One record of a journal. human: which of its steps are a person's."""

    number: int
    kind: str
    episode: str
    first: int
    human: tuple[bool, ...]
    content: int  # checksum

    @classmethod
    def of(cls, record: Record) -> Entry:
        flags = record.arrays.get("steps/is_intervention", ())
        content = zlib.crc32(json.dumps(record.meta, sort_keys=True).encode())
        for array in record.arrays.values():
            content = zlib.crc32(array.tobytes(), content)
        meta = record.meta
        return cls(
            record.number, meta["kind"], meta.get("episode", ""), meta.get("first_step", -1),
            tuple(bool(flag > 0) for flag in flags), content,
        )  # fmt: skip

    def steps(self, human_only: bool) -> list[Step]:
        return [(self.episode, self.first + i) for i, h in enumerate(self.human) if h or not human_only]


@dataclass
class Witness:
    """What is known to be stored, and what was wrong with what came back."""

    known: dict[str, list[Entry]] = field(default_factory=lambda: {name: [] for name in JOURNALS})
    wrong: list[str] = field(default_factory=list)
    torn: int = 0  # records that a kill cut in two

    @property
    def interventions(self) -> list[Step]:
        return [step for entry in self.known["online"] for step in entry.steps(human_only=True)]

    def see(self, replay: Path, when: str, *, dead: bool) -> None:
        """Read the journals, apart from the program's own way back. dead: nobody writes."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "replay"
            while True:
                try:  # the program may remove a file meanwhile
                    shutil.copytree(replay, copy, dirs_exist_ok=True)
                    break
                except (shutil.Error, FileNotFoundError):
                    shutil.rmtree(copy, ignore_errors=True)
            self._compare(copy, when, dead)

    def _compare(self, copy: Path, when: str, dead: bool) -> None:
        found: dict[str, list[Entry]] = {}
        for name in JOURNALS:
            found[name] = []
            for _, file in Journal(copy, name).segments():
                for part in scan(file):
                    if isinstance(part, Record):
                        found[name].append(Entry.of(part))
                    elif dead:
                        self.torn += part.torn
                        self.wrong += [] if part.torn else [f"{when}: {part}"]
        begun = any(entry.kind == "begin" for entry in self.known["demo"])
        for name, before in self.known.items():
            if begun and found[name][: len(before)] != before:
                self.wrong.append(
                    f"{when}: the {name} journal's {len(before)} known entries are not the first"
                )
        self.known = found
        if dead:
            self._once(when)
            self._in_rings(copy, when)

    def _once(self, when: str) -> None:
        for name, entries in self.known.items():
            if [entry.number for entry in entries] != list(range(len(entries))):
                self.wrong.append(f"{when}: the {name} journal's numbers have gaps")
            counts = Counter(step for entry in entries for step in entry.steps(human_only=False))
            twice = [step for step, count in counts.items() if count > 1]
            if twice:
                self.wrong.append(f"{when}, {name} journal: {len(twice)} steps twice, such as {twice[0]}")

    def _in_rings(self, copy: Path, when: str) -> None:
        """The rings as the program rebuilds them hold every step once, in its episode's order."""
        expected: dict[str, dict[bytes, Step]] = {name: {} for name in JOURNALS}
        space = None
        for _, file in Journal(copy, "online").segments():
            for part in scan(file):
                if isinstance(part, Record) and part.arrays:
                    space = space or _space(part)
                    flags = part.arrays["steps/is_intervention"]
                    for i, key in enumerate(_keys(part.arrays, len(flags))):
                        step = (part.meta["episode"], part.meta["first_step"] + i)
                        expected["online"][key] = step
                        if flags[i] > 0:
                            expected["demo"][key] = step
        if space is None:
            return
        rings = {name: Ring(CAPACITY, space) for name in JOURNALS}
        experience = Experience(rings["online"], rings["demo"], copy)
        experience.recover(exact=False)
        experience.close()
        for name, ring in rings.items():
            rows = ring._starts[(ring._head + np.arange(len(ring))) % ring.capacity] % ring.capacity
            arrays = {key: array[rows] for key, array in flat({"obs": ring.obs, "steps": ring.steps}).items()}
            there = [expected[name][key] for key in _keys(arrays, len(rows)) if key in expected[name]]
            for what, steps in _faults(list(expected[name].values()), there).items():
                if steps:
                    self.wrong.append(f"{when}, {name} ring: {len(steps)} steps {what}, such as {steps[0]}")


def _faults(expected: list[Step], there: list[Step]) -> dict[str, list[Step]]:
    counts, last, disorder = Counter(there), dict[str, int](), []
    for episode, step in there:
        if step < last.get(episode, -1):
            disorder.append((episode, step))
        last[episode] = step
    return {
        "missing": [step for step in expected if step not in counts],
        "twice": [step for step, count in counts.items() if count > 1],
        "out of order": disorder,
    }


def _keys(arrays: dict[str, Any], steps: int) -> list[bytes]:
    """What tells one step from all others: its observation and its action."""
    names = [name for name in sorted(arrays) if name.startswith("obs/")] + ["steps/actions"]
    return [b"".join(arrays[name][i].tobytes() for name in names) for i in range(steps)]


def _space(record: Record) -> gym.spaces.Dict:
    """Of the observations, which are flat here: no cameras."""
    shapes = {n.removeprefix("obs/"): a for n, a in record.arrays.items() if n.startswith("obs/")}
    return gym.spaces.Dict(
        {n: gym.spaces.Box(-np.inf, np.inf, a.shape[1:], a.dtype.type) for n, a in shapes.items()}
    )
