"""Every way a dataset can be broken gives one error that names the file and says what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import lerobot_samples as samples
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hil_rllib.data.alignment import align
from hil_rllib.data.demos import load_demos
from hil_rllib.data.env_replay import EnvSpec
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.data.lerobot_reader import open_dataset
from hil_rllib.data.lerobot_writer import LeRobotWriter

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
PARQUET = "data/chunk-000/episode_000001.parquet"
VIDEO = "videos/chunk-000/observation.images.wrist/episode_000001.mp4"
INFO, EPISODES, TASKS = "meta/info.json", "meta/episodes.jsonl", "meta/tasks.jsonl"


def replace_text(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        text = (root / file).read_text()
        assert old in text
        (root / file).write_text(text.replace(old, new))

    return change


def cut(file: str, keep: float) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        data = (root / file).read_bytes()
        (root / file).write_bytes(data[: int(len(data) * keep)])

    return change


def pointer(file: str) -> Callable[[Path], None]:
    return lambda root: (root / file).write_text(POINTER) and None


def edit_table(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    return lambda root: pq.write_table(change(pq.read_table(root / PARQUET)), root / PARQUET)


def nan_action(table: pa.Table) -> pa.Table:
    actions = np.stack(table["action"].to_numpy())
    actions[3, 1] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(actions.ravel()), 4)
    return table.set_column(table.column_names.index("action"), "action", column)


def edit_json(file: str, **entries: object) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / file).write_text(json.dumps(json.loads((root / file).read_text()) | entries))

    return change


def timed(root: Path) -> None:
    """Gives the dataset its column of timestamps, right in episode 0 and at another rate in episode 1."""
    features = json.loads((root / INFO).read_text())["features"]
    timestamp = {"dtype": "float32", "shape": [1], "names": None}
    edit_json(INFO, features=features | {"timestamp": timestamp})(root)
    for path in sorted(root.glob("data/*/*.parquet")):
        table = pq.read_table(path)
        rate = 10 if path.stem.endswith("0") else 15
        times = pa.array(np.arange(table.num_rows) / rate, pa.float32())
        pq.write_table(table.append_column("timestamp", times), path)


CASES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no info.json": (lambda root: (root / INFO).unlink(), INFO, "holds no LeRobot dataset"),
    "broken info.json": (cut(INFO, 0.5), INFO, "not a LeRobot info file"),
    "unknown version": (replace_text(INFO, "v2.1", "v1.6"), INFO, "'v1.6'; v2.1 and v3.0 can be read"),
    "wrong entry": (replace_text(INFO, '"fps": 10', '"fps": "ten"'), INFO, "wrong type"),
    "pointer for info": (pointer(INFO), INFO, "git lfs pull"),
    "pointer for parquet": (pointer(PARQUET), PARQUET, "git lfs pull"),
    "pointer for video": (pointer(VIDEO), VIDEO, "git lfs pull"),
    "missing parquet": (lambda root: (root / PARQUET).unlink(), PARQUET, "missing"),
    "missing video": (lambda root: (root / VIDEO).unlink(), VIDEO, "missing"),
    "missing episode list": (lambda root: (root / EPISODES).unlink(), EPISODES, "not found"),
    "broken episode list": (
        replace_text(EPISODES, "length", "size"),
        EPISODES + ":1",
        "not an episode entry",
    ),
    "truncated parquet": (cut(PARQUET, 0.6), PARQUET, "perhaps cut off"),
    "truncated video": (cut(VIDEO, 0.6), VIDEO, "cannot be decoded"),
    "empty video": (cut(VIDEO, 0.0), VIDEO, "cannot be decoded"),
    "total_frames wrong": (replace_text(INFO, '"total_frames": 48', '"total_frames": 50'), INFO, "2 and 48"),
    "too many rows": (edit_table(lambda t: pa.concat_tables([t, t])), PARQUET, "48 rows of episode 1"),
    "short episode": (
        edit_table(lambda t: t.slice(0, 20)),
        PARQUET,
        "20 rows of episode 1 where meta/ says 24",
    ),
    "video too short": (
        lambda root: samples.video.encode(
            root / VIDEO, samples.smooth_frames(np.random.default_rng(), 20), 10
        ),
        VIDEO,
        "holds 20 frames",
    ),
    "video too long": (
        lambda root: samples.video.encode(
            root / VIDEO, samples.smooth_frames(np.random.default_rng(), 30), 10
        ),
        VIDEO,
        "more than 24 frames",
    ),
    "video of another size": (
        lambda root: samples.video.encode(
            root / VIDEO, samples.smooth_frames(np.random.default_rng(), 24, 64), 10
        ),
        VIDEO,
        "(64, 64)",
    ),
    "missing column": (
        edit_table(lambda t: t.drop_columns(["action"])),
        PARQUET,
        "lacks the column 'action'",
    ),
    "NaN in an action": (edit_table(nan_action), PARQUET, "'action' is NaN or infinite in 1 rows"),
    "timestamps of another rate": (timed, PARQUET, "row 1 of episode 1 has timestamp 0.0667 s"),
    "video of another rate": (
        lambda root: samples.video.encode(
            root / VIDEO, samples.smooth_frames(np.random.default_rng(), 24), 15
        ),
        VIDEO,
        "frame 1 of the episode at 0.0667 s",
    ),
    "no tasks": (lambda root: (root / TASKS).unlink(), TASKS, "not found"),
    "broken tasks": (replace_text(TASKS, "task_index", "index"), TASKS, "no table of tasks"),
    "episode listed twice": (
        replace_text(EPISODES, '"episode_index": 1', '"episode_index": 0'),
        EPISODES,
        "episode 0 is listed twice",
    ),
    "no episodes a folder": (edit_json(INFO, chunks_size=0), INFO, "must be above 0"),
    "path pattern of another version": (
        edit_json(INFO, data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"),
        INFO,
        "no path pattern of v2.1",
    ),
    "7-D action": (
        replace_text(
            INFO, '"action": {"dtype": "float32", "shape": [4]', '"action": {"dtype": "float32", "shape": [7]'
        ),
        INFO,
        "(4,) fits",
    ),
    "no reward": (replace_text(INFO, "next.reward", "reward"), INFO, "no feature 'next.reward'"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return samples.write_v21(tmp_path_factory.mktemp("sound") / "set")


def copy_of(dataset: Path, to: Path) -> Path:
    for file in dataset.rglob("*"):
        if file.is_file():
            target = to / file.relative_to(dataset)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return to


@pytest.mark.parametrize("case", CASES)
def test_broken_dataset_is_named(case: str, sound: Path, tmp_path: Path):
    breaking, file, words = CASES[case]
    root = copy_of(sound, tmp_path / "set")
    breaking(root)
    with pytest.raises(DatasetError) as error:
        align(open_dataset(str(root)), frames=True)
    assert str(error.value).startswith(str(root / file)), error.value
    assert words in str(error.value)
    assert error.value.remedy in str(error.value)
    assert error.value.remedy.endswith(".")


def test_sound_dataset_is_read_whole(sound: Path):
    demos, report = align(open_dataset(str(sound)), frames=True)
    assert [len(demo) for demo in demos] == [23, 23]
    assert report.shifted
    assert all(demo.frames is not None and demo.frames["wrist"].shape == (24, 128, 128, 3) for demo in demos)


@pytest.mark.parametrize("path", ["/no/such/folder", "not_a_folder"])
def test_missing_folder_is_named_and_the_hub_not_asked(path: str):
    with pytest.raises(DatasetError, match=f"{path}.*owner/name"):
        open_dataset(path)


def test_episode_that_is_not_there_is_named(sound: Path):
    with pytest.raises(DatasetError, match="0 to 1, and no episode 5"):
        align(open_dataset(str(sound)), episodes=[0, 5])


def test_recording_without_finished_episode_says_so(tmp_path: Path):
    LeRobotWriter(tmp_path / "set", cameras=())
    with pytest.raises(DatasetError, match="finished no episode"):
        open_dataset(str(tmp_path / "set"))


def test_info_of_v30_that_promises_more_than_there_is_is_refused(tmp_path: Path):
    states, actions = samples.env_episode(np.random.default_rng(0))
    writer = LeRobotWriter(tmp_path, cameras=(), environment_state=False)
    for state, action in zip(states, actions, strict=False):
        writer.add_step(
            {"agent_pos": state}, action, reward=0, terminated=False, truncated=False, success=False
        )
    writer.end_episode()
    info = json.loads((tmp_path / INFO).read_text())
    (tmp_path / INFO).write_text(json.dumps(info | {"total_episodes": 2}))
    with pytest.raises(DatasetError, match="says 2 episodes"):
        open_dataset(str(tmp_path))


def test_chosen_episodes_are_read_where_the_others_contradict_them(sound: Path, tmp_path: Path):
    def backwards(table: pa.Table) -> pa.Table:
        actions = np.stack(table["action"].to_numpy()) * np.float32([-1, -1, -1, 1])
        column = pa.FixedSizeListArray.from_arrays(pa.array(actions.ravel()), 4)
        return table.set_column(table.column_names.index("action"), "action", column)

    root = copy_of(sound, tmp_path / "set")
    edit_table(backwards)(root)
    (demo,), report = align(open_dataset(str(root)), episodes=[0])
    (whole, _), _ = align(open_dataset(str(sound)))
    assert report.episodes == 1
    np.testing.assert_array_equal(demo.actions, whole.actions)
    for chosen in (None, [1]):
        with pytest.raises(DatasetError, match="choose episodes in which the hand moves freely"):
            align(open_dataset(str(root)), episodes=chosen)


@pytest.mark.parametrize("case", ["NaN in an action", "truncated parquet", "missing column"])
@pytest.mark.parametrize("chosen", [1, [0]])
def test_a_damaged_episode_that_is_not_asked_for_does_no_harm(
    case: str, chosen: int | list[int], sound: Path, tmp_path: Path
):
    breaking, file, _ = CASES[case]
    root = copy_of(sound, tmp_path / "set")
    breaking(root)
    options = {"env": EnvSpec(), "image_obs": True, "cache_dir": tmp_path}
    (demo,) = load_demos(str(root), episodes=chosen, **options).demos
    (whole, _), _ = align(open_dataset(str(sound)))
    np.testing.assert_array_equal(demo.actions, whole.actions)
    with pytest.raises(DatasetError, match=re.escape(file)):
        load_demos(str(root), **options)
