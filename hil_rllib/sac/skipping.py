"""Updates that cannot be made: counted, told, and after too many in a row the end of the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hil_rllib.data.replay import Nested, flat

logger = logging.getLogger(__name__)

BATCH_FILE = "skipped_batch.npz"  # in the run's folder: the batch that ended it


class NotFiniteError(ArithmeticError):
    """A loss or gradient is NaN or infinite; nothing was changed by it."""


class SkippedUpdates:
    """Counts the updates that were skipped for a loss or gradient that is not finite.

    limit: of them in a row, after which the run is to end. folder: the run's.
    """

    def __init__(self, limit: int, folder: Path) -> None:
        self._limit, self._folder = limit, folder
        self.total = self.in_row = 0
        self.too_many = False  # from the limit on, for good

    def values(self) -> dict[str, float]:
        """The run's `hil/…` metrics of it."""
        return {"skipped_updates": self.total, "diverged": float(self.too_many)}

    def get_state(self) -> dict[str, int]:
        return {"total": self.total, "in_row": self.in_row}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Continue from `get_state`, or from nothing; a run that had too many in a row gets another try."""
        self.total = state.get("total", 0)
        in_row = state.get("in_row", 0)
        self.in_row = in_row if in_row < self._limit else 0

    def made(self) -> None:
        """An update was made."""
        self.in_row = 0

    def skipped(self, batch: Nested) -> None:
        """An update was skipped; the one that is too many is saved. batch: nested dict of tensors (B, …)."""
        self.total += 1
        self.in_row += 1
        if self.in_row == 1:
            logger.warning("An update was skipped: its loss or gradient is not finite. %s", diagnosis(batch))
        if self.in_row == self._limit:
            self.too_many = True
            logger.error("%d updates in a row were skipped. %s", self._limit, diagnosis(batch))
            arrays: dict[str, Any] = {name: tensor.cpu().numpy() for name, tensor in flat(batch).items()}
            try:
                np.savez(self._folder / BATCH_FILE, **arrays)
            except OSError as error:
                logger.error("The batch could not be saved: %s", error)


def diagnosis(batch: Nested) -> str:
    """Which columns of a batch hold NaN or infinity, in how many rows."""
    broken = {}
    for name, tensor in flat(batch).items():
        rows = np.asarray(tensor.cpu().numpy(), np.float64).reshape(len(tensor), -1)
        if count := int((~np.isfinite(rows)).any(axis=1).sum()):
            broken[name] = count
    if not broken:
        return "The batch itself is finite: look at the learning rates, the rewards' size, and the weights."
    return "Not finite in the batch: " + ", ".join(f"{name} in {n} rows" for name, n in broken.items()) + "."
