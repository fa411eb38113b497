"""The learner's memory over many versions of its weights, with Ray's own reference counting."""

import time

import numpy as np
import ray

from hil_rllib.collect.collector import AskedAhead, Collector

VERSIONS = 60


def learner(runner):
    class Learner:
        def __init__(self):
            self.collector = Collector(lambda greet: [], False, so_far=lambda: (0, 0))

        def kept(self):
            """How many objects Ray's store in this process holds beyond those at first."""
            store = ray._private.worker.global_worker.core_worker
            reader, before = runner.remote(self.collector._server), store.get_memory_store_size()
            for version in range(VERSIONS):
                self.collector.push({"w": np.zeros(50_000, np.float32)}, version + 1)
                time.sleep(0.03)
                ray.get(reader.read.remote())
            self.collector._offered.clear()
            time.sleep(1.0)
            return store.get_memory_store_size() - before

    return Learner


def runner():
    class Runner:
        def __init__(self, server):
            self.weights, self.version = AskedAhead(server), 0

        def read(self):
            state = ray.get(self.weights.remote(self.version))
            if state:
                self.version = state["weights_seq_no"]

    return Runner


def test_ray_keeps_nothing_of_a_version_that_nobody_has_any_more(local_ray):
    made = ray.remote(num_cpus=0)(learner(ray.remote(num_cpus=0)(runner()))).remote()
    assert ray.get(made.kept.remote()) <= 2
