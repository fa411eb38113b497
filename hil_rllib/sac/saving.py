"""Checkpoints on a disk that may be full."""

from __future__ import annotations

import logging
import shutil
import tempfile
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.train._internal.session import _TrainingResult

from hil_rllib.config import Config
from hil_rllib.disk import reason, refusal

logger = logging.getLogger(__name__)


class SavesWhatFits(Algorithm):
    """To stand before an algorithm of RLlib's in a class's bases: a checkpoint that the disk refuses is left
    out, and training goes on.

    Tune alone would end the run. But who makes room before the next checkpoint has lost nothing.
    """

    hil: Config

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Tune's question for a checkpoint; the answer holds None where there is none."""
        if self._storage is None:  # not in a run
            return super().save(checkpoint_dir)
        before = self._storage.current_checkpoint_index
        try:
            with tempfile.TemporaryDirectory() as folder:  # from here it is copied to the run's folder
                return super().save(folder)
        except OSError as error:
            refused = refusal(error)
            if refused is None:
                raise
            if self._storage.current_checkpoint_index != before:  # it was being copied
                shutil.rmtree(self._storage.checkpoint_fs_path, ignore_errors=True)
            clock, _ = self.hil.schedule
            logger.error(
                "No checkpoint at %s %d: %s. Training goes on, earlier ones stay. Make room for %s.",
                clock, getattr(self, clock), reason(refused), self.hil.run.dir,
            )  # fmt: skip
            return _TrainingResult(checkpoint=None, metrics={})
