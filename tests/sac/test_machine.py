"""The learner's process keeps its memory between updates."""

from __future__ import annotations

import ctypes
import resource
import subprocess
import sys

import pytest

FAULTS_OF_TEN_UPDATES = """
import resource
from hil_rllib.sac.machine import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
def faults():
    for _ in range(10):
        arrays = [b"x" * size for size in [2**23] * 8]
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(-faults() + faults())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="malloc is not glibc's")
def test_memory_freed_by_one_update_is_not_faulted_in_again_by_the_next() -> None:
    def faults(keep: bool) -> int:
        code = FAULTS_OF_TEN_UPDATES.format(keep=keep)
        return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)

    page = resource.getpagesize()
    assert faults(keep=False) > 8 * 2**23 / page  # as it is: pages come and go, or this test shows nothing
    assert faults(keep=True) < 100
