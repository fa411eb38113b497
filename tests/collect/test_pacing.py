"""Real time, and the operator's verdict, at the env's boundary."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from hil_rllib.collect.pacing import (
    INPUT_LATENCY_MS,
    LATENCY_MS,
    MISSED_DEADLINE,
    STEP_INTERVAL_MS,
    OperatorWrapper,
    claim_priority,
)
from hil_rllib.contract import (
    APPEAL,
    CLASSIFIED,
    IS_INTERVENTION,
    LABEL,
    RERECORD,
    SUCCESS,
    VERDICT,
    EpisodeEnd,
)


class FakeTime:
    """A clock that sleeping moves, each time 0.4 ms too far, as real ones do."""

    now = 100.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds + 0.0004


class Busy(gymnasium.Env):
    """Takes `seconds` a step (of fake time, if given one)."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, fake: FakeTime | None = None, seconds: float = 0.03) -> None:
        self.fake, self.seconds = fake, seconds

    def _work(self) -> None:
        if self.fake:
            self.fake.now += self.seconds
        else:
            time.sleep(self.seconds)

    def reset(self, *, seed=None, options=None):
        self._work()
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self._work()
        return np.zeros(1, np.float32), 0.5, False, True, {"own": 1}


def paced(fake: FakeTime, hz: float | None = 10.0) -> OperatorWrapper:
    return OperatorWrapper(Busy(fake), hz, clock=fake.clock, sleep=fake.sleep)


def intervals(env: gymnasium.Env, steps: int) -> list[float]:
    return [env.step(None)[4][STEP_INTERVAL_MS] for _ in range(steps)]


def test_oversleeping_does_not_add_up():
    fake = FakeTime()
    env = paced(fake)
    env.reset()
    begin = fake.now
    intervals(env, 1000)
    assert fake.now - begin == pytest.approx(100.0, abs=0.001)
    assert env.missed_deadlines == 0


def test_a_late_step_starts_a_new_schedule_and_is_counted():
    fake = FakeTime()
    env = paced(fake)
    env.reset()
    intervals(env, 3)
    fake.now += 0.25  # a stall between two steps: a checkpoint, say
    late, *after = intervals(env, 4)
    assert late == pytest.approx(280, abs=1)
    assert after == pytest.approx([100, 100, 100], abs=1)  # no hurrying to catch up
    assert env.missed_deadlines == 1


def test_the_time_a_reset_takes_does_not_count():
    fake = FakeTime()
    env = paced(fake)
    env.reset()
    intervals(env, 2)
    fake.now += 5.0
    env.reset()
    assert intervals(env, 2) == pytest.approx([100, 100], abs=1)
    assert env.missed_deadlines == 0


def test_unpaced_env_waits_for_nothing():
    fake = FakeTime()
    env = paced(fake, hz=None)
    env.reset()
    assert intervals(env, 2) == pytest.approx([30, 30])


def test_ten_hertz_on_the_real_clock():
    env = OperatorWrapper(Busy(), 10.0)
    env.reset()
    begin = time.process_time()
    took = intervals(env, 15)
    assert abs(np.median(took) - 100) < 2
    assert time.process_time() - begin < 0.2  # of 1.5 s: it sleeps, it does not spin


@pytest.mark.parametrize("hz", [0, -1.0, float("nan")])
def test_impossible_rate_is_refused(hz):
    with pytest.raises(ValueError, match="hz must be above 0"):
        OperatorWrapper(Busy(), hz)


@pytest.mark.parametrize(
    ("end", "reward", "terminated", "truncated", "said"),
    [
        (EpisodeEnd.SUCCESS, 1.0, True, False, {SUCCESS: True, VERDICT: True}),
        (EpisodeEnd.FAILURE, 0.0, True, False, {SUCCESS: False, VERDICT: False}),
        (EpisodeEnd.RERECORD, 0.5, False, True, {RERECORD: True}),
        (EpisodeEnd.NONE, 0.5, False, True, {}),
    ],
)
def test_verdict_of_the_operator(end, reward, terminated, truncated, said):
    env = paced(FakeTime())
    env.reset()
    env.request_end(end)
    _, *result, info = env.step(None)
    assert result == [reward, terminated, truncated]
    info.pop(STEP_INTERVAL_MS)
    assert info == {"own": 1, IS_INTERVENTION: 0.0, MISSED_DEADLINE: False, LABEL: False, **said}


def test_latency_is_from_reading_the_device_until_the_env_takes_the_action():
    fake = FakeTime()
    env = paced(fake)
    env.reset()
    env.reading()
    fake.now += 0.004
    env.declare(True, input_age_s=0.03)
    info = env.step(None)[-1]
    assert info[LATENCY_MS] == pytest.approx(4.0)
    assert info[INPUT_LATENCY_MS] == pytest.approx(34.0)
    env.reading()
    env.declare(True)  # a device that cannot tell when its input came
    info = env.step(None)[-1]
    assert LATENCY_MS in info
    assert INPUT_LATENCY_MS not in info
    env.reading()
    env.declare(False)
    assert LATENCY_MS not in env.step(None)[-1]


def test_a_step_past_its_deadline_says_so():
    fake = FakeTime()
    env = paced(fake)
    env.reset()
    assert env.step(None)[-1][MISSED_DEADLINE] is False
    fake.now += 1.0
    assert env.step(None)[-1][MISSED_DEADLINE] is True
    assert env.missed_deadlines == 1


def test_each_step_and_reset_is_shown_before_the_wait():
    fake = FakeTime()
    env = paced(fake)
    shown = []
    env.on_step(lambda moment: shown.append((fake.now, moment)))
    env.reset()
    env.request_end(EpisodeEnd.SUCCESS)
    env.declare(True)
    env.step("action")
    (_, reset), (at, step) = shown
    assert (reset.action, reset.intervening, reset.interval_ms) == (None, False, None)
    assert (step.action, step.intervening, step.reward, step.terminated) == ("action", True, 1.0, True)
    assert at < fake.now


def test_a_verdict_does_not_reach_into_the_next_episode():
    env = paced(FakeTime())
    env.reset()
    env.request_end(EpisodeEnd.RERECORD)
    env.reset()
    assert RERECORD not in env.step(None)[4]


def test_what_lives_as_long_as_the_env_is_closed_with_it_once():
    env = paced(FakeTime())
    closed = []
    env.on_close(lambda: closed.append(1))
    env.close()
    env.close()
    assert closed == [1]


CLAIM = """
import os, threading
from hil_rllib.collect.pacing import claim_priority
stop = threading.Event()
threading.Thread(target=stop.wait).start()
print(claim_priority(), *(
    f"{os.sched_getscheduler(int(task))}/{os.getpriority(os.PRIO_PROCESS, int(task))}"
    for task in os.listdir("/proc/self/task")
))
stop.set()
"""


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="scheduling classes are Linux's")
def test_priority_is_what_it_says_it_is_for_every_thread():
    run = subprocess.run([sys.executable, "-c", CLAIM], capture_output=True, text=True, check=True)
    granted, *threads = run.stdout.split()
    assert len(threads) > 1
    for thread in threads:
        scheduler, niceness = map(int, thread.split("/"))
        assert (scheduler == os.SCHED_RR) == (granted == "real-time")
        assert (niceness == -10) == (granted == "high")


def test_priority_that_is_not_permitted_is_done_without(monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse, raising=False)
    monkeypatch.setattr(os, "setpriority", refuse)
    assert claim_priority() == "normal"


def test_failure_right_after_a_classifiers_success_is_an_appeal_and_ends_nothing():
    class Claims(gymnasium.Env):
        claim = True

        def reset(self, *, seed=None, options=None):
            return 0, {}

        def step(self, action):
            return 0, 1.0, self.claim, False, {CLASSIFIED: self.claim}

    env = OperatorWrapper(Claims())
    env.reset()
    env.step(0)  # ended by the classifier
    Claims.claim = False
    env.reset()
    env.request_end(EpisodeEnd.FAILURE)
    _, _, terminated, _, info = env.step(0)
    assert (terminated, info.get(APPEAL), VERDICT in info) == (False, True, False)
    env.request_end(EpisodeEnd.FAILURE)  # now it is about this episode
    _, _, terminated, _, info = env.step(0)
    assert (terminated, APPEAL in info, info[VERDICT]) == (True, False, False)
    env.reset()
    env.request_end(EpisodeEnd.FAILURE)  # the person themself ended the last one
    assert env.step(0)[2]
