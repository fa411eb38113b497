"""A recording on a disk that fills up: what was finished stays whole, and it goes on once there is room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from full_disk import small_disk

from hil_rllib.data.lerobot_reader import open_dataset
from hil_rllib.data.lerobot_writer import LeRobotWriter

STEPS, SIZE = 6, 48


def record(writer: LeRobotWriter, number: int) -> int:
    """One episode whose actions are its number; its index."""
    writer.discard_episode()  # what a failed attempt left
    frame = np.random.default_rng(number).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    for step in range(STEPS):
        last = step == STEPS - 1
        observation = {"agent_pos": np.full(18, step), "pixels": {"front": frame}}
        writer.add_step(
            observation, np.full(4, number), reward=last, terminated=last, truncated=False, success=last
        )
    return writer.end_episode(seed=number)


def test_a_full_disk_costs_the_episode_that_does_not_fit_and_no_other(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=4) as disk:
        root = disk.folder / "set"
        writer = LeRobotWriter(root, cameras=("front",), environment_state=False, image_size=(SIZE, SIZE))
        kept, failed = [], 0
        for number in range(24):  # it gets full at another file of an episode each time
            disk.leave(number * 8192)
            try:
                record(writer, number)
            except OSError:
                failed += 1
            else:
                kept.append(number)
            disk.make_room()
            dataset = open_dataset(str(root)) if kept else None
            read = [int(e.column("action")[0, 0]) for e in dataset.read(frames=True)] if dataset else []
            missing = [n for n in kept if n not in read]
            assert not missing, (number, read)
            assert not list(root.rglob("*.tmp"))
        writer.close()
        assert failed >= 5
        assert len(kept) >= 3
        record(LeRobotWriter(root, cameras=("front",), environment_state=False, image_size=(SIZE, SIZE)), 100)
        last = list(open_dataset(str(root)).read(frames=True))[-1]
        np.testing.assert_array_equal(last.column("action"), np.full((STEPS, 4), 100.0))


def test_a_full_disk_is_told_by_name(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=1) as disk:
        disk.leave(0)
        with pytest.raises(OSError, match="No space left"):
            LeRobotWriter(disk.folder / "set", cameras=(), environment_state=False)
