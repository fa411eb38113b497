"""What every process of a run does besides its work."""

from __future__ import annotations

import atexit
import ctypes
import signal
import sys
import threading
import time

from hil_rllib.logs import quiet_worker

RETURNED_EVERY_S = 60.0
EXIT_S = 30  # for what a process does after Python has ended
HOOK = {"worker_process_setup_hook": "hil_rllib.processes.begin_worker"}  # for ray.init(runtime_env=…)


def begin_worker() -> None:
    """Called by Ray at the start of each worker process."""
    quiet_worker()
    return_memory_regularly()
    # Ray's threads may lock each other out while it is torn down, for ever and with all its memory: the
    # kernel then ends the process.
    atexit.register(signal.alarm, EXIT_S)


def return_memory_regularly() -> None:
    """Give what was freed back to the system once a minute, from a thread of its own; takes 10 ms.

    glibc keeps it otherwise: pages of which a few bytes are in use, 0.2 to 0.5 MB more each minute.
    """
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"):  # of glibc alone
        return
    trim = ctypes.CDLL(None).malloc_trim

    def return_memory() -> None:
        while True:
            time.sleep(RETURNED_EVERY_S)
            trim(0)

    threading.Thread(target=return_memory, name="return memory", daemon=True).start()
