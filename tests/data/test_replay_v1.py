"""Rings that a release with checkpoints of version 1 left on disk."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from ring_parts import SPACE, fragment, held

from hil_rllib.data.experience import Experience
from hil_rllib.data.replay import Ring, flat
from hil_rllib.data.replay_v1 import START, fragments
from hil_rllib.sac.checkpoint import _restore_rings_of_v1


def save_as_version_1_did(ring, folder, name, saved):
    """New rows since the last save, beginning with its last one, which may have become a start since."""
    first = max(saved["rows_written"] - 1 if saved["shards"] else 0, ring.rows_written - ring.capacity, 0)
    rows = np.arange(first, ring.rows_written)
    columns = flat({"obs": ring.obs, "steps": ring.steps})
    file = folder / f"{name}-{first:09d}-{ring.rows_written:09d}.npz"
    arrays = {key: column[rows % ring.capacity] for key, column in columns.items()}
    np.savez(file, **arrays, **{START: ring.is_start(rows)})
    shards = [*saved["shards"], [file.name, first, ring.rows_written]]
    return {"rows_written": ring.rows_written, "shards": shards}


@pytest.mark.parametrize("capacity", [100, 23])
def test_what_the_ring_held_comes_back_in_order(tmp_path, capacity):
    ring, cursor = Ring(capacity, SPACE), {"rows_written": 0, "shards": []}
    for episode, first, length in ((0, 0, 5), (0, 5, 3), (1, 0, 7), (1, 7, 2), (2, 0, 4)):
        ring.add(fragment(episode, first, length))
        cursor = save_as_version_1_did(ring, tmp_path, "online", cursor)
    moved = Ring(capacity, SPACE)
    for part in fragments(tmp_path, "online", cursor, capacity):
        moved.add(part)
    assert held(moved) == held(ring)
    assert len(held(ring)) == 21 if capacity == 100 else len(held(ring)) < 21


@pytest.mark.parametrize("killed_while_rewriting", [False, True])
def test_what_came_after_the_rewriting_outlives_a_second_resume(tmp_path, killed_while_rewriting):
    """Before the first checkpoint of this version the newest one is still of version 1."""
    checkpoint, replay = tmp_path / "trial" / "checkpoint_000000", tmp_path / "replay"
    checkpoint.mkdir(parents=True)
    replay.mkdir()
    state = {"rings": {}, "env_steps": 9, "statistics": {"human_steps": 2, "episodes": 1}}
    for name, episode in (("demo", 0), ("online", 1)):
        ring = Ring(100, SPACE)
        ring.add(fragment(episode, 0, 9))
        state["rings"][name] = save_as_version_1_did(ring, replay, name, {"rows_written": 0, "shards": []})

    def resumed():
        online, demo = Ring(100, SPACE), Ring(100, SPACE)
        experience = Experience(online, demo, replay)
        algorithm = SimpleNamespace(experience=experience, online=online, demo=demo, lockstep=False)
        _restore_rings_of_v1(algorithm, checkpoint, state)
        return experience, held(online), held(demo)

    if killed_while_rewriting:
        experience = Experience(Ring(100, SPACE), Ring(100, SPACE), replay)
        experience.add_demo(fragment(0, 0, 9))
        experience.close()
    experience, online, demo = resumed()
    assert (online, demo) == ([*range(1000, 1009)], [*range(9)])
    experience.add(fragment(2, 0, 3, flags=[0, 1, 1]), {"human_steps": 4, "episodes": 1})
    experience.close()
    experience, online, demo = resumed()
    assert (online, demo) == ([*range(1000, 1009), 2000, 2001, 2002], [*range(9), 2001, 2002])
    assert (experience.env_steps, experience.note["human_steps"]) == (12, 4)
    experience.close()


def test_a_missing_shard_is_named(tmp_path):
    cursor = {"rows_written": 6, "shards": [["online-000000000-000000006.npz", 0, 6]]}
    with pytest.raises(FileNotFoundError, match=r"online-000000000-000000006\.npz is missing"):
        list(fragments(tmp_path, "online", cursor, 100))
