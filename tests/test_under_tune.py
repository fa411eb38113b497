"""Ray Tune's driver over many results."""

import gc
import json
import os
import pickle
from unittest.mock import Mock

import pytest
from full_disk import small_disk
from pyarrow.fs import LocalFileSystem
from ray import tune
from ray.air.execution._internal import RayActorManager
from ray.train._internal import storage
from ray.tune.logger import TBXLoggerCallback
from ray.tune.result import TIMESTEPS_TOTAL, TRAINING_ITERATION
from ray.util import debug
from ray.util.debug import log_once
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hil_rllib.under_tune import Step, mend_driver, upload_whole

RESULTS = 40


def counter():
    class Counter(tune.Trainable):  # made here, it travels to the worker as it is
        results = 0

        def step(self):
            self.results += 1
            return {"value": self.results / 7, "should_checkpoint": self.results % 10 == 0}

        def save_checkpoint(self, folder):
            pass

    return Counter


def test_a_report_before_the_first_step_stands_at_it_on_tensorboards_axis(tmp_path):
    """Tune would take the iteration for a count of 0, and the axis would run backwards."""
    logger, trial = TBXLoggerCallback(), Mock(local_path=str(tmp_path))
    counts = [0, 0, 0, 20, 40]
    for iteration, count in enumerate(counts, 1):
        logger.log_trial_result(
            iteration,
            trial,
            {TIMESTEPS_TOTAL: Step(count), TRAINING_ITERATION: iteration, "hil": {"n": count}},
        )
    logger._trial_writer[trial].close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("ray/tune/hil/n")] == counts
    assert json.dumps(Step(0)) == "0"
    assert pickle.loads(pickle.dumps(Step(0)))  # it comes from the trial's process


class Watch(tune.Callback):
    """Notes after each result how many the driver still holds."""

    def __init__(self):
        self.held = []

    def on_trial_result(self, iteration, trials, trial, result, **_):
        (manager,) = (found for found in gc.get_objects() if issubclass(type(found), RayActorManager))
        self.held.append(sum(map(len, manager._tracked_actors_to_task_futures.values())))


def test_the_driver_holds_no_results_that_it_has_read(tmp_path, monkeypatch, local_ray):
    monkeypatch.setattr("ray.tune.execution.tune_controller.RayActorManager", RayActorManager)  # put back
    monkeypatch.setattr("ray.tune.utils.serialization.log_once", log_once)
    monkeypatch.setattr(storage, "_upload_to_fs_path", storage._upload_to_fs_path)
    mend_driver()
    watch, texts = Watch(), len(debug._logged)
    tune.Tuner(
        counter(),
        run_config=tune.RunConfig(
            stop={"training_iteration": RESULTS},
            storage_path=os.fspath(tmp_path),
            verbose=0,
            callbacks=[watch],
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
        ),
    ).fit()
    assert len(watch.held) == RESULTS
    assert max(watch.held) <= 2  # Tune's own: 40
    assert len(debug._logged) - texts <= 5  # Tune's own: 60


def test_a_copy_that_does_not_fit_leaves_the_one_before(tmp_path):
    state, curves = tmp_path / "staged" / "state.json", tmp_path / "staged" / "trial" / "result.json"
    curves.parent.mkdir(parents=True)
    for file in (state, curves):
        file.write_text("first " * 1000)
    with small_disk(tmp_path / "disk", megabytes=1) as disk:
        copies = disk.folder / "run" / "state.json", disk.folder / "run" / "trial" / "result.json"
        upload_whole(str(tmp_path / "staged"), LocalFileSystem(), str(disk.folder / "run"))
        assert [copy.read_text() for copy in copies] == ["first " * 1000] * 2
        for file in (state, curves):
            file.write_text("second" * 2000)
        disk.leave(8192)
        with pytest.raises(OSError, match="No space left"):
            upload_whole(str(tmp_path / "staged"), LocalFileSystem(), str(disk.folder / "run"))
        assert [copy.read_text() for copy in copies] == ["first " * 1000] * 2
        disk.make_room()
        upload_whole(str(tmp_path / "staged"), LocalFileSystem(), str(disk.folder / "run"))
        assert [copy.read_text() for copy in copies] == ["second" * 2000] * 2
        assert not list(disk.folder.rglob(".being_copied"))
