"""Whatever is done to a dataset's files, reading it gives the same data or one error that names a file."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import lerobot_samples as samples
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from hil_rllib.data.alignment import align
from hil_rllib.data.lerobot_copy import Source, copy_datasets
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.data.lerobot_reader import open_dataset

Damage = Callable[[Path, Random], str]


def cut(root: Path, chance: Random) -> str:
    """Any file ends early."""
    file = chance.choice([f for f in sorted(root.rglob("*")) if f.is_file() and f.name != "stats.json"])
    data = file.read_bytes()
    keep = chance.randrange(len(data))
    file.write_bytes(data[:keep])
    return f"{file.relative_to(root)} cut to {keep} of {len(data)} bytes"


def change_entry(root: Path, chance: Random) -> str:
    """Any entry of info.json, at any depth, goes or becomes something else."""
    file = root / "meta/info.json"
    info = json.loads(file.read_text())
    entries: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node if isinstance(node, dict) else range(len(node))):
            entries.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])

    walk(info)
    node, key = chance.choice(entries)
    values: list[Any] = [None, -1, 0, 7, 1e9, "", "nonsense", [], {}, [1, 2, 3, 4], True]
    new = chance.choice(values)
    said = f"info.json: {key!r} from {node[key]!r} to {new!r}"
    node[key] = new
    file.write_text(json.dumps(info))
    return said


def change_table(root: Path, chance: Random) -> str:
    """Any column of any parquet file goes, changes type or loses values; or rows go or come twice."""
    file = chance.choice(sorted(root.rglob("*.parquet")))
    table = pq.read_table(file)
    name = chance.choice([n for n in table.column_names if not n.startswith("stats/")])
    column = table[name]
    kind = chance.choice(["drop", "text", "nulls", "shift", "fewer rows", "more rows"])
    at = table.column_names.index(name)
    if kind == "drop":
        table = table.drop_columns([name])
    elif kind == "text":
        table = table.set_column(at, name, pa.array(["x"] * table.num_rows))
    elif kind == "nulls":
        table = table.set_column(at, name, pa.nulls(table.num_rows, column.type))
    elif kind == "shift" and pa.types.is_integer(column.type):
        table = table.set_column(at, name, pa.array([3 + (v or 0) for v in column.to_pylist()], column.type))
    elif kind == "fewer rows":
        table = table.slice(0, table.num_rows - 1)
    else:
        table = pa.concat_tables([table, table.slice(0, 1)])
    pq.write_table(table, file)
    return f"{file.relative_to(root)}: {kind} ({name})"


def remove(root: Path, chance: Random) -> str:
    file = chance.choice([f for f in sorted(root.rglob("*")) if f.is_file()])
    file.unlink()
    return f"{file.relative_to(root)} removed"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sound")
    v21 = samples.write_v21(folder / "v2.1", episodes=2, steps=24, size=16)
    copy_datasets([Source(open_dataset(str(v21)))], folder / "v3.0")
    return {"v2.1": v21, "v3.0": folder / "v3.0"}


def contents(root: Path) -> list[Any]:
    demos, _ = align(open_dataset(str(root)), frames=True)
    return [(demo.actions, demo.agent_pos, demo.rewards, demo.frames) for demo in demos]


def outcome(root: Path, expected: list[Any]) -> DatasetError | None:
    """The error that reading gives, or None where it gives the expected data, exactly and all of it."""
    try:
        found = contents(root)
    except DatasetError as error:
        return error
    for got, want in zip(found, expected, strict=True):
        for a, b in zip(got[:3], want[:3], strict=True):
            np.testing.assert_array_equal(a, b)
        for camera, frames in want[3].items():
            np.testing.assert_array_equal(got[3][camera], frames)
    return None


KINDS: list[Damage] = [cut, change_entry, change_table, remove]


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_damage_gives_the_same_data_or_a_clear_error(version: str, sound: dict[str, Path]) -> None:
    expected, refused = contents(sound[version]), []

    @settings(deadline=None, derandomize=True, max_examples=60)  # more by hand find nothing new
    @given(kind=st.sampled_from(KINDS), chance=st.randoms(use_true_random=False))
    def check(kind: Damage, chance: Random) -> None:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "dataset"
            shutil.copytree(sound[version], root)
            note(kind(root, chance))
            error = outcome(root, expected)
            if error is not None:
                refused.append(error)
                assert str(root) in str(error)
                assert error.remedy.endswith(".")

    check()
    assert len(refused) > 20
