"""The run's metrics against episodes counted by hand."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from episodes import fragment

from hil_rllib.collect.pacing import INPUT_LATENCY_MS, LATENCY_MS, MISSED_DEADLINE, STEP_INTERVAL_MS
from hil_rllib.collect.statistics import FAILURES, WINDOW, Evaluations, Statistics
from hil_rllib.contract import CLASSIFIED, CONTROL_DT, RERECORD, SUCCESS


def metrics(stats, env_steps=0, updates=0):
    return stats.metrics(env_steps=env_steps, updates=updates, online=11, demo=7)


def test_rates_are_over_finished_episodes_and_human_time_over_all_steps():
    stats = Statistics()
    stats.add(fragment("a", 0, 5, flags=[0, 0, 1, 1, 1]), 0)
    assert "success_rate" not in metrics(stats)
    stats.add(fragment("a", 5, 5, flags=[1, 0, 0, 0, 0], end={SUCCESS: True}), 0)
    stats.add(fragment("b", 0, 10, end={SUCCESS: False}, terminated=False), 0)
    stats.add(fragment("c", 0, 5, flags=[1, 1, 0, 0, 0]), 0)
    values = metrics(stats, env_steps=25, updates=50)
    assert values["success_rate"] == 0.5
    assert values["intervention_rate"] == 4 / 20
    assert values["episode_steps"] == 10
    assert values["episodes"] == 2
    assert values["human_seconds"] == pytest.approx(6 * CONTROL_DT)
    assert (values["env_steps"], values["updates"]) == (25, 50)
    assert (values["online_ring"], values["demo_ring"]) == (11, 7)


def test_a_rerecorded_episode_cost_the_person_time_and_says_nothing_of_the_policy():
    stats = Statistics()
    stats.add(fragment("a", 0, 10, flags=[1] * 10, end={RERECORD: True}, terminated=False), 0)
    values = metrics(stats)
    assert values["human_seconds"] == pytest.approx(1.0)
    assert values["episodes"] == 0
    assert "success_rate" not in values


def test_success_rate_looks_back_on_the_last_episodes_only():
    stats = Statistics()
    for i in range(3 * WINDOW):
        stats.add(fragment(f"e{i}", 0, 2, end={SUCCESS: i >= 2 * WINDOW}), 0)
    assert metrics(stats)["success_rate"] == 1.0
    assert metrics(stats)["episodes"] == 3 * WINDOW


def test_staleness_counts_pushes_between_acting_and_arriving():
    stats = Statistics()
    stats.add(fragment("a", 0, 5, weights=7), newest_weights=7)
    stats.add(fragment("a", 5, 5, weights=7), newest_weights=10)
    assert metrics(stats)["weights_staleness"] == 1.5


def test_step_intervals_are_those_of_steps_not_of_resets():
    stats = Statistics()
    assert "step_interval_ms_max" not in metrics(stats)
    episode = fragment("a", 0, 5, info={STEP_INTERVAL_MS: 100.0}, end={STEP_INTERVAL_MS: 140.0})
    stats.add(episode, 0)
    values = metrics(stats)
    assert values["step_interval_ms_p50"] == 100.0
    assert values["step_interval_ms_max"] == 140.0


def test_rates_per_second_are_of_the_time_since_they_were_last_taken(monkeypatch):
    now = [50.0]
    monkeypatch.setattr("hil_rllib.collect.statistics.time", SimpleNamespace(monotonic=lambda: now[0]))
    stats = Statistics()
    now[0] += 15.0  # set-up; a run that goes on does not begin at 0
    assert metrics(stats, 50_000, 100_000)["env_steps_per_s"] == 0.0
    now[0] += 2.0
    assert metrics(stats, 50_020, 100_040)["env_steps_per_s"] == 10.0
    now[0] += 0.5  # too soon for a new one
    assert metrics(stats, 50_090, 100_090)["env_steps_per_s"] == 10.0
    now[0] += 1.5
    assert metrics(stats, 50_060, 100_140)["updates_per_s"] == 50.0


def test_counts_go_on_after_a_checkpoint():
    stats, resumed = Statistics(), Statistics()
    stats.add(fragment("a", 0, 4, flags=[1] * 4, end={SUCCESS: True}), 0)
    resumed.set_state(stats.get_state())
    resumed.add(fragment("b", 0, 6, flags=[1] * 6, end={SUCCESS: True}), 0)
    assert metrics(resumed)["human_seconds"] == pytest.approx(1.0)
    assert metrics(resumed)["episodes"] == 2


def test_how_often_a_classifier_was_right_goes_on_after_a_checkpoint():
    stats, resumed = Statistics(), Statistics()
    stats.add(fragment("a", 0, 4, end={SUCCESS: True, CLASSIFIED: True}), 0)
    resumed.set_state(json.loads(json.dumps(stats.get_state())))
    assert metrics(resumed)["reward_precision"] == 1.0
    resumed.set_state(Statistics().totals())  # of an earlier release
    assert "reward_precision" not in metrics(resumed)


def results(*successes):
    return [SimpleNamespace(success=s, steps=20, reward=float(s), penalty=-0.02) for s in successes]


def test_evaluations_in_a_row_must_follow_each_other():
    evaluations = Evaluations()
    passed = []
    for successes in [(1, 1), (1, 0), (1, 1), (1, 1)]:
        evaluations.add(results(*successes), 100, target=0.95)
        passed.append(evaluations.passed_in_row)
    assert passed == [1, 0, 1, 2]
    assert evaluations.latest["success"] == 1.0
    assert evaluations.latest["episodes"] == 2
    assert math.isclose(evaluations.latest["penalty"], -0.02)


def test_evaluations_that_passed_an_easier_target_do_not_end_a_run_that_goes_on():
    evaluations = Evaluations()
    evaluations.add(results(1, 0), 100, target=0.5)
    state = {"evaluations": asdict(evaluations), "config": {"stop": {"success": 0.5}}}
    assert Evaluations.restored(state, 0.5).latest["passed_in_row"] == 1
    for target in (1.0, None):
        restored = Evaluations.restored(copy.deepcopy(state), target)
        assert restored.passed_in_row == restored.latest["passed_in_row"] == 0
        assert restored.latest["success"] == 0.5


def test_failed_evaluations_end_the_run_only_in_a_row(caplog):
    evaluations = Evaluations()
    for _ in range(2):
        for _ in range(FAILURES - 1):
            evaluations.failed(RuntimeError("Traceback …\n  line\nRuntimeError: it blew up\n"))
        evaluations.add(results(1), 100, target=1.0)
    assert evaluations.passed_in_row == 2
    assert caplog.text.count("It ended by RuntimeError: it blew up") == 2 * (FAILURES - 1)
    evaluations.failed_in_row = FAILURES - 1
    with pytest.raises(RuntimeError, match="blew up"):
        evaluations.failed(RuntimeError("it blew up"))


def test_without_a_target_no_evaluation_ends_the_run():
    evaluations = Evaluations()
    evaluations.add(results(1, 1), 100, target=None)
    assert evaluations.passed_in_row == 0


def test_latencies_are_of_the_steps_that_have_one_and_missed_deadlines_are_counted_for_good():
    stats = Statistics()
    assert "latency_ms_p50" not in metrics(stats)
    stats.add(fragment("a", 0, 10), 0)  # the policy's steps have none
    for ms in (1.0, 2.0, 3.0):
        stats.add(
            fragment("b", 0, 1, info={LATENCY_MS: ms, INPUT_LATENCY_MS: 10 * ms, MISSED_DEADLINE: True}), 0
        )
    values = metrics(stats)
    assert (values["latency_ms_p50"], values["input_latency_ms_p50"]) == (2.0, 20.0)
    assert values["latency_ms_p99"] == pytest.approx(2.98)
    assert values["missed_deadlines"] == 3
    again = Statistics()
    again.set_state(stats.get_state())
    assert metrics(again)["missed_deadlines"] == 3
