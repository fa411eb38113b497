"""A dataset taken back to its first episodes, and on from there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hil_rllib.data import lerobot_drop
from hil_rllib.data.lerobot_drop import count_episodes, drop_episodes
from hil_rllib.data.lerobot_reader import open_dataset
from hil_rllib.data.lerobot_writer import LeRobotWriter

STEPS, SIZE = 5, 48


def record(root: Path, *numbers: int) -> None:
    """Episodes whose actions and frames are their number."""
    writer = LeRobotWriter(root, cameras=("front",), environment_state=False, image_size=(SIZE, SIZE))
    for number in numbers:
        frame = np.full((SIZE, SIZE, 3), 20 * number, np.uint8)
        for step in range(STEPS):
            observation = {"agent_pos": np.full(18, step), "pixels": {"front": frame}}
            last = step == STEPS - 1
            writer.add_step(
                observation, np.full(4, number), reward=last, terminated=last, truncated=False, success=last
            )
        writer.end_episode()


def numbers(root: Path) -> list[tuple[int, int]]:
    """Of the episodes, by their actions and by their frames."""
    episodes = open_dataset(str(root)).read(frames=True)
    return [(int(e.column("action")[0, 0]), round(e.frames["front"].mean() / 20)) for e in episodes]


def test_what_was_dropped_leaves_no_trace_and_recording_goes_on(tmp_path: Path) -> None:
    taken_back, straight = tmp_path / "taken_back", tmp_path / "straight"
    record(taken_back, 1, 2, 3, 4, 5)
    assert count_episodes(taken_back) == 5
    assert drop_episodes(taken_back, 2) == 3
    assert numbers(taken_back) == [(1, 1), (2, 2)]
    assert json.loads((taken_back / "meta" / "info.json").read_text())["total_episodes"] == 2
    record(taken_back, 6, 7)
    record(straight, 1, 2, 6, 7)
    assert numbers(taken_back) == numbers(straight) == [(1, 1), (2, 2), (6, 6), (7, 7)]
    there = [sorted(f.relative_to(root) for f in root.rglob("*")) for root in (taken_back, straight)]
    assert there[0] == there[1]
    for name in ("stats.json", "info.json"):
        assert (taken_back / "meta" / name).read_text() == (straight / "meta" / name).read_text()


def test_counting_leaves_a_recording_under_way_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record(tmp_path, 1)
    unfinished = tmp_path / "data" / ".file-001.parquet.tmp"
    unfinished.touch()
    with caplog.at_level("INFO"):
        assert count_episodes(tmp_path) == 1
    assert unfinished.exists()
    assert not caplog.records
    record(tmp_path, 2)  # whoever records has the folder to themselves
    assert not unfinished.exists()


def test_without_any_left_it_is_gone(tmp_path: Path) -> None:
    root = tmp_path / "set"
    assert (count_episodes(root), drop_episodes(root, 0)) == (0, 0)
    record(root, 1, 2)
    assert drop_episodes(root, 2) == 0
    assert drop_episodes(root, 0) == 2
    assert not root.exists()


def test_a_kill_amid_it_leaves_a_whole_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, unlink = tmp_path / "set", Path.unlink
    record(root, 1, 2, 3, 4)
    for removals in (1, 2, 1):  # before each kill; an episode is three files
        removed: list[Path] = []

        def killed(path: Path, missing_ok: bool = False, *, so_far=removed, most=removals) -> None:
            if len(so_far) == most:
                raise KeyboardInterrupt
            so_far.append(path)
            unlink(path, missing_ok)

        monkeypatch.setattr(lerobot_drop.Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            drop_episodes(root, 1)
        monkeypatch.undo()
        there = numbers(root)
        assert there == [(n, n) for n in range(1, len(there) + 1)]
    drop_episodes(root, 1)
    record(root, 9)
    assert numbers(root) == [(1, 1), (9, 9)]
