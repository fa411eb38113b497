"""What a Ray worker prints on its way out."""

from __future__ import annotations

import subprocess
import sys

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
