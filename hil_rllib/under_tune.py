"""What Ray Tune would do to a long run, done better: its checkpoints, its rows, its memory."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSystem, LocalFileSystem
from ray import tune
from ray.air.execution._internal import RayActorManager
from ray.rllib.algorithms.algorithm import Algorithm
from ray.train._internal import storage
from ray.train._internal.session import _TrainingResult
from ray.tune.execution import tune_controller
from ray.tune.utils import serialization

from hil_rllib.config import Config
from hil_rllib.disk import reason, refusal

logger = logging.getLogger(__name__)

_upload = storage._upload_to_fs_path


class Patient(tune.Trainable):
    """Goes on where the disk refuses a checkpoint, which Tune alone would end the run for.

    Who makes room before the next one has lost nothing. To stand before a Trainable in a class's bases.
    """

    hil: Config

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Tune's question for a checkpoint; the answer holds None where the disk refused it."""
        if self._storage is None:  # not in a run
            return super().save(checkpoint_dir)
        before = self._storage.current_checkpoint_index
        try:
            with tempfile.TemporaryDirectory() as folder:  # from here it is copied to the run's folder
                saved = super().save(folder)
        except OSError as error:
            refused = refusal(error)
            if refused is None:
                raise
            if self._storage.current_checkpoint_index != before:  # it was being copied
                shutil.rmtree(self._storage.checkpoint_fs_path, ignore_errors=True)
            logger.error(
                "No checkpoint at %s: %s. Training goes on, earlier ones stay. Make room for %s.",
                self.moment(), reason(refused), self.hil.run.dir,
            )  # fmt: skip
            return _TrainingResult(checkpoint=None, metrics={})
        self.checkpoint_stored()
        return saved

    def moment(self) -> str:
        """When it is, by the run's clock: `env_steps 500`."""
        raise NotImplementedError

    def checkpoint_stored(self) -> None:
        """The checkpoint just made lies in the run's folder."""


class UnderTune(Patient, Algorithm):
    """To stand before an algorithm of RLlib's in a class's bases."""

    def get_auto_filled_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Of each result; without the config, 16 of its 20 kB: that is in the run's folder, once."""
        filled: dict[str, Any] = super().get_auto_filled_metrics(*args, **kwargs)
        filled.pop("config", None)
        return filled

    def moment(self) -> str:
        clock, _ = self.hil.schedule
        return f"{clock} {getattr(self, clock)}"


class ForgetfulActorManager(RayActorManager):
    """Tune's keeps each result of a trial until the trial ends; this one lets go of those it has read."""

    def next(self, timeout: float | None = None) -> bool:
        """Wait for an event of the trials' actors and handle it."""
        handled: bool = super().next(timeout)
        awaited = set(self._actor_task_events.get_futures())
        for requests in self._tracked_actors_to_task_futures.values():
            requests &= awaited
        return handled


def upload_whole(local_path: str, fs: FileSystem, fs_path: str, exclude: Sequence[str] | None = None) -> None:
    """Copy Tune's state and curves to the run's folder; a copy there is replaced by a whole one, or stays.

    Tune itself writes over it, so that a full disk leaves half a state, or no curves where there were some.
    """
    if not isinstance(fs, LocalFileSystem) or exclude:
        _upload(local_path, fs, fs_path, exclude)
        return
    source, folder = Path(local_path), Path(fs_path)
    for file in (path for path in source.rglob("*") if path.is_file()):
        copy = folder / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        unfinished = copy.with_name(".being_copied")  # no name that TensorBoard looks for
        try:
            shutil.copyfile(file, unfinished)
            unfinished.replace(copy)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise


class Step(int):
    """A place on TensorBoard's axis, also the first: for a count that is false Tune takes the iteration's."""

    def __bool__(self) -> bool:
        return True


def mend_driver() -> None:
    """Let the driver's memory not grow with the trials' results, and no full disk damage what it copied."""
    storage._upload_to_fs_path = upload_whole
    tune_controller.RayActorManager = ForgetfulActorManager
    # Of each thing that JSON lacks Tune keeps the text when it saves its state, to say so only once.
    serialization.log_once = lambda key: False
