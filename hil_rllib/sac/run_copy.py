"""A run's folder becomes a copy of another run, as a checkpoint of that one saw it.

What is in the folder afterwards is a run like any other: journals and a checkpoint that fit together.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from hil_rllib.data.experience import claimed
from hil_rllib.data.journal import Journal
from hil_rllib.sac.checkpoint import STATE_FILE, read_state, replay_folder

COPY = "checkpoint_copied"  # in the run's folder: the other run's checkpoint
STAGED, UNFINISHED = "copied", "copied.partial"  # there too: a copy not yet in its place, or not yet whole
REPLAY, STATE, BEFORE = "replay", "state", "before"  # in a staged copy


def take_over(checkpoint: Path, folder: Path) -> Path:
    """Copy the other run over the one in this folder; returns the copied checkpoint.

    The other may go on meanwhile. Killed on the way, the folder is what it was or `finish_take_over` ends it.
    Raises OSError, and then has changed nothing, where the checkpoint or its journals are not all there, the
    disk is full, or a process that works in this folder does not end.
    """
    with claimed(folder / REPLAY):
        staged, unfinished = folder / STAGED, folder / UNFINISHED
        for left in (staged, unfinished):
            shutil.rmtree(left, ignore_errors=True)
        try:
            stage(checkpoint, unfinished)
        except OSError:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        unfinished.rename(staged)
        put_in_place(folder)
    return folder / COPY


def finish_take_over(folder: Path) -> None:
    """End what a kill has interrupted, if anything."""
    if (folder / STAGED).is_dir():
        with claimed(folder / REPLAY):
            put_in_place(folder)
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)


def stage(checkpoint: Path, place: Path) -> None:
    """Checkpoint and journals, without what the other has lived through since."""
    seen = read_state(checkpoint)["journals"]
    shutil.copytree(checkpoint, place / STATE)
    (place / REPLAY).mkdir()
    for file in replay_folder(checkpoint).glob("*.journal"):
        with suppress(FileNotFoundError):  # the other goes on, and does not need this one any more
            shutil.copy2(file, place / REPLAY)
    for name, at in seen.items():
        journal = Journal(place / REPLAY, name)
        journal.recover(lambda record: None, start=at["records"], stop=at["records"])
        if journal.records < at["records"]:
            raise OSError(f"{checkpoint} saw {at['records']} records of the {name} ring, not all are there.")


def put_in_place(folder: Path) -> None:
    """The staged copy instead of what the run had; each step may be the second time that it is made."""
    staged = folder / STAGED
    if (staged / REPLAY).is_dir():
        for pattern in (f"checkpoint_*/{STATE_FILE}", f"*/checkpoint_*/{STATE_FILE}"):
            for state in folder.glob(pattern):
                state.unlink()  # a checkpoint no more; Tune removes the rest in its turn
        shutil.rmtree(staged / BEFORE, ignore_errors=True)
        (folder / REPLAY).rename(staged / BEFORE)  # not removed where it is: NFS keeps files that are open
        (staged / REPLAY).rename(folder / REPLAY)
    if (staged / STATE).is_dir():
        shutil.rmtree(folder / COPY, ignore_errors=True)
        (staged / STATE).rename(folder / COPY)
    shutil.rmtree(staged, ignore_errors=True)
