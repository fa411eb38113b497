"""Ray Tune's driver over many results."""

import gc
import os

import ray
from ray import tune
from ray.air.execution._internal import RayActorManager

from hil_rllib.under_tune import forget_results

RESULTS = 40


def counter():
    class Counter(tune.Trainable):  # made here, it travels to the worker as it is
        def step(self):
            return {}

    return Counter


class Watch(tune.Callback):
    """Notes after each result how many the driver still holds."""

    def __init__(self):
        self.held = []

    def on_trial_result(self, iteration, trials, trial, result, **_):
        (manager,) = (found for found in gc.get_objects() if issubclass(type(found), RayActorManager))
        self.held.append(sum(map(len, manager._tracked_actors_to_task_futures.values())))


def test_the_driver_holds_no_results_that_it_has_read(tmp_path, monkeypatch):
    monkeypatch.setattr("ray.tune.execution.tune_controller.RayActorManager", RayActorManager)  # put back
    forget_results()
    watch = Watch()
    ray.init("local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
    try:
        tune.Tuner(
            counter(),
            run_config=tune.RunConfig(
                stop={"training_iteration": RESULTS},
                storage_path=os.fspath(tmp_path),
                verbose=0,
                callbacks=[watch],
            ),
        ).fit()
    finally:
        ray.shutdown()
    assert len(watch.held) == RESULTS
    assert max(watch.held) <= 2  # Tune's own: 40
