"""How a run ends that could not store what it has to: one line, and an exit status of its own."""

from __future__ import annotations

from pathlib import Path

from ray import tune

from hil_rllib.config import Config
from hil_rllib.console import report
from hil_rllib.disk import DiskError, reason, refusal
from hil_rllib.sac.checkpoint import read_state

DISK_FULL = 4  # exit status


def not_begun(error: OSError) -> int:
    """Say that a run could not begin, or not go on; nothing has changed."""
    report(f"{reason(error)}. Make room and repeat the command.")
    return DISK_FULL


def ended_early(error: Exception, run_dir: Path, curves: str | None = None) -> int:
    """Say that a run could not go on; an error of another kind is raised again.

    curves: the folder that Tune writes them to first; what was not copied to the run's is there.
    """
    refused = refusal(error)
    if refused is None:
        raise error
    where = f" Its curves are whole in {curves}." if curves else ""
    report(
        f"{reason(refused)}. What was stored in {run_dir} is whole: make room and go on with --resume.{where}"
    )
    return DISK_FULL


def check_saved(result: tune.Result, config: Config) -> None:
    """Raises DiskError where the newest checkpoint is not that of the run's end: there was no room for it."""
    clock, _ = config.schedule
    ended, saved = int(result.metrics["hil"][clock]), None
    if result.checkpoint is not None:
        saved = read_state(Path(result.checkpoint.path))[clock]
    if saved != ended:
        there = f"the newest one is of {saved}" if saved is not None else "there is none"
        raise DiskError(f"No room for the checkpoint of {clock} {ended}, {there}")
