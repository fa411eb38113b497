"""A folder has one run at a time, and nobody has to clean up after one that was killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hil_rllib.run_lock import LOCK_FILE, RunInUseError, RunLock

HOLD = """
import sys, time
from pathlib import Path
from hil_rllib.run_lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_run_is_told_who_has_the_folder_and_a_killed_one_has_it_no_more(holder, tmp_path):
    with pytest.raises(RunInUseError) as refused, RunLock(tmp_path):
        pass
    message = str(refused.value)
    assert f"{tmp_path} is in use by process {holder.pid} on {socket.gethostname()} since 20" in message
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK_FILE).exists()  # left behind; it locks nothing
    with RunLock(tmp_path):
        assert str(os.getpid()) in (tmp_path / LOCK_FILE).read_text()
        assert str(holder.pid) not in (tmp_path / LOCK_FILE).read_text()


def test_a_folder_that_stays_empty_is_removed_with_those_above_it_that_were_made(tmp_path):
    with RunLock(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []
    with RunLock(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "config.yaml").touch()
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["config.yaml"]


def test_an_owner_that_has_not_signed_yet_is_still_one(tmp_path):
    with RunLock(tmp_path):
        (tmp_path / LOCK_FILE).write_text("{")
        with pytest.raises(RunInUseError, match="in use by another process"), RunLock(tmp_path):
            pass
