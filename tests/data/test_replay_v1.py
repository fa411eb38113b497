"""Rings that a release with checkpoints of version 1 left on disk."""

from __future__ import annotations

import numpy as np
import pytest
from ring_parts import SPACE, fragment, held

from hil_rllib.data.replay import Ring, flat
from hil_rllib.data.replay_v1 import START, fragments


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


def test_a_missing_shard_is_named(tmp_path):
    cursor = {"rows_written": 6, "shards": [["online-000000000-000000006.npz", 0, 6]]}
    with pytest.raises(FileNotFoundError, match=r"online-000000000-000000006\.npz is missing"):
        list(fragments(tmp_path, "online", cursor, 100))
