"""A run ends: the robot stops at once, nothing that it did is lost, and the last evaluation is made."""

from __future__ import annotations

import itertools
import time
from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError

from hil_rllib.collect.statistics import LOST_S, Evaluations
from hil_rllib.config import Config, StopSection
from hil_rllib.data.replay import Fragment
from hil_rllib.progress import RunStopper
from hil_rllib.sac import algorithm as algorithm_module
from hil_rllib.sac.algorithm import HILSAC
from hil_rllib.sac.evaluation import EpisodeResult

FRAGMENT, STEPS, HZ = 5, 60, 20


def test_the_robot_stops_what_it_did_is_stored_and_the_last_evaluation_is_there(build, configure):
    algorithm = build(
        configure(
            "run.mode=async",
            "operator.device=scripted",
            "operator.realtime=true",
            f"operator.hz={HZ}",
            f"runners.fragment={FRAGMENT}",
            "env.max_episode_steps=20",
            f"stop.env_steps={STEPS}",
            f"evaluation.every_steps={STEPS}",
            "evaluation.episodes=2",
        )
    )
    fragments = []
    store = algorithm._store

    def noting(group, episode):
        fragments.append(Fragment.from_episode(episode))
        store(group, episode)

    algorithm._store = noting
    while algorithm.env_steps < STEPS:
        begun, arrived = time.monotonic(), len(fragments)
        algorithm.training_step()
    # One fragment was under way, one more begins before it hears; 20 s of them were asked for.
    assert sum(map(len, fragments[arrived:])) <= 4 * FRAGMENT
    assert time.monotonic() - begun < 60
    assert algorithm.evaluations.latest["at_env_steps"] >= STEPS
    for before, after in itertools.pairwise(fragments):
        goes_on = before.episode_id == after.episode_id
        assert after.first_step == (before.first_step + len(before) if goes_on else 0)

    def under_way(runner):
        return runner._ongoing_episodes[0].t

    (steps,) = algorithm.collector.groups[0].runners.foreach_env_runner(under_way, local_env_runner=False)
    assert steps in (0, fragments[-1].first_step + len(fragments[-1]))  # nothing that did not arrive
    assert list(algorithm.collector.finish()) == []


class Run:
    """What `HILSAC._evaluate_when_due` sees of a run, and an evaluator whose answer comes when it is told to.

    weights: stand for themselves. passes: those whose evaluation solves everything.
    """

    _over = lockstep = False
    _evaluation, _evaluated_at, _evaluated_updates = None, 0, 0

    def __init__(self, monkeypatch, *, passes=()):
        stop = StopSection(success=1.0, evaluations_in_row=1)
        self.hil = SimpleNamespace(evaluation=SimpleNamespace(every_steps=100), stop=stop)
        self.evaluations = Evaluations()
        self.env_steps = self.updates = 0
        self.evaluated, self.done = [], set()
        self.evaluator = SimpleNamespace(run=SimpleNamespace(remote=self._begin))
        self._passes = passes
        ray = SimpleNamespace(wait=self._wait, get=self._get)
        monkeypatch.setattr(algorithm_module, "ray", ray)

    def policy_state(self):
        return {"default_policy": self.updates}

    def _begin(self, weights):
        self.evaluated.append(weights)
        return weights

    def _wait(self, refs, timeout):
        return (refs if timeout is None or refs[0] in self.done else []), []

    def _get(self, ref):
        return [EpisodeResult(0, ref in self._passes, 10, 1.0, 0.0)]

    def go_on(self, env_steps, updates, done=()):
        """A training step, after which so much has been done. done: weights whose evaluation is, too."""
        self.env_steps, self.updates, self.done = env_steps, updates, done
        HILSAC._evaluate_when_due(self)


def test_an_evaluation_under_way_when_the_run_ends_is_followed_by_one_of_the_last_weights(monkeypatch):
    run = Run(monkeypatch)
    run.go_on(100, 1)
    run.go_on(150, 2)
    run._over = True
    run.go_on(310, 3)
    assert run.evaluated == [1, 3]
    assert run.evaluations.latest["at_env_steps"] == 310


def test_what_passed_under_weights_that_learning_left_is_confirmed_before_it_ends_the_run(monkeypatch):
    run = Run(monkeypatch, passes={1, 4, 5})
    run.hil.sac = SimpleNamespace(learning_starts=0, utd_ratio=1.0)
    run.skips = SimpleNamespace(too_many=False)
    stopper = RunStopper(Config(stop=run.hil.stop))

    def state():
        """Success, whether learning rests, whether the run ends."""
        result = {"evaluation": run.evaluations.latest, "hil": {"env_steps": run.env_steps}}
        return run.evaluations.latest["success"], HILSAC._owed(run) == 0, stopper("trial", result)

    run.go_on(100, 1)
    run.go_on(110, 2, done={1})
    assert run.evaluated == [1, 2]
    assert state() == (1.0, True, False)
    run.go_on(120, 2, done={2})  # and does not pass
    assert state() == (0.0, False, False)
    run.go_on(210, 4)
    run.go_on(220, 5, done={4})
    assert state() == (1.0, True, False)
    run.go_on(230, 5, done={5})
    assert state() == (1.0, True, True)
    assert run.evaluated == [1, 2, 4, 5]


def test_an_evaluator_that_always_dies_ends_the_run(monkeypatch):
    now = [0.0]

    def gone(ref):
        now[0] += LOST_S / 5
        raise RayActorError

    monkeypatch.setattr("hil_rllib.collect.statistics.time", SimpleNamespace(monotonic=lambda: now[0]))
    run = Run(monkeypatch)
    monkeypatch.setattr(algorithm_module.ray, "get", gone)
    run.lockstep = True
    with pytest.raises(RayActorError):
        run.go_on(100, 1)
    assert len(run.evaluated) == 7  # two minutes after the first
