"""Logging of the driver and of every Ray worker: our own messages, and others' only where they matter."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

from hil_rllib.disk import reason, refusal

logger = logging.getLogger(__name__)

ANNOUNCED_EVERY_S = 5.0


class _FullDiskInALine(logging.Filter):
    """Tune copies its files every few seconds, and tells of a full disk by a traceback each time."""

    _said = False

    def filter(self, record: logging.LogRecord) -> bool:
        refused = refusal(record.exc_info[1]) if record.exc_info else None
        if refused is None:
            return True
        record.msg = "Curves were not copied to the run's folder: %s. They are once there is room."
        record.args = (reason(refused),)
        record.exc_info = record.exc_text = record.stack_info = None
        first, self._said = not self._said, True
        return first


_full_disk_in_a_line = _FullDiskInALine()  # one, so that it is added once


def quiet() -> None:
    """Our INFO and others' errors; RLlib's migration notes and deprecations of its own calls are no news."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for name in ("hil_rllib", "envs"):
        logging.getLogger(name).setLevel(logging.INFO)
    for name in ("ray.rllib", "ray.tune", "ray._common.deprecation", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("ray.tune.execution.experiment_state", "ray.tune.tune"):
        logging.getLogger(name).addFilter(_full_disk_in_a_line)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="gymnasium")
    warnings.filterwarnings("ignore", message="Consider boosting PBT")  # a copy has a process of its own


def quiet_worker() -> None:
    """The same in a Ray worker; the driver has reported the demonstrations already."""
    quiet()
    sys.unraisablehook = _report_unless_exiting
    logging.getLogger("hil_rllib.data").setLevel(logging.WARNING)


def _report_unless_exiting(unraisable: Any) -> None:
    """Ray ends a worker by a signal, whose SystemExit may surface in whatever finaliser runs just then."""
    if not isinstance(unraisable.exc_value, SystemExit):
        sys.__unraisablehook__(unraisable)


def announced(what: str, count: int, every_s: float = ANNOUNCED_EVERY_S) -> Iterator[int]:
    """range(count), with a line in the log every few seconds and one at the end: for work people wait for."""
    started = said = time.monotonic()
    for done in range(count):
        yield done
        now = time.monotonic()
        if now - said >= every_s or done == count - 1:
            said = now
            logger.info("%s: %d of %d updates, %.0f s", what, done + 1, count, now - started)
