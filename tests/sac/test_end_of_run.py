"""A run ends: the robot stops at once, nothing that it did is lost, and the last evaluation is made."""

from __future__ import annotations

import itertools
import time
from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError

from hil_rllib.collect.statistics import LOST_S, Evaluations
from hil_rllib.data.replay import Fragment
from hil_rllib.sac import algorithm as algorithm_module
from hil_rllib.sac.algorithm import HILSAC

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


def test_an_evaluator_that_always_dies_ends_the_run(monkeypatch):
    made, now = [], [0.0]

    def gone(ref):
        now[0] += LOST_S / 5
        raise RayActorError

    monkeypatch.setattr("hil_rllib.collect.statistics.time", SimpleNamespace(monotonic=lambda: now[0]))

    monkeypatch.setattr(
        algorithm_module, "ray", SimpleNamespace(wait=lambda refs, timeout: (refs, []), get=gone)
    )
    run = SimpleNamespace(
        hil=SimpleNamespace(evaluation=SimpleNamespace(every_steps=100)),
        env_steps=100,
        lockstep=True,
        evaluations=Evaluations(),
        evaluator=SimpleNamespace(run=SimpleNamespace(remote=lambda weights: made.append(weights) or "ref")),
        policy_state=lambda: {"default_policy": "weights"},
        _evaluation=None,
        _evaluated_at=0,
        _over=False,
    )
    with pytest.raises(RayActorError):
        HILSAC._evaluate_when_due(run)
    assert len(made) == 7  # two minutes after the first
