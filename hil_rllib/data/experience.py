"""Everything a run has lived through: both rings in memory, and the journals on disk they are rebuilt from.

One record is one fragment as it arrived, or the word on a person's episode that was held back until its end.
Whoever acted, a fragment is safe on disk within a second; `on_disk` tells up to where.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from hil_rllib.data.journal import Journal, Missing
from hil_rllib.data.journal_format import Damage, Record
from hil_rllib.data.replay import Fragment, Ring, flat, nested_map, unflattened

logger = logging.getLogger(__name__)

# add: to the rings at once. hold: wait for the episode's end, which is keep or drop. online: as add, but what
# a person did in it is in the demo ring already. demo: a demonstration or an intervention, in the demo
# journal. withdraw: an episode's end was none; also in the demo journal, if that has its last step: the
# online one forgets sooner. begin: the demonstrations are complete.
Kind = Literal["add", "hold", "keep", "drop", "withdraw", "online", "demo", "begin"]
ENDS = 1000  # episodes whose end can be withdrawn; it is asked for in the next episode
REMEDY = (  # where files are gone
    "Copy all of the run's replay folder there, or begin another run with its policy, by run.init_from."
)
OWNER_WAIT_S = (
    20.0  # [s] for the process that had the journals to end: a killed driver's outlives it a little
)


@dataclass
class _Track:
    """A ring with its journal. needed: (ring's rows after it was added, record) of what the ring holds."""

    ring: Ring
    journal: Journal
    needed: deque[tuple[int, int]] = field(default_factory=deque)
    ends: dict[str, tuple[int, int]] = field(default_factory=dict)  # episode → last step, its row

    def add(self, number: int, fragment: Fragment) -> None:
        self.ring.add(fragment)
        self.ends.pop(fragment.episode_id, None)  # so that the oldest stays first
        self.ends[fragment.episode_id] = fragment.first_step + len(fragment), self.ring.rows_written - 2
        self.needed.append((self.ring.rows_written, number))
        oldest = self.ring.rows_written - self.ring.capacity
        while self.needed[0][0] <= oldest:
            self.needed.popleft()

    def withdraw(self, episode_id: str, stop: int) -> bool:
        """Take back reward and end of the episode's step before `stop`, if that is its last one here."""
        last, row = self.ends.get(episode_id, (None, 0))
        if last == stop:
            self.ring.withdraw(row)
        return last == stop


def claimed(folder: Path, wait_s: float = OWNER_WAIT_S) -> BinaryIO:
    """The word that this process alone writes in a folder of journals, until it is closed.

    Raises OSError naming the process that does not end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "owner").open("a+b")
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if time.monotonic() >= deadline:
                lock.seek(0)
                owner = lock.read().decode() or "another process"
                raise OSError(f"{folder} is being written by {owner}. Stop that run first.") from error
            time.sleep(0.1)
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {os.uname().nodename}".encode())
    lock.flush()
    return lock


class Experience:
    """The online and the demo ring, kept on disk.

    env_steps: stored in the online ring, in the run's lifetime. note: small plain values of the caller's as
    of the last record: each carries them, so that a resumed run has those of the last one on disk.
    """

    def __init__(self, online: Ring, demo: Ring, folder: Path) -> None:
        self.folder = folder
        self.env_steps = 0
        self.note: dict[str, Any] = {}
        self._online = _Track(online, Journal(folder, "online"))
        self._demo = _Track(demo, Journal(folder, "demo"))
        self._held: dict[str, list[tuple[int, Fragment]]] = {}
        self._unsafe: deque[tuple[int, dict[str, Any]]] = deque()  # record, what will be on disk with it
        self._on_disk: dict[str, Any] = {"env_steps": 0}
        self._owned: BinaryIO | None = None

    # -- storing -----------------------------------------------------------------------------------

    def add_demo(self, fragment: Fragment) -> None:
        """A demonstration, or what a person did: to the demo ring."""
        self._demo.add(self._demo.journal.records, fragment)
        self._demo.journal.append(_meta("demo", fragment), _arrays(fragment))

    def begin(self) -> None:
        """The demonstrations are complete; without this word a resumed run reads them anew."""
        self._demo.journal.append({"kind": "begin"}, {})

    def add(self, fragment: Fragment, note: Mapping[str, Any], kind: Kind = "add") -> None:
        """A fragment: all of it to the online ring, what a person did to the demo ring too."""
        self._record(kind, fragment.episode_id, fragment, note)

    def hold(self, fragment: Fragment, note: Mapping[str, Any]) -> None:
        """A fragment of a person's unfinished episode: safe on disk, in no ring before `end`."""
        self._record("hold", fragment.episode_id, fragment, note)

    def end(self, episode_id: str, note: Mapping[str, Any], *, kept: bool) -> None:
        """The held episode, if it is held, is over; unless kept it reaches no ring."""
        if episode_id not in self._held:
            return
        self._record("keep" if kept else "drop", episode_id, None, note)

    def withdraw(self, episode_id: str) -> None:
        """The stored episode's end was none: take back its reward there, and that it terminated."""
        self._record("withdraw", episode_id, None, self.note)

    def _record(
        self,
        kind: Kind,
        episode_id: str,
        fragment: Fragment | None,
        note: Mapping[str, Any],
        known: Collection[tuple[str, int]] = (),
    ) -> None:
        """known: (episode, first step) of a person's stretches that the demo ring has already."""
        if fragment is not None and not len(fragment):
            return
        self.note = dict(note)
        journal = self._online.journal
        if kind == "withdraw":
            self._withdraw(episode_id)
        for stretch in self._take(journal.records, kind, episode_id, fragment):
            if (stretch.episode_id, stretch.first_step) not in known:
                self.add_demo(stretch)
        state = {"env_steps": self.env_steps, "note": self.note}
        for track in self._tracks.values():
            while len(track.ends) > ENDS:
                del track.ends[next(iter(track.ends))]
        meta = _meta(kind, fragment) if fragment is not None else {"kind": kind, "episode": episode_id}
        number = journal.append(meta | state, _arrays(fragment) if fragment is not None else {})
        self._unsafe.append((number, {"env_steps": self.env_steps, **self.note}))

    def _take(self, number: int, kind: Kind, episode_id: str, fragment: Fragment | None) -> list[Fragment]:
        """Do to the online ring what the record says; returns a person's stretches of what was added."""
        added: list[tuple[int, Fragment]] = []
        if kind in ("add", "online") and fragment is not None:
            added = [(number, fragment)]
        elif kind == "hold" and fragment is not None:
            self._held.setdefault(episode_id, []).append((number, fragment))
        elif kind == "keep":
            added = self._held.pop(episode_id, [])
        elif kind == "drop":
            self._held.pop(episode_id, None)
        for of, part in added:
            self._online.add(of, part)
            self.env_steps += len(part)
        return [] if kind == "online" else [stretch for _, part in added for stretch in part.interventions()]

    def _withdraw(self, episode_id: str, known: Collection[str] = ()) -> None:
        """In both rings, and in the demo journal unless known there."""
        stop, _ = self._online.ends.get(episode_id, (None, 0))
        if stop is None:
            return
        self._online.withdraw(episode_id, stop)
        if self._demo.withdraw(episode_id, stop) and episode_id not in known:
            self._demo.journal.append({"kind": "withdraw", "episode": episode_id, "stop": stop}, {})

    @property
    def on_disk(self) -> dict[str, Any]:
        """`env_steps` and the note as they would come back if the machine lost power now."""
        while self._unsafe and self._unsafe[0][0] < self._online.journal.safe:
            self._on_disk = self._unsafe.popleft()[1]
        return self._on_disk

    # -- checkpoints -------------------------------------------------------------------------------

    def request_sync(self) -> None:
        for track in self._tracks.values():
            track.journal.request_sync()

    def cursor(self) -> dict[str, dict[str, int]]:
        """Where the journals are, once all of it is safe on disk; `recover` goes back there.

        records: how many there are; needed: the first one that the ring still holds something of.
        """
        cursor = {}
        for name, track in self._tracks.items():
            track.journal.wait_safe()
            held = (
                [number for parts in self._held.values() for number, _ in parts] if name == "online" else []
            )
            numbers = [track.journal.records, *held, *(number for _, number in track.needed)]
            cursor[name] = {"records": track.journal.records, "needed": min(numbers)}
        return cursor

    def forget(self, cursor: Mapping[str, Mapping[str, int]]) -> None:
        """Let the files go that neither this cursor nor a later one needs."""
        for name, track in self._tracks.items():
            track.journal.forget(cursor[name]["needed"])

    # -- coming back -------------------------------------------------------------------------------

    def claim(self, wait_s: float = OWNER_WAIT_S) -> None:
        """Become the only process that writes here. Raises OSError naming the one that does not end."""
        if self._owned is None:
            self._owned = claimed(self.folder, wait_s)

    def is_empty(self) -> bool:
        return not any(track.journal.segments() for track in self._tracks.values())

    def check_new(self) -> None:
        """Raises ValueError where something is on disk already."""
        if not self.is_empty():
            raise ValueError(
                f"{self.folder} holds what another run has lived through. Resume it, or choose "
                "another run.dir."
            )

    def recover(self, cursor: Mapping[str, Mapping[str, int]] | None = None, *, exact: bool) -> bool:
        """Fill the rings from disk and go on writing after what is there.

        exact: as they were at `cursor`, the rest is cut off. Otherwise everything on disk, each fragment
        once; of an episode that was held back and never ended all that is there counts as kept. What is
        damaged is left out and reported; so are records that are missing, unless `exact`. Returns whether
        there is something to go on from: the demonstrations, complete, or a cursor.
        Raises ValueError where files are of another version, or not all there that the cursor saw.
        """
        self.claim()
        self._close_journals()
        begun, known, missing = False, set[tuple[str, int]](), list[Fragment]()
        withdrawn, known_withdrawn = list[str](), set[str]()
        for track in self._tracks.values():
            track.ring.clear()
            track.needed.clear()
            track.ends.clear()
        self._held, self._unsafe, self.env_steps = {}, deque(), 0

        def take_demo(record: Record) -> None:
            nonlocal begun
            if record.meta["kind"] == "begin":
                begun = True
                return
            if record.meta["kind"] == "withdraw":
                self._demo.withdraw(record.meta["episode"], record.meta["stop"])
                known_withdrawn.add(record.meta["episode"])
                return
            fragment = _fragment(record)
            self._demo.add(record.number, fragment)
            known.add((fragment.episode_id, fragment.first_step))

        def take_online(record: Record) -> None:
            # A crash may fall between the two journals: the last interventions are in the online one alone.
            kind, episode = record.meta["kind"], record.meta["episode"]
            fragment = _fragment(record, copied=kind == "hold") if record.arrays else None
            for stretch in self._take(record.number, kind, episode, fragment):
                if (stretch.episode_id, stretch.first_step) in known:
                    missing.clear()
                else:
                    missing.append(_copied(stretch))
            if kind == "withdraw":
                withdrawn.append(episode)
            self.env_steps, self.note = record.meta["env_steps"], record.meta["note"]

        takers: dict[str, Callable[[Record], None]] = {"demo": take_demo, "online": take_online}
        for name, take in takers.items():
            at = cursor[name] if cursor else {"needed": 0, "records": 0}
            start = at["needed"] if cursor and exact else 0
            journal = self._tracks[name].journal
            stop = at["records"] if exact else None
            wrong = journal.recover(take, start=start, stop=stop, needed=at["needed"])
            for what in wrong:
                logger.warning("%s", what)
            torn = bool(wrong) and isinstance(wrong[-1], Damage) and wrong[-1].torn
            if journal.records < at["records"] and (exact or not torn):
                raise ValueError(
                    f"{self.folder}: the checkpoint saw {at['records']} records of the {name} ring, "
                    f"{journal.records} are there. {REMEDY}"
                )
            if exact and any(isinstance(what, Missing) for what in wrong):
                raise ValueError(f"{self.folder}: records of the {name} ring are missing. {REMEDY}")
        for stretch in missing:
            self.add_demo(stretch)
        for episode_id in withdrawn:
            self._withdraw(episode_id, known_withdrawn)
        for episode_id in list(self._held):  # its end, too, may be in the demo journal alone
            self._record("keep", episode_id, None, self.note, known)
        self._on_disk = {"env_steps": self.env_steps, **self.note}
        return begun or cursor is not None

    def clear(self) -> None:
        """Remove what is on disk: it was not complete, and a run begins anew."""
        self._close_journals()
        self.recover(exact=True)

    def close(self) -> None:
        self._close_journals()
        if self._owned is not None:
            self._owned.close()
            self._owned = None

    @property
    def _tracks(self) -> dict[str, _Track]:
        return {"online": self._online, "demo": self._demo}

    def _close_journals(self) -> None:
        for track in self._tracks.values():
            track.journal.close()


def _meta(kind: Kind, fragment: Fragment) -> dict[str, Any]:
    return {"kind": kind, "episode": fragment.episode_id, "first_step": fragment.first_step}


def _arrays(fragment: Fragment) -> dict[str, NDArray[Any]]:
    return flat({"obs": fragment.obs, "steps": fragment.steps})


def _fragment(record: Record, copied: bool = False) -> Fragment:
    columns = unflattened(record.arrays)
    fragment = Fragment(record.meta["episode"], record.meta["first_step"], columns["obs"], columns["steps"])
    return _copied(fragment) if copied else fragment


def _copied(fragment: Fragment) -> Fragment:
    """A fragment that does not keep the file it was read from open."""
    obs, steps = nested_map(np.array, fragment.obs), nested_map(np.array, fragment.steps)
    return Fragment(fragment.episode_id, fragment.first_step, obs, steps)
