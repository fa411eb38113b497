"""What a Ray worker prints on its way out."""

from __future__ import annotations

import logging
import subprocess
import sys

from hil_rllib.logs import announced

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


def test_long_work_is_announced_while_it_goes_on_and_when_it_is_done(caplog):
    caplog.set_level(logging.INFO, "hil_rllib")
    assert list(announced("Cloning", 4, every_s=0.0)) == [0, 1, 2, 3]
    assert [record.getMessage() for record in caplog.records] == [
        f"Cloning: {done} of 4 updates, 0 s" for done in (1, 2, 3, 4)
    ]
    caplog.clear()
    assert list(announced("Cloning", 4, every_s=60.0)) == [0, 1, 2, 3]
    assert [record.getMessage() for record in caplog.records] == ["Cloning: 4 of 4 updates, 0 s"]
