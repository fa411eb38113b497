"""What a process of a run does besides its work."""

import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

from hil_rllib import processes


@pytest.mark.skipif(not psutil.LINUX, reason="only glibc keeps what was freed")
def test_freed_memory_goes_back_to_the_system(monkeypatch):
    monkeypatch.setattr(processes, "RETURNED_EVERY_S", 0.2)
    rng, process = random.Random(0), psutil.Process()
    blocks = [bytearray(rng.randint(100, 20_000)) for _ in range(20_000)]  # 200 MB
    blocks[:] = blocks[::50]  # what stays keeps the heap from shrinking by itself
    held = process.memory_full_info().uss
    processes.return_memory_regularly()
    time.sleep(1.0)
    assert held - process.memory_full_info().uss > 100e6


@pytest.mark.skipif(not psutil.LINUX, reason="glibc's on_exit")
def test_a_process_that_hangs_while_it_ends_is_ended():
    program = (
        "import ctypes; from hil_rllib import processes; processes.EXIT_S = 1; processes.begin_worker();"
        "libc = ctypes.CDLL(None); libc.on_exit(libc.pause, None)"  # it would wait for ever
    )
    assert (
        subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == -signal.SIGALRM
    )
