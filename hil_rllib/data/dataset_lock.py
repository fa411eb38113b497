"""One writer to a dataset."""

from __future__ import annotations

from pathlib import Path

from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.file_lock import FileLock, HeldError

LOCK_FILE = ".lock"  # in the dataset's folder, under whatever name that is reached


def lock_dataset(root: Path, wait_s: float = 0.0) -> FileLock:
    """The lock of the dataset in `root`, held; the folder is made.

    Raises:
        DatasetError: another writes there, and still does after wait_s.
    """
    root.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(root / LOCK_FILE).acquire(wait_s)
    except HeldError as owner:
        raise DatasetError(
            root,
            f"is being written by {owner}.",
            "Wait for it or stop it, or record into another folder.",
        ) from None
