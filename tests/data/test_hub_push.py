"""What is pushed to a hub can be opened from there, by name and revision; without a login nothing is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_hub import Hub, serving
from test_lerobot_writer import record

from hil_rllib import dataset as dataset_command
from hil_rllib import record as record_command
from hil_rllib.data.hub_push import push
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.data.lerobot_reader import open_dataset
from hil_rllib.data.lerobot_writer import LeRobotWriter

NAME = "me/my-demos"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub(token="hf_secret")
    with serving(hub) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield hub


def recorded(folder: Path, episodes: int) -> Path:
    with LeRobotWriter(folder) as writer:
        while writer.episodes < episodes:
            record(writer, seed=writer.episodes, steps=6)
            writer.end_episode()
    return folder


def test_pushed_dataset_opens_by_name_and_revision(hub: Hub, tmp_path: Path) -> None:
    folder = recorded(tmp_path / "set", 1)
    with LeRobotWriter(folder):  # it goes on being recorded
        (folder / "data" / ".file-001.parquet.tmp").write_bytes(b"half a file")
        push(folder, NAME, private=True)
    assert hub.private == {NAME}
    once = hub.refs[NAME]["main"]
    push(recorded(folder, 2), NAME)

    first = open_dataset(NAME, cache_dir=tmp_path / "cache", revision=once)
    both = open_dataset(NAME, cache_dir=tmp_path / "cache")
    assert (len(first), len(both)) == (1, 2)
    for there, here in zip(both.read(frames=True), open_dataset(str(folder)).read(frames=True), strict=True):
        np.testing.assert_array_equal(there.column("action"), here.column("action"))
        np.testing.assert_array_equal(there.frames["wrist"], here.frames["wrist"])
    files = hub.commits[hub.refs[NAME]["main"]]
    assert b"LeRobot" in files["README.md"]
    assert b"license" not in files["README.md"]  # the owner's to choose
    first_files = hub.commits[once]
    assert not [path for path in (*files, *first_files) if path.endswith((".tmp", ".lock"))]
    assert hub.refs[NAME]["v3.0"] == hub.refs[NAME]["main"] != once  # LeRobot loads the tag of its version
    with pytest.raises(DatasetError, match="has no revision 'three'"):
        open_dataset(NAME, cache_dir=tmp_path / "cache", revision="three")


def test_a_second_push_leaves_nothing_of_the_first_but_the_owners_card(hub: Hub, tmp_path: Path) -> None:
    first = tmp_path / "first"
    for _ in range(4):  # each a file of its own, as recordings that go on write them
        with LeRobotWriter(first) as writer:
            record(writer, seed=writer.episodes, steps=6)
            writer.end_episode()
    push(first, NAME)
    card = {"README.md": b"license: apache-2.0, written on the hub's page"}
    hub.commit(NAME, "main", card | {"notes.txt": b"mine"}, set())
    chosen = tmp_path / "chosen"
    assert (
        dataset_command.main(["convert", str(first), str(chosen), "--episodes", "0-2", "--push", NAME]) == 0
    )

    there, here = open_dataset(NAME, cache_dir=tmp_path / "cache"), open_dataset(str(chosen))
    assert len(there) == len(here) == 3
    files = hub.commits[hub.refs[NAME]["main"]]
    local = {path.relative_to(chosen).as_posix() for path in chosen.rglob("*") if path.is_file()}
    assert set(files) - {"README.md", "notes.txt", ".gitattributes"} == local - {".lock"}
    assert files["README.md"] == card["README.md"]


def test_what_is_recorded_can_be_pushed_at_once(hub: Hub, tmp_path: Path) -> None:
    options = ["--episodes", "1", "--device", "scripted", "--no-images", "--hz", "0", "--push", NAME]
    assert record_command.main([str(tmp_path / "mine"), *options, "--private"]) == 0
    assert hub.private == {NAME}
    (there,) = open_dataset(NAME, cache_dir=tmp_path / "cache").read()
    (here,) = open_dataset(str(tmp_path / "mine")).read()
    np.testing.assert_array_equal(there.column("action"), here.column("action"))


def test_push_without_leave_says_how_to_log_in(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = recorded(tmp_path / "set", 1)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(DatasetError, match=r"me/my-demos.*hf auth login"):
        push(folder, NAME)
    assert not hub.refs


def test_what_could_not_be_pushed_is_whole_and_pushed_by_the_command_that_is_told(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, copy = recorded(tmp_path / "set", 1), tmp_path / "copy"
    with monkeypatch.context() as patched:
        patched.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
        arguments = ["convert", str(first), str(copy), "--push", NAME, "--private"]
        assert dataset_command.main(arguments) == 2
    told = f"python -m hil_rllib.dataset push {copy} {NAME} --private"
    assert told in capsys.readouterr().err
    assert dataset_command.main(told.split()[3:]) == 0
    assert hub.private == {NAME}
    assert len(open_dataset(NAME, cache_dir=tmp_path / "cache")) == 1


def test_damaged_dataset_is_not_pushed(hub: Hub, tmp_path: Path) -> None:
    folder = recorded(tmp_path / "set", 1)
    next(folder.rglob("file-000.mp4")).unlink()
    with pytest.raises(DatasetError, match="missing"):
        push(folder, NAME)
    assert not hub.refs
