"""Work in several processes: in order, and nobody waits for a worker that failed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# In a process of its own: a fork of one that has Ray's threads may never run.
SCRIPT = """
import os
from hil_rllib.results.workers import in_processes

def spoiled(items):
    for item in items:
        if item == 2:
            raise ValueError("no weights")
        if item == 3:
            os._exit(1)
        yield 10 * item

def said(items):
    try:
        return list(in_processes(spoiled, items, 2))
    except (ValueError, OSError) as error:
        return f"{type(error).__name__}: {error}"

print(said([4, 5, 6, 7, 8]), said([0, 1, 2]), said([0, 3, 4]), sep="\\n")
"""


def test_results_come_in_order_and_failures_come_through() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines() == [
        "[40, 50, 60, 70, 80]",
        "ValueError: no weights",
        "OSError: The process that worked on 3 died.",
    ]
