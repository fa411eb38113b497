"""The env as a person drives it: in real time, and ended when the person says so."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import gymnasium

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
from hil_rllib.devices.base import Moment

logger = logging.getLogger(__name__)

APPEAL_STEPS = 15  # of an episode, in which "failure" is about the last one; ours
# In `info` of every step:
STEP_INTERVAL_MS = "step_interval_ms"  # from the end of the previous step (or reset) to this one's
MISSED_DEADLINE = "missed_deadline"  # True where the step came later than `hz` asks for
# In `info` of steps with a person's action, until the env takes it:
LATENCY_MS = "latency_ms"  # from reading the device
INPUT_LATENCY_MS = "input_latency_ms"  # from the arrival of the input, where the device can tell


def claim_priority() -> str:
    """Ask the system to run this process, all its threads, ahead of all others.

    Sleeping precisely is not enough on a machine whose cores are all busy: the step is late because nobody
    wakes it. On two saturated cores p99 of the interval at 10 Hz was 185 ms as is, 109 ms with niceness -10,
    and 100.4 ms with real-time scheduling; busy waiting over the last 5 ms only brought it to 121 ms.
    Call it once in the process that steps a paced env, before the env is made: the renderer's threads inherit
    it. Threads that are there already need it too, such as Ray's own, which hand the runner its next order.

    Returns what was granted: "real-time", "high" or "normal". Ordinary users get "normal" unless the system
    allows more (`ulimit -r`, CAP_SYS_NICE); then the learner should run with a raised niceness instead.
    """
    try:
        _for_each_thread(lambda thread: os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(1)))
        return "real-time"
    except (OSError, AttributeError):  # not permitted; not Linux
        pass
    try:
        _for_each_thread(lambda thread: os.setpriority(os.PRIO_PROCESS, thread, -10))
        return "high"
    except (OSError, AttributeError):
        logger.info("No priority for the operator's process: the system does not permit it.")
        return "normal"


def _for_each_thread(ask: Callable[[int], None]) -> None:
    """Call `ask` with the id of every thread of this process, where the system tells; 0 is the caller's."""
    tasks = Path("/proc/self/task")
    for thread in [int(task.name) for task in tasks.iterdir()] if tasks.is_dir() else [0]:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            ask(thread)


class OperatorWrapper(gymnasium.Wrapper):
    """Paces `step` to `hz` and turns the operator's verdict into the end of the episode.

    The wait is at the end of `step`, so that what follows (policy, device, physics) uses up its own part of
    the period and a command is read just before it is executed. Deadlines lie on one schedule,
    t_reset + k / hz, so errors of single sleeps do not add up. A step that comes later than its deadline
    is counted in `missed_deadlines` and starts a new schedule; it is not made up for by hurrying.

    Where a classifier has just ended an episode as success, "failure" in the first `APPEAL_STEPS` of the next
    one says that it was none: info tells, and the episode goes on.

    hz: control rate [1/s]; None runs as fast as the machine can.
    """

    STATE: ClassVar[tuple[str, ...]] = ("_end", "_intervening", "missed_deadlines")

    def __init__(
        self,
        env: gymnasium.Env,
        hz: float | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if hz is not None and not hz > 0:
            raise ValueError(f"hz must be above 0, or None for no pacing; got {hz}.")
        super().__init__(env)
        self.missed_deadlines = 0
        self._period = None if hz is None else 1.0 / hz
        self._clock = clock
        self._sleep = sleep
        self._deadline = 0.0
        self._previous_end = 0.0
        self._interval_ms: float | None = None
        self._end = EpisodeEnd.NONE
        self._claimed, self._appeal_left = False, 0
        self._intervening = self._label = False
        self._read_at: float | None = None
        self._input_age_s: float | None = None
        self._on_step: list[Callable[[Moment], None]] = []
        self._on_close: list[Callable[[], None]] = []

    def request_end(self, end: EpisodeEnd) -> None:
        """End the episode with the next step; of several requests before it the last one counts."""
        self._end = end

    def reading(self) -> None:
        """Say that the device is read now: the latency of the next step counts from here."""
        self._read_at = self._clock()

    def declare(self, intervening: bool, input_age_s: float | None = None, label: bool = False) -> None:
        """Say whether a person's action is executed in the next step; its info will tell.

        input_age_s: [s] from the arrival of their input to the reading. label: they call what they see before
        the step success.
        """
        self._intervening, self._input_age_s, self._label = intervening, input_age_s, label

    def on_step(self, callback: Callable[[Moment], None]) -> None:
        """Call `callback` with what came of each step and reset, before the wait: it must be quick."""
        self._on_step.append(callback)

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the env is closed: for what lives exactly as long, such as a device."""
        self._on_close.append(callback)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset; the schedule begins when it is done, however long it took."""
        result = self.env.reset(seed=seed, options=options)
        self._end = EpisodeEnd.NONE
        self._claimed, self._appeal_left = False, APPEAL_STEPS if self._claimed else 0
        self._intervening, self._interval_ms = False, None
        self._tell(result[0], None, 0.0, False, False, result[1])
        self._deadline = self._previous_end = self._clock()
        return result

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, apply the operator's verdict, wait for the deadline."""
        latency = self._latency()
        observation, reward, terminated, truncated, info = self.env.step(action)
        info = {**info, **latency, IS_INTERVENTION: float(self._intervening), LABEL: self._label}
        end, self._end = self._end, EpisodeEnd.NONE
        if end is EpisodeEnd.FAILURE and self._appeal_left > 0:
            end, info[APPEAL] = EpisodeEnd.NONE, True
        self._appeal_left = 0 if APPEAL in info else self._appeal_left - 1
        self._claimed = bool(info.get(CLASSIFIED)) and end is EpisodeEnd.NONE
        if end in (EpisodeEnd.SUCCESS, EpisodeEnd.FAILURE):
            # The person's word outweighs the env's reward and any time limit met at the same step.
            succeeded = end is EpisodeEnd.SUCCESS
            reward, terminated, truncated = float(succeeded), True, False
            info[SUCCESS] = info[VERDICT] = succeeded
        elif end is EpisodeEnd.RERECORD:
            truncated = True
            info[RERECORD] = True
        self._tell(observation, action, float(reward), terminated, truncated, info)
        info[MISSED_DEADLINE] = not self._wait()
        now = self._clock()
        info[STEP_INTERVAL_MS] = self._interval_ms = 1000.0 * (now - self._previous_end)
        self._previous_end = now
        return observation, float(reward), terminated, truncated, info

    def close(self) -> None:
        """Close what was registered with `on_close`, then the env."""
        while self._on_close:
            self._on_close.pop()()
        super().close()

    def _latency(self) -> dict[str, float]:
        read_at, self._read_at = self._read_at, None
        if read_at is None or not self._intervening:
            return {}
        values = {LATENCY_MS: 1000.0 * (self._clock() - read_at)}
        if self._input_age_s is not None:
            values[INPUT_LATENCY_MS] = values[LATENCY_MS] + 1000.0 * self._input_age_s
        return values

    def _tell(
        self, observation: Any, action: Any, reward: float, terminated: bool, truncated: bool, info: Any
    ) -> None:
        if self._on_step:
            moment = Moment(
                observation,
                action,
                self._intervening,
                reward,
                terminated,
                truncated,
                info,
                self.missed_deadlines,
                self._interval_ms,
            )
            for callback in self._on_step:
                callback(moment)

    def _wait(self) -> bool:
        """Until the deadline; False if it is past."""
        if self._period is None:
            return True
        self._deadline += self._period
        remaining = self._deadline - self._clock()
        if remaining >= 0:
            self._sleep(remaining)
            return True
        self.missed_deadlines += 1
        self._deadline -= remaining  # a new schedule, from now
        return False
