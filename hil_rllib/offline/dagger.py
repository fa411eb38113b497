"""HG-DAgger (Kelly et al. 2019): a person corrects the policy as it acts, and it learns the corrections.

A round is so many episodes in the operator's runner, then so many updates on the demonstrations and on all
corrections so far. Only what the person did is learned: of a chunk, too, only what lies before they let go.
While the policy learns the robot waits, at most two steps into its next episode.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS

from hil_rllib.collect.collector import Collector, Group
from hil_rllib.collect.runners import Greet, RunnerGroup
from hil_rllib.collect.statistics import Statistics
from hil_rllib.contract import CONTROL_DT, RERECORD
from hil_rllib.data.experience import Experience
from hil_rllib.data.replay import Fragment, Ring
from hil_rllib.offline.algorithm import HILACT, HILBC, OfflineRun
from hil_rllib.offline.dagger_config import DAggerACTConfig, DAggerBCConfig, RoundsConfig
from hil_rllib.offline.dagger_plot import draw_rounds
from hil_rllib.sac.checkpoint import bring_journals, continued, read_state
from hil_rllib.sac.config import make_env
from hil_rllib.sac.recorder import operator_names, recordings_dir, start_writer

logger = logging.getLogger(__name__)

ROUNDS = "rounds"  # in Tune's result: what each round came to
PICTURE_FILE = "rounds.png"
REPORT_S = 1.0  # [s] between reports while the robot moves


class Rounds(OfflineRun):
    """An offline run that goes on in rounds. Where it is follows from its counts of updates and episodes."""

    config: RoundsConfig
    rounds: list[dict[str, Any]]

    def setup(self, config: AlgorithmConfig) -> None:
        super().setup(config)
        if self.evaluation_due() and not self.rounds:  # it begins with a policy from elsewhere
            self.evaluate_greedily()

    def begin(self) -> None:
        self.rounds, self.stats = [], Statistics()
        self._writers: list[Any] = []  # handles; an actor lives as long as one is held
        self.collector = Collector(self._make_groups, lockstep=False, so_far=self._so_far)
        super().begin()

    def _so_far(self) -> tuple[int, int]:
        return self.experience.env_steps, self.stats.human_steps

    def _make_groups(self, greet: Greet) -> list[Group]:
        hil, (name,) = self.hil, operator_names(self.hil)
        recorded = [recordings_dir(hil) / name] if hil.record.operator else []
        started = [start_writer(folder, hil.record.task) for folder in recorded]
        self._writers = [handle for _, handle in started]
        runners = RunnerGroup(
            [name],
            greet,
            config=self.config.operator([writer for writer, _ in started]),
            env_creator=make_env,
            logdir=self.logdir,
            tune_trial_id=self.trial_id,
        )
        return [Group(name, runners, realtime=False, operator=True)]  # it waits while the policy learns

    def gather(self) -> None:
        """The demonstrations, and of a run that goes on all corrections."""
        data, restore_from = self.offline_data, self.config.restore_from
        # What the policy did is not drawn from, so there is room for one episode.
        acted = Ring(self.hil.env.max_episode_steps + 1, self.config.observation_space)
        self.experience = Experience(acted, data.ring, Path(self.hil.run.dir) / "replay")
        if restore_from:
            bring_journals(self.experience.folder, Path(restore_from))
        elif not self.config.resume:
            self.experience.check_new()
        seen = read_state(Path(restore_from))["journals"] if restore_from else None
        if self.experience.recover(seen, exact=False):
            self._continue()
        else:
            self.experience.clear()
            for fragment in data.fragments():
                self.experience.add_demo(fragment)
            self.experience.begin()
        data.indexed()

    # -- the loop ----------------------------------------------------------------------------------

    def training_step(self) -> None:
        """Episodes with the person, or updates, up to the next report."""
        if self._learns or self.over:
            self._collect(hold_back=True)  # the last steps of those asked for
            self.offline_data.indexed()
            self.prepare_policy()
            super().training_step()
            return
        until = time.monotonic() + REPORT_S
        while not self._learns and time.monotonic() < until:
            self._collect(hold_back=False)
            time.sleep(0.002)  # [s] most of the time nothing is there
        self._log()

    @property
    def _learns(self) -> bool:
        """Whether updates are due; otherwise it is the person's turn."""
        done, within = divmod(self._learned, self.hil.dagger.updates)
        return done < 0 or within > 0 or self.stats.episodes >= (done + 1) * self.hil.dagger.episodes

    @property
    def _learned(self) -> int:
        """Updates since the first round could begin."""
        return self.updates - self.hil.schedule[1] + self.hil.dagger.rounds * self.hil.dagger.updates

    def _collect(self, *, hold_back: bool) -> None:
        """Take what the robot did; have it go on unless it is held back."""
        for _, episodes, metrics in self.collector.collect(hold_back=hold_back):
            self.metrics.aggregate([metrics], key=ENV_RUNNER_RESULTS)
            for episode in episodes:
                self._store(episode)
        for episode_id in self.collector.cut_off():
            self.stats.drop(episode_id)
            self.experience.end(episode_id, self.stats.totals(), kept=True)  # what there is of it

    def _store(self, episode: SingleAgentEpisode) -> None:
        """To disk at once; what the person did is learned once the episode is over and not thrown away."""
        self.stats.add(episode, newest_weights=self.updates)
        fragment, totals = Fragment.from_episode(episode), self.stats.totals()
        self.experience.hold(fragment, totals)
        if episode.is_done:
            thrown_away = bool(episode.get_infos(-1).get(RERECORD))
            self.experience.end(fragment.episode_id, totals, kept=not thrown_away)

    def evaluation_due(self) -> bool:
        """At the end of every round, and before the first."""
        return self._learned >= 0 and self._learned % self.hil.dagger.updates == 0

    checkpoint_due = evaluation_due

    def evaluate_greedily(self) -> None:
        """A round is over: note what it came to, and let the policy act as it is now."""
        super().evaluate_greedily()
        finished = {
            "round": len(self.rounds),
            "greedy_success": None if self.evaluations.failed_in_row else self.evaluations.latest["success"],
            "human_seconds": round(self.stats.human_steps * CONTROL_DT, 1),  # so far
            "episodes": self.stats.episodes,  # so far
            "learned_from": self.transitions(),  # steps of demonstrations and corrections
        }
        self.rounds.append(finished)
        try:
            draw_rounds(Path(self.hil.run.dir) / PICTURE_FILE, self.rounds)
        except OSError as error:  # a full disk must not end the training
            logger.error("No picture of the rounds: %s", error)
        self._offer()

    def _offer(self) -> None:
        weights = {DEFAULT_MODULE_ID: self._policy.acting_state()}
        self.collector.push(weights, seq_no=self.updates + 1)  # a runner begins with 0

    def values(self) -> dict[str, float]:
        """The run's `hil/…` metrics, which the operator's page shows too."""
        counts = {"env_steps": self.experience.env_steps, "updates": self.updates}
        values = self.stats.metrics(
            **counts,
            online=0,
            demo=self.transitions(),
            demo_steps=self.offline_data.by_hand,
            on_disk=self.experience.on_disk,
        )
        values["round"] = min(len(self.rounds), self.hil.dagger.rounds)  # under way; 0: before the first
        values |= self.collector.counts()
        greedy = {f"greedy_{name}": value for name, value in self.evaluations.latest.items()}
        self.collector.post(values | greedy, [])
        return values

    def step(self) -> dict[str, Any]:
        result = super().step()
        result[ROUNDS] = list(self.rounds)
        return result

    def cleanup(self) -> None:
        try:
            for _, episodes, _ in self.collector.finish():
                for episode in episodes:
                    self._store(episode)
        except OSError as error:  # what ended the run may be the disk
            logger.error("The last steps were not stored: %s", error)
        for group in self.collector.groups:
            group.runners.stop()
        for writer in self._writers:  # runners close after their last episode is written
            ray.kill(writer)
        self.experience.close()
        super().cleanup()

    # -- checkpoints -------------------------------------------------------------------------------

    def checkpoint_stored(self) -> None:
        self.experience.forget(self._cursor)

    def state_of_run(self) -> dict[str, Any]:
        self._cursor = self.experience.cursor()
        return super().state_of_run() | {
            "journals": self._cursor,
            "env_steps": self.experience.env_steps,
            "rounds": self.rounds,
            "statistics": self.stats.get_state(),
        }

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """Take over policy and rounds; the corrections are there already, later ones too."""
        super().restore_from_path(path, *args, **kwargs)
        state = read_state(Path(path))
        self.rounds = state["rounds"]
        self.stats.set_state(state["statistics"])
        self._continue()
        self._offer()

    def _continue(self) -> None:
        continued(self.stats, self.experience, self.collector)


class DAggerACT(Rounds, HILACT):
    """HG-DAgger of an ACT policy."""

    @classmethod
    def get_default_config(cls) -> DAggerACTConfig:
        return DAggerACTConfig()


class DAggerBC(Rounds, HILBC):
    """HG-DAgger of a policy cloned step by step."""

    @classmethod
    def get_default_config(cls) -> DAggerBCConfig:
        return DAggerBCConfig()
