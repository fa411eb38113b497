"""What a Ray worker prints on its way out."""

from __future__ import annotations

import errno
import logging
import subprocess
import sys

from hil_rllib.logs import announced, quiet

FINALISERS = """
from hil_rllib.logs import quiet_worker
quiet_worker()

class Ends:
    def __init__(self, error): self.error = error
    def __del__(self): raise self.error

Ends(SystemExit(1))
Ends(ValueError("a real fault"))
"""


def test_the_end_of_a_worker_is_no_news_but_a_fault_in_a_finaliser_is():
    done = subprocess.run([sys.executable, "-c", FINALISERS], capture_output=True, text=True, check=True)
    assert "a real fault" in done.stderr
    assert "SystemExit" not in done.stderr


def test_a_full_disk_under_tunes_own_files_is_one_line_and_other_faults_are_told_whole(caplog):
    quiet()
    tune = logging.getLogger("ray.tune.execution.experiment_state")
    for error in (OSError(errno.ENOSPC, "No space left on device"),) * 2 + (ValueError("a real fault"),):
        try:
            raise error
        except (OSError, ValueError):
            tune.error("Saving failed", exc_info=True)
    full, fault = caplog.records
    assert full.getMessage().startswith(
        "Curves were not copied to the run's folder: No space left on device."
    )
    assert full.exc_info is None
    assert fault.exc_info


def test_long_work_is_announced_while_it_goes_on_and_when_it_is_done(caplog):
    caplog.set_level(logging.INFO, "hil_rllib")
    assert list(announced("Cloning", 4, every_s=0.0)) == [0, 1, 2, 3]
    assert [record.getMessage() for record in caplog.records] == [
        f"Cloning: {done} of 4 updates, 0 s" for done in (1, 2, 3, 4)
    ]
    caplog.clear()
    assert list(announced("Cloning", 4, every_s=60.0)) == [0, 1, 2, 3]
    assert [record.getMessage() for record in caplog.records] == ["Cloning: 4 of 4 updates, 0 s"]
