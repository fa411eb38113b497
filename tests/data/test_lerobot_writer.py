"""What the writer writes, the reader gives back; a killed recording keeps every finished episode."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import lerobot_samples as samples
import numpy as np
import pyarrow.parquet as pq
import pytest

from hil_rllib.data import lerobot_format as fmt
from hil_rllib.data import lerobot_writer
from hil_rllib.data.alignment import align
from hil_rllib.data.dataset_lock import LOCK_FILE
from hil_rllib.data.lerobot_drop import drop_episodes
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.data.lerobot_reader import open_dataset
from hil_rllib.data.lerobot_writer import LeRobotWriter

Recorded = list[tuple[list[dict[str, Any]], np.ndarray]]


def record(writer: LeRobotWriter, seed: int, steps: int = 24, terminated: bool = True) -> Recorded:
    """Adds one made-up episode (not ended) and returns it as [(observations, actions)]."""
    rng = np.random.default_rng(seed)
    states, actions = samples.env_episode(rng, steps)
    frames = {camera: samples.smooth_frames(rng, steps) for camera in ("front", "wrist")}
    cube = rng.normal(size=(steps, 3)).astype(np.float32)
    observations = []
    for t in range(steps):
        last = t == steps - 1
        observation = {
            "agent_pos": states[t].astype(np.float32),
            "environment_state": cube[t],
            "pixels": {camera: frames[camera][t] for camera in frames},
        }
        observations.append(observation)
        writer.add_step(
            observation,
            actions[t].astype(np.float32),
            reward=float(last and terminated),
            terminated=last and terminated,
            truncated=last and not terminated,
            success=last and terminated,
            penalty=-0.02 * (t % 2),
            intervention=t % 3 == 0,
        )
    return [(observations, actions.astype(np.float32))]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def test_round_trip_is_exact_in_numbers_and_close_in_frames(tmp_path: Path):
    with LeRobotWriter(tmp_path) as writer:
        written: Recorded = []
        for seed, terminated in ((0, True), (1, False), (2, True)):
            written += record(writer, seed, steps=20 + seed, terminated=terminated)
            writer.end_episode(seed=seed)

    demos, report = align(open_dataset(str(tmp_path)), frames=True)

    assert not report.shifted
    assert report.motion_unit == "[-1, 1]"
    assert [demo.terminated[-1] for demo in demos] == [True, False, True]
    for demo, (observations, actions) in zip(demos, written, strict=True):
        # A truncated episode loses its last transition; a terminated one repeats its last observation.
        assert len(demo) == len(actions) - (not demo.terminated[-1])
        np.testing.assert_array_equal(demo.actions, actions[: len(demo)])
        for t, observation in enumerate(observations[: len(demo)]):
            np.testing.assert_array_equal(demo.agent_pos[t], observation["agent_pos"])
            np.testing.assert_array_equal(demo.environment_state[t], observation["environment_state"])
        for camera in ("front", "wrist"):
            pictures = np.stack([o["pixels"][camera] for o in observations])[: len(demo)]
            assert psnr(demo.frames[camera][: len(demo)], pictures) >= 35
        np.testing.assert_allclose(demo.penalties, [-0.02 * (t % 2) for t in range(len(demo))])
        np.testing.assert_array_equal(demo.interventions, [t % 3 == 0 for t in range(len(demo))])
        assert demo.rewards.sum() == demo.terminated[-1]


def test_files_are_as_lerobot_v30_wants_them(tmp_path: Path):
    with LeRobotWriter(tmp_path) as writer:
        for seed in range(2):
            record(writer, seed)
            writer.end_episode(seed=seed)
    info = json.loads((tmp_path / "meta/info.json").read_text())
    assert (info["codebase_version"], info["total_episodes"], info["total_frames"]) == ("v3.0", 2, 48)
    data = pq.read_table(tmp_path / "data/chunk-000/file-001.parquet")
    assert data["index"].to_pylist() == list(range(24, 48))
    assert data["timestamp"].to_numpy()[3] == np.float32(0.3)
    assert data.schema.field("observation.state").type.list_size == 18
    tasks = pq.read_table(tmp_path / "meta/tasks.parquet").to_pandas()
    assert tasks.index.name == "task"
    assert tasks.loc["Pick up the cube", "task_index"] == 0
    row = pq.read_table(tmp_path / "meta/episodes/chunk-000/file-001.parquet").to_pylist()[0]
    assert row["dataset_from_index"] == 24
    assert row["seed"] == 1
    assert row["data/file_index"] == 1
    assert row["videos/observation.images.front/to_timestamp"] == pytest.approx(2.4)
    stats = json.loads((tmp_path / "meta/stats.json").read_text())
    rows = np.concatenate(
        [np.stack(e.column("observation.state")) for e in open_dataset(str(tmp_path)).read()]
    ).astype(np.float64)
    np.testing.assert_allclose(stats["observation.state"]["mean"], rows.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(stats["observation.state"]["std"], rows.std(axis=0), atol=1e-5)
    assert np.shape(stats["observation.images.front"]["std"]) == (3, 1, 1)
    assert 0 < stats["observation.images.front"]["mean"][0][0][0] < 1
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("completed_files", range(6))  # two videos, data, episode table, statistics, info
def test_kill_while_an_episode_is_written_keeps_those_before(
    completed_files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    writer = LeRobotWriter(tmp_path)
    (kept,) = record(writer, 0)
    writer.end_episode()
    record(writer, 1)
    commit, done = lerobot_writer._commit, []

    def killed(path: Path, write: Any) -> None:
        if len(done) == completed_files:
            write(path.with_name(f".{path.name}.tmp"))  # the temporary file stays, as after a kill
            raise KeyboardInterrupt
        done.append(path)
        commit(path, write)

    monkeypatch.setattr(lerobot_writer, "_commit", killed)
    with pytest.raises(KeyboardInterrupt):
        writer.end_episode()
    monkeypatch.undo()
    writer._lock.release()  # as the kernel does

    first, *rest = open_dataset(str(tmp_path)).read(frames=True)
    np.testing.assert_array_equal(first.column("action"), kept[1])
    assert len(rest) == (completed_files >= 4)  # the episode's table makes it exist
    assert open_dataset(str(tmp_path)).info.in_our_terms

    with LeRobotWriter(tmp_path) as again:  # carries on where the finished episodes end
        record(again, 2)
        assert again.end_episode() == 1 + len(rest)
    demos, _ = align(open_dataset(str(tmp_path)), frames=True)
    assert len(demos) == 2 + len(rest)
    assert open_dataset(str(tmp_path)).info.in_our_terms


def test_a_recording_of_a_hand_that_cannot_move_is_read_as_it_was_written(tmp_path: Path):
    actions = np.float32([[0, 0, -1, 1]] * 20)
    with LeRobotWriter(tmp_path, cameras=(), environment_state=False) as writer:
        for t, action in enumerate(actions):
            writer.add_step(
                {"agent_pos": np.zeros(18)},
                action,
                reward=0,
                terminated=False,
                truncated=t == 19,
                success=False,
            )
        writer.end_episode()
    (demo,), report = align(open_dataset(str(tmp_path)))
    assert report.stated
    np.testing.assert_array_equal(demo.actions, actions[:-1])


@pytest.mark.parametrize("stated", [None, 1])  # by an earlier version of ours; of one, then LeRobot added one
def test_rows_that_others_wrote_are_never_stated_to_be_in_our_terms(stated: int | None, tmp_path: Path):
    file = tmp_path / "meta/info.json"
    with LeRobotWriter(tmp_path) as writer:
        for seed in range(2):
            record(writer, seed)
            writer.end_episode()
    info = json.loads(file.read_text())
    assert info.pop(fmt.STATEMENT) == fmt.statement(2)
    file.write_text(json.dumps(info if stated is None else info | {fmt.STATEMENT: fmt.statement(stated)}))
    assert not open_dataset(str(tmp_path)).info.in_our_terms
    with LeRobotWriter(tmp_path) as writer:
        record(writer, 2)
        writer.end_episode()
    assert fmt.STATEMENT not in json.loads(file.read_text())
    report = align(open_dataset(str(tmp_path)))[1]
    assert (report.shifted, report.stated) == (False, False)


def test_discarded_episode_leaves_no_trace(tmp_path: Path):
    with LeRobotWriter(tmp_path) as writer:
        record(writer, 0)
        writer.discard_episode()
        (kept,) = record(writer, 1)
        writer.end_episode()
    (episode,) = open_dataset(str(tmp_path)).read()
    np.testing.assert_array_equal(episode.column("action"), kept[1])


def test_dataset_with_other_features_is_not_continued(tmp_path: Path):
    with LeRobotWriter(tmp_path, cameras=("front",)) as writer:
        record(writer, 0)
        writer.end_episode()
    with pytest.raises(DatasetError, match="Record into another folder") as error:
        LeRobotWriter(tmp_path, cameras=("front", "wrist"))
    there, here = str(error.value).split("this recording has")
    assert "observation.images.front" not in there + here  # only what differs
    assert "observation.images.wrist" not in there
    assert "observation.images.wrist video(128, 128, 3)" in here
    with pytest.raises(DatasetError, match="at 10 frames a second; this recording at 20"):
        LeRobotWriter(tmp_path, cameras=("front",), fps=20)
    with pytest.raises(DatasetError, match="'Stack'"):
        LeRobotWriter(tmp_path, cameras=("front",), task="Stack")


HOLD = """
import sys, time
from pathlib import Path
from hil_rllib.data.lerobot_writer import LeRobotWriter
writer = LeRobotWriter(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_writer_is_told_who_writes_and_touches_nothing_and_a_killed_one_does_no_more(tmp_path: Path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    unfinished = tmp_path / "data" / ".file-000.parquet.tmp"
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        unfinished.parent.mkdir()
        unfinished.touch()
        who = f"is being written by process {holder.pid} on {socket.gethostname()} since 20"
        with pytest.raises(DatasetError, match=rf"{who}.* record into another folder\."):
            LeRobotWriter(tmp_path, wait_s=0.2)
        assert unfinished.exists()
    finally:
        holder.kill()
        holder.wait()
    for seed in range(2):
        with LeRobotWriter(tmp_path) as writer:
            record(writer, seed)
            assert writer.end_episode() == seed
    assert not unfinished.exists()
    assert not (tmp_path / LOCK_FILE).exists()


def test_writers_that_take_turns_keep_all_episodes(tmp_path: Path):
    first = LeRobotWriter(tmp_path)
    record(first, 0)
    first.end_episode()
    with pytest.raises(DatasetError, match=f"is being written by process {os.getpid()} "):
        LeRobotWriter(tmp_path)
    with pytest.raises(DatasetError, match="is being written by"):
        drop_episodes(tmp_path, 0)
    first.close()
    with LeRobotWriter(tmp_path) as second:
        record(second, 1)
        assert second.end_episode() == 1
    assert len(open_dataset(str(tmp_path))) == 2


def test_statistics_go_on_where_only_stats_json_has_them(tmp_path: Path):
    with LeRobotWriter(tmp_path) as writer:
        record(writer, seed=0, steps=12)
        writer.end_episode()
    file = tmp_path / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    pq.write_table(table.select([name for name in table.column_names if "stats/" not in name]), file)
    for seed in (1, 2):
        with LeRobotWriter(tmp_path) as writer:
            record(writer, seed=seed, steps=6)
            writer.end_episode()
    stats = json.loads((tmp_path / "meta/stats.json").read_text())
    assert stats["action"]["count"] == [12 + 6 + 6]
    rows = np.concatenate([e.column("action") for e in open_dataset(str(tmp_path)).read()])
    np.testing.assert_allclose(stats["action"]["mean"], rows.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_step_of_another_shape_is_refused(tmp_path: Path):
    writer = LeRobotWriter(tmp_path, cameras=(), environment_state=False)
    with pytest.raises(ValueError, match=r"action of this step has shape \(7,\); the dataset holds \[4\]"):
        writer.add_step(
            {"agent_pos": np.zeros(18)},
            np.zeros(7),
            reward=0,
            terminated=False,
            truncated=False,
            success=False,
        )
