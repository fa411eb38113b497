"""The run's own metrics, `hil/…`: each is defined here once, with its meaning and unit."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from hil_rllib.collect.pacing import INPUT_LATENCY_MS, LATENCY_MS, MISSED_DEADLINE, STEP_INTERVAL_MS
from hil_rllib.config import StopSection
from hil_rllib.contract import CLASSIFIED, CONTROL_DT, HELD_COMMANDS, IS_INTERVENTION, RERECORD, SUCCESS

logger = logging.getLogger(__name__)

TOTALS = ("human_steps", "episodes", "held_commands", "missed_deadlines")
WINDOW = 20  # episodes that a moving rate looks back on
FAILURES = 3  # evaluations in a row that may not be made; then the run ends
LOST_S = 120.0  # [s] that the evaluator's process may die again and again


@dataclass
class _Running:
    steps: int = 0
    human_steps: int = 0


class Statistics:
    """Counts what came from the runners and reports it."""

    def __init__(self) -> None:
        self.human_steps = 0
        self.episodes = 0
        self.held_commands = 0
        self._running: dict[str, _Running] = {}
        self._recent: deque[tuple[bool, _Running]] = deque(maxlen=WINDOW)
        self.missed_deadlines = 0
        self._classified: deque[tuple[bool, bool]] = deque(maxlen=WINDOW)  # by the classifier, by the env
        self._intervals_ms: deque[float] = deque(maxlen=600)
        self._latencies_ms: dict[str, deque[float]] = {
            name: deque(maxlen=600) for name in (LATENCY_MS, INPUT_LATENCY_MS)
        }
        self._staleness: deque[int] = deque(maxlen=WINDOW)
        self._rates = (0.0, 0.0)
        self._rate_since: tuple[float, int, int] | None = None  # clock, env steps, updates

    def add(self, episode: SingleAgentEpisode, newest_weights: int) -> None:
        """Count one fragment as it arrives. newest_weights: sequence number of the last push."""
        running = self._running.setdefault(str(episode.id_), _Running())
        length = len(episode)
        if length:
            flags = np.asarray(episode.get_extra_model_outputs(IS_INTERVENTION), np.float32)
            running.steps += length
            running.human_steps += int((flags > 0).sum())
            self.human_steps += int((flags > 0).sum())
            self._staleness.append(newest_weights - int(episode.get_extra_model_outputs(WEIGHTS_SEQ_NO, -1)))
            infos = episode.get_infos()[1:]
            self.held_commands += sum(HELD_COMMANDS in info for info in infos)
            self._intervals_ms.extend(info[STEP_INTERVAL_MS] for info in infos if STEP_INTERVAL_MS in info)
            for name, window in self._latencies_ms.items():
                window.extend(info[name] for info in infos if name in info)
            self.missed_deadlines += sum(bool(info.get(MISSED_DEADLINE)) for info in infos)
        if episode.is_done:
            self._running.pop(str(episode.id_))
            last = episode.get_infos(-1)
            if not last.get(RERECORD):
                self.episodes += 1
                self._recent.append((bool(last.get(SUCCESS)), running))
                if CLASSIFIED in last:
                    self._classified.append((bool(last[CLASSIFIED]), bool(last.get(SUCCESS))))

    def drop(self, episode_id: str) -> None:
        """Forget an episode that was cut off; its steps stay counted."""
        self._running.pop(episode_id, None)

    def metrics(
        self,
        *,
        env_steps: int,
        updates: int,
        online: int,
        demo: int,
        demo_steps: int = 0,
        on_disk: Mapping[str, int] | None = None,
    ) -> dict[str, float]:
        """All `hil/…` values of this moment.

        demo_steps: a person's in the demonstrations. on_disk: the counts that would outlive a crash.
        """
        if self._rate_since is None:  # the first report; a run that goes on does not begin at 0
            self._rate_since = (time.monotonic(), env_steps, updates)
        clock, steps_before, updates_before = self._rate_since
        elapsed = time.monotonic() - clock
        if elapsed > 1.0:
            self._rates = ((env_steps - steps_before) / elapsed, (updates - updates_before) / elapsed)
            self._rate_since = (time.monotonic(), env_steps, updates)
        values: dict[str, float] = {
            "env_steps": env_steps,  # steps stored, in the run's lifetime
            "updates": updates,  # gradient updates within the UTD budget
            "env_steps_per_s": self._rates[0],  # over the last second
            "updates_per_s": self._rates[1],
            "episodes": self.episodes,
            "human_seconds": self.human_steps * CONTROL_DT,  # [s] of robot's time in a person's hands
            "demo_seconds": demo_steps * CONTROL_DT,  # [s] likewise, in the demonstrations
            "held_commands": self.held_commands,  # not finite: the arm held still
            "online_ring": online,  # transitions that can be sampled
            "demo_ring": demo,
            "missed_deadlines": self.missed_deadlines,  # operators' steps that came late, in the run's life
        }
        if on_disk:
            values["env_steps_on_disk"] = on_disk["env_steps"]  # of env_steps: synced, come what may
            values["human_seconds_on_disk"] = on_disk.get("human_steps", 0) * CONTROL_DT
        if self._recent:
            steps = sum(r.steps for _, r in self._recent)
            values["success_rate"] = float(
                np.mean([success for success, _ in self._recent])
            )  # last 20 episodes
            # Steps with a human action / all steps, last 20 episodes, [0, 1].
            values["intervention_rate"] = sum(r.human_steps for _, r in self._recent) / max(steps, 1)
            values["episode_steps"] = steps / len(self._recent)
        if any(classified for classified, _ in self._classified):
            # Of the last 20 episodes' those that a classifier ended as success: how many truly were, [0, 1].
            values["reward_precision"] = float(np.mean([own for by, own in self._classified if by]))
        if self._staleness:
            values["weights_staleness"] = float(
                np.mean(self._staleness)
            )  # pushes behind, at the end of a fragment
        if self._intervals_ms:  # the operator's step interval [ms], last 600 steps
            p50, p99 = np.percentile(self._intervals_ms, [50, 99])
            values |= {"step_interval_ms_p50": p50, "step_interval_ms_p99": p99}
            values["step_interval_ms_max"] = max(self._intervals_ms)
        # [ms] until the env takes a person's action, last 600 such steps: `latency_ms` from reading the
        # device, `input_latency_ms` from the arrival of the input where the device can tell.
        for name, window in self._latencies_ms.items():
            if window:
                p50, p99 = np.percentile(window, [50, 99])
                values |= {f"{name}_p50": p50, f"{name}_p99": p99}
        return values

    def totals(self) -> dict[str, int]:
        """What is counted over the run's lifetime; goes with everything that is stored."""
        return {name: getattr(self, name) for name in TOTALS}

    def set_totals(self, totals: Mapping[str, int]) -> None:
        for name, value in totals.items():
            setattr(self, name, value)

    def forget_running(self) -> None:
        """The episodes under way will not be continued."""
        self._running.clear()

    def get_state(self) -> dict[str, Any]:
        """Plain values: the totals, what rates look back on, the episodes under way; times are not kept."""
        return {
            **self.totals(),
            "running": {episode: asdict(running) for episode, running in self._running.items()},
            "recent": [[success, asdict(running)] for success, running in self._recent],
            "classified": list(self._classified),
            "staleness": list(self._staleness),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `get_state`; one of version 1 has only the totals, others may lack a window."""
        for window in (self._recent, self._staleness, self._classified):
            window.clear()
        self.set_totals({name: state[name] for name in TOTALS if name in state})
        self._running = {episode: _Running(**counts) for episode, counts in state.get("running", {}).items()}
        self._recent.extend((success, _Running(**counts)) for success, counts in state.get("recent", ()))
        self._staleness.extend(state.get("staleness", ()))
        self._classified.extend((by, own) for by, own in state.get("classified", ()))


@dataclass
class Evaluations:
    """Greedy evaluations so far, and whether they end the run. clock: what the run's schedule counts."""

    passed_in_row: int = 0
    latest: dict[str, float] = field(default_factory=dict)  # `evaluation/…`, repeated until the next
    clock: str = "env_steps"
    failed_in_row: int = 0

    def __post_init__(self) -> None:
        self._lost: list[float] = []  # clock [s] of each in a row whose process died

    def add(
        self, results: Sequence[Any], at: int, target: float | None, *, weights_of_now: bool = True
    ) -> None:
        """Take in one evaluation. results: `EpisodeResult`s; at: by the clock; target: stop.success.

        weights_of_now: nothing was learned since it was begun.
        """
        self.failed_in_row = 0
        self._lost.clear()
        success = float(np.mean([r.success for r in results]))
        reached = target is not None and success >= target
        self.passed_in_row = self.passed_in_row + 1 if reached else 0
        self.latest = {
            "success": success,  # fraction of episodes solved, [0, 1]
            "episodes": len(results),
            "episode_steps": float(np.mean([r.steps for r in results])),
            "reward": float(np.mean([r.reward for r in results])),
            "penalty": float(np.mean([r.penalty for r in results])),
            f"at_{self.clock}": at,  # whose weights these are
            "passed_in_row": self.passed_in_row,
            "weights_of_now": float(weights_of_now),
        }

    def passed(self, stop: StopSection) -> bool:
        """Whether enough in a row have passed to end the run."""
        return stop.success is not None and self.passed_in_row >= stop.evaluations_in_row

    def to_confirm(self, stop: StopSection) -> bool:
        """Whether the last of these was of weights from which learning has gone on since."""
        return self.passed(stop) and self.latest.get("weights_of_now") == 0.0

    @classmethod
    def restored(cls, state: Mapping[str, Any], target: float | None) -> Self:
        """Those of a checkpoint's state; with another target than it had none counts as passed."""
        evaluations = cls(**state["evaluations"])
        if evaluations.passed_in_row and state["config"]["stop"]["success"] != target:
            evaluations.passed_in_row = evaluations.latest["passed_in_row"] = 0
        return evaluations

    def lost(self, error: Exception) -> None:
        """Take note of one whose process died; raises the error where none has been made for too long.

        While the process is started anew every one that is asked for is lost, within a second or two.
        """
        self._lost.append(time.monotonic())
        if len(self._lost) >= FAILURES and self._lost[-1] - self._lost[0] > LOST_S:
            raise error
        if len(self._lost) == 1:
            logger.warning("An evaluation was lost with its process; making it again.")

    def failed(self, error: Exception) -> None:
        """Take note of one that an error ended, which is raised where it is one too many in a row."""
        self._lost.clear()
        self.failed_in_row += 1
        if self.failed_in_row >= FAILURES:
            raise error
        last = str(error).strip().rpartition("\n")[2]  # before it is the traceback
        logger.warning("No evaluation; the next one is made when it is due. It ended by %s", last)
