"""The command on a disk that gets full: it says so, goes on or ends cleanly, and nothing stored is lost."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from full_disk import SmallDisk, small_disk
from ray.exceptions import RayTaskError

from hil_rllib.data.journal import Journal
from hil_rllib.data.journal_format import Record, scan
from hil_rllib.data.lerobot_reader import open_dataset
from hil_rllib.disk import DiskError, refusal, write_whole
from hil_rllib.disk_full import DISK_FULL
from hil_rllib.sac.checkpoint import newest_checkpoint, read_state

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ROOT / "tuned_configs" / "panda_sac_smoke.yaml"
SMALL = (  # a person in real time, a checkpoint a second, tiny networks
    "run.mode=async",
    "env.max_episode_steps=20",
    "demos.scripted_episodes=2",
    "operator.device=scripted",
    "operator.realtime=true",
    "operator.hz=40",
    "operator.scripted.start_after_step=1",
    "operator.scripted.takeover_probability=0.2",
    "record.operator=true",
    "sac.hidden=[8,8]",
    "sac.batch_size=8",
    "sac.learning_starts=20",
    "sac.utd_ratio=1",
    "evaluation.episodes=1",
    "evaluation.every_steps=1000",
    "checkpoint.every_steps=40",
)
PATIENCE_S = 300  # of a machine that has other work


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", megabytes=24) as disk:
        yield disk


@pytest.fixture
def start(disk: SmallDisk, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Begins the command with its run on the disk, and all else beside it; its log is `tmp_path`/log."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    started = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "hil_rllib.train", str(SMOKE), f"run.dir={disk.folder / 'run'}"]
        with (tmp_path / "log").open("wb") as log:
            started.append(
                subprocess.Popen(
                    [*command, *SMALL, *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log
                )
            )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def stored(run_dir: Path) -> dict[str, list[tuple[int, dict]]]:
    """Every whole record of both journals, as they lie there: (number, what it is)."""
    found = {}
    for name in ("online", "demo"):
        parts = [part for _, file in Journal(run_dir / "replay", name).segments() for part in scan(file)]
        found[name] = [(part.number, part.meta) for part in parts if isinstance(part, Record)]
    return found


@pytest.mark.timeout(4 * PATIENCE_S)
def test_a_run_outlives_a_full_disk_or_ends_with_one_line_and_goes_on_once_there_is_room(
    start, disk, tmp_path
):
    run_dir, log = disk.folder / "run", tmp_path / "log"
    process = start("stop.env_steps=1000000")

    def wait_for(done: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)

    # Full for a while: it is said, what comes waits in memory, and later nothing is missing.
    wait_for(lambda: newest_checkpoint(run_dir))
    before = stored(run_dir)
    disk.leave(0)
    wait_for(lambda: "No checkpoint at env_steps" in log.read_text())
    wait_for(lambda: "waits in memory" in log.read_text())
    wait_for(lambda: "A recorded episode was not written" in log.read_text())
    left = newest_checkpoint(run_dir)
    disk.make_room()
    wait_for(lambda: "can be written again; nothing is missing" in log.read_text())
    wait_for(lambda: newest_checkpoint(run_dir) not in (None, left))

    # Full at the end: one line, a status of its own.
    disk.leave(0)
    wait_for(lambda: log.read_text().count("waits in memory") >= 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == DISK_FULL, log.read_text()
    said = log.read_text()
    assert "Traceback" not in said
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: No room for the checkpoint of env_steps ")
    assert f"What was stored in {run_dir} is whole: make room and go on with --resume." in error
    acknowledged = stored(run_dir)
    for name, records in acknowledged.items():
        assert records[: len(before[name])] == before[name]
        assert [number for number, _ in records] == list(range(len(records)))

    # Resumed too early, and then with room.
    config = (run_dir / "config.yaml").read_text()
    disk.leave(0)  # also what the run has freed at its end
    assert start("--resume").wait(PATIENCE_S) == DISK_FULL
    assert "No space left on device. Make room and repeat the command.\n" in log.read_text()
    assert (run_dir / "config.yaml").read_text() == config
    disk.make_room()
    last = acknowledged["online"][-1][1]["env_steps"]
    process = start("--resume", f"stop.env_steps={last + 1}")
    assert process.wait(PATIENCE_S) == 0, log.read_text()
    for name, records in stored(run_dir).items():
        assert records[: len(acknowledged[name])] == acknowledged[name]
    assert read_state(newest_checkpoint(run_dir))["env_steps"] > last
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["env_steps"] > last
    recorded = open_dataset(str(run_dir / "recordings" / "operator"))
    assert len(list(recorded.read())) == summary["recorded_episodes"]["operator"] > 0


def test_a_disks_refusal_is_found_behind_the_errors_that_it_led_to():
    full = OSError(errno.ENOSPC, "No space left on device")
    wrapped = RuntimeError("Tune")
    wrapped.__context__ = full
    assert refusal(wrapped) is full
    assert refusal(RayTaskError("save", "", full).as_instanceof_cause()) is full
    assert isinstance(refusal(DiskError("waits")), DiskError)
    assert refusal(FileNotFoundError(errno.ENOENT, "gone")) is None
    assert refusal(None) is None


def test_a_file_that_does_not_fit_stays_as_it_was(disk):
    file = disk.folder / "config.yaml"
    write_whole(file, "before")
    disk.leave(0)
    with pytest.raises(DiskError, match=r"config\.yaml could not be written: No space left on device"):
        write_whole(file, "x" * 100_000)
    assert file.read_text() == "before"
    assert sorted(os.listdir(disk.folder)) == [".ballast", "config.yaml"]
