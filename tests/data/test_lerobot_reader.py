"""Datasets in every layout the formats allow give the same episodes: rotating files, images, other names."""

from __future__ import annotations

import io
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import av
import lerobot_samples as samples
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hil_rllib.data import video
from hil_rllib.data.alignment import align
from hil_rllib.data.lerobot_copy import Source, copy_datasets
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.data.lerobot_reader import LeRobotDataset, open_dataset

FRONT, WRIST = "observation.images.front", "observation.images.wrist"


def same(one: LeRobotDataset, other: LeRobotDataset) -> None:
    for a, b in zip(one.read(frames=True), other.read(frames=True), strict=True):
        assert a.columns.keys() <= b.columns.keys()  # v3.0 adds index columns that v2.1 may lack
        for key in a.columns:
            np.testing.assert_array_equal(a.columns[key], b.columns[key], err_msg=key)
        assert a.frames.keys() == b.frames.keys()
        for camera in a.frames:
            np.testing.assert_array_equal(a.frames[camera], b.frames[camera], err_msg=camera)


def rotated(source: Path, to: Path) -> Path:
    """A v3.0 copy with data of episodes 0-2 and 3-4 in two files, wrist videos of 0-3 and 4 in two others,
    and one front video for all, in a chunk of its own."""
    copy_datasets([Source(open_dataset(str(source)))], to)
    dataset = open_dataset(str(to))
    episodes = list(dataset.read(frames=True))
    table = pq.read_table(to / "meta/episodes/chunk-000/file-000.parquet")
    entries = table.to_pylist()
    tables = [dataset.table(e.meta) for e in episodes]
    for old in (*to.glob("data/*/*"), *to.glob("videos/*/*/*")):
        old.unlink()
    for number, part in enumerate(([0, 1, 2], [3, 4])):
        pq.write_table(
            pa.concat_tables([tables[i] for i in part]), to / f"data/chunk-000/file-00{number}.parquet"
        )
        for i in part:
            entries[i] |= {"data/chunk_index": 0, "data/file_index": number}
    for key, camera, parts, chunk in (
        (WRIST, "wrist", ([0, 1, 2, 3], [4]), 0),
        (FRONT, "front", ([0, 1, 2, 3, 4],), 1),
    ):
        for number, part in enumerate(parts):
            path = to / f"videos/{key}/chunk-00{chunk}/file-00{number}.mp4"
            path.parent.mkdir(exist_ok=True)
            video.encode(path, np.concatenate([episodes[i].frames[camera] for i in part]), fps=10)
            start = 0
            for i in part:
                entries[i] |= {f"videos/{key}/chunk_index": chunk, f"videos/{key}/file_index": number}
                entries[i] |= {f"videos/{key}/from_timestamp": start / 10}
                start += len(episodes[i])
    pq.write_table(
        pa.Table.from_pylist(entries, table.schema), to / "meta/episodes/chunk-000/file-000.parquet"
    )
    return to


def test_data_and_video_files_that_rotate_independently(tmp_path: Path) -> None:
    source = samples.write_v21(tmp_path / "v21", episodes=5, steps=20, size=64)
    dataset = open_dataset(str(rotated(source, tmp_path / "v30")))
    original = open_dataset(str(source))
    for one, other in zip(dataset.read(frames=True), original.read(frames=True), strict=True):
        np.testing.assert_array_equal(one.column("action"), other.column("action"))
        for camera in ("front", "wrist"):  # coded twice: close to its own frames, far from any others
            difference = np.abs(one.frames[camera].astype(int) - other.frames[camera]).mean(axis=(1, 2, 3))
            assert difference.max() < 2
            assert np.abs(one.frames[camera][1:].astype(int) - other.frames[camera][:-1]).mean() > 4
    again = list(dataset.read([4, 1], frames=True))  # in any order
    assert [episode.meta.index for episode in again] == [4, 1]


def test_copy_holds_the_same_and_codes_no_video_again(tmp_path: Path) -> None:
    source = samples.write_v21(tmp_path / "v21", episodes=3, size=64)
    assert copy_datasets([Source(open_dataset(str(source)))], tmp_path / "v30") == (3, 72)
    same(open_dataset(str(source)), open_dataset(str(tmp_path / "v30")))
    old = {path.read_bytes() for path in source.rglob("*.mp4")}
    assert {path.read_bytes() for path in (tmp_path / "v30").rglob("*.mp4")} == old


def png(image: np.ndarray) -> bytes:
    target = io.BytesIO()
    with av.open(target, "w", format="image2pipe") as container:
        stream: Any = container.add_stream("png", rate=1)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return target.getvalue()


def as_images(root: Path) -> Path:
    """Turns the wrist's videos into images inside the data files."""
    for episode in open_dataset(str(root)).read(frames=True):
        table = pq.read_table(episode.meta.data_path)
        images = [{"bytes": png(image), "path": None} for image in episode.frames["wrist"]]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        pq.write_table(table.append_column(WRIST, pa.array(images, kind)), episode.meta.data_path)
        episode.meta.videos["wrist"].path.unlink()
    file = root / "meta/info.json"
    info = json.loads(file.read_text())
    info["features"][WRIST]["dtype"] = "image"
    file.write_text(json.dumps(info))
    return root


def test_images_kept_in_the_data_files_read_as_the_videos_they_replace(tmp_path: Path) -> None:
    source = samples.write_v21(tmp_path / "videos", size=64)
    # A copy: x264 does not code the same frames to the same bytes every time.
    images = as_images(Path(shutil.copytree(source, tmp_path / "images")))
    same(open_dataset(str(source)), open_dataset(str(images)))
    copy_datasets([Source(open_dataset(str(images)))], tmp_path / "v30")
    same(open_dataset(str(source)), open_dataset(str(tmp_path / "v30")))

    path = images / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(path)
    rows = table[WRIST].to_pylist()
    rows[2]["bytes"] = rows[2]["bytes"][:40]
    at = table.column_names.index(WRIST)
    pq.write_table(table.set_column(at, WRIST, pa.array(rows, table[WRIST].type)), path)
    with pytest.raises(DatasetError, match=r"episode_000001.parquet: image 2 of column .*wrist"):
        list(open_dataset(str(images)).read(frames=True))


def test_features_under_other_names_are_mapped(tmp_path: Path) -> None:
    root = samples.write_v21(tmp_path / "set", size=64)
    expected, _ = align(open_dataset(str(root)), frames=True)
    file = root / "meta/info.json"
    file.write_text(
        file.read_text().replace(FRONT, "observation.images.top").replace('"action"', '"command"')
    )
    for folder in root.glob(f"videos/*/{FRONT}"):
        folder.rename(folder.with_name("observation.images.top"))
    for path in root.rglob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(
            table.rename_columns([n.replace("action", "command") for n in table.column_names]), path
        )

    with pytest.raises(DatasetError, match="no feature 'action'"):
        align(open_dataset(str(root)))
    names = {"observation.images.top": "front", "command": "action"}
    dataset = open_dataset(str(root), features=names)
    assert dataset.cameras == ("front", "wrist")
    found, _ = align(dataset, frames=True)
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_array_equal(got.actions, want.actions)
        np.testing.assert_array_equal(got.frames["front"], want.frames["front"])
    with pytest.raises(DatasetError, match=r"no feature 'observation\.images\.side' to rename; it has"):
        open_dataset(str(root), features={"observation.images.side": "front"})
    with pytest.raises(DatasetError, match=r"would both be 'observation\.images\.wrist'"):
        open_dataset(str(root), features={"observation.images.top": "wrist"})


def test_frames_of_another_size_are_resized_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    root = samples.write_v21(tmp_path / "set", size=96)
    dataset = open_dataset(str(root))
    demos, _ = align(dataset, frames=True, image_size=32)
    assert demos[0].frames["front"].shape == (24, 32, 32, 3)
    (native, _) = dataset.read(frames=True)
    boxes = native.frames["front"].reshape(24, 32, 3, 32, 3, 3).mean(axis=(2, 4))
    assert np.abs(boxes - demos[0].frames["front"]).mean() < 1.5
    list(dataset.read(frames=True, size=(32, 32)))
    said = [r.getMessage() for r in caplog.records if "resized" in r.getMessage()]
    assert len(said) == 1
    assert "front 96x96" in said[0]


def test_reading_runs_ahead_by_no_more_episodes_than_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(str(samples.write_v21(tmp_path / "set", episodes=8, steps=20, size=16)))
    begun: list[int] = []
    rows = dataset._rows
    monkeypatch.setattr(dataset, "_rows", lambda meta: begun.append(meta.index) or rows(meta))
    for number, _ in enumerate(dataset.read(frames=True, workers=2)):
        assert max(begun) <= number + 2
