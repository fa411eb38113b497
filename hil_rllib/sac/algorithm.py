"""Human-in-the-loop SAC: the loop of the project, as an RLlib Algorithm."""

from __future__ import annotations

import logging
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayTaskError
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.sac import SAC
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune.execution.placement_groups import PlacementGroupFactory
from ray.tune.result import SHOULD_CHECKPOINT, TIMESTEPS_TOTAL

from hil_rllib.collect.collector import Collector, Group
from hil_rllib.collect.runners import Greet, RunnerGroup
from hil_rllib.collect.statistics import Evaluations, Statistics
from hil_rllib.contract import RERECORD
from hil_rllib.data.experience import Experience
from hil_rllib.data.replay import Fragment, Nested, ReplayMix, Ring
from hil_rllib.logs import announced
from hil_rllib.sac.appeals import Appeals
from hil_rllib.sac.attention import Attention
from hil_rllib.sac.checkpoint import continued, keep_recorded, restore_run, save_run
from hil_rllib.sac.config import HILSACConfig
from hil_rllib.sac.demos import demo_fragments
from hil_rllib.sac.evaluation import Evaluator
from hil_rllib.sac.init_from import load_policy
from hil_rllib.sac.machine import keep_freed_memory, learner_threads, on_this_node
from hil_rllib.sac.recorder import autonomous_names, operator_names, recordings_dir, start_writer
from hil_rllib.sac.refit import Refits
from hil_rllib.under_tune import Step, UnderTune

logger = logging.getLogger(__name__)

METRICS_EVERY = 20  # updates between two readings of the losses: reading makes the learner wait for them
LEARNER_METRICS = ("q_mean", "temperature", "entropy")  # of the learner's own, those shown under `hil/` too


class HILSAC(UnderTune, SAC):
    """SAC from prior data (RLPD) with a person in the loop; see `HILSACConfig.from_config`."""

    config: HILSACConfig
    evaluator: Any  # handle of the Ray actor
    _evaluation: ray.ObjectRef | None  # the one under way
    _evaluated_at: int  # [env steps]
    _evaluated_updates: int  # made when the last evaluation was begun
    _checkpointed_at: int  # [env steps]
    _since_metrics: int  # updates

    @classmethod
    def get_default_config(cls) -> AlgorithmConfig:
        return HILSACConfig()

    # -- the loop ----------------------------------------------------------------------------------

    def training_step(self) -> None:
        """Collect what the runners did, store it, learn what the UTD budget allows, offer new weights."""
        for group, episodes, metrics in self.collector.collect(hold_back=self._owed() > self._slack):
            self.metrics.aggregate([metrics], key=ENV_RUNNER_RESULTS)
            for episode in episodes:
                self._store(group, episode)
        for episode_id in self.collector.cut_off():
            self.stats.drop(episode_id)
            self.experience.end(episode_id, self.stats.totals(), kept=True)  # what there is of it

        owed = self._owed()
        blocks = owed // self._block if self.lockstep else min(owed // self._block, self._blocks_per_push)
        for _ in range(blocks):
            self._learn(self._block)
        if blocks:
            self._push_weights()
        elif not self.lockstep:
            time.sleep(0.002)  # [s] nothing owed: wait for the runners

        if self._over:
            self._finish()
        self._evaluate_when_due()
        counts = {"env_steps": self.env_steps, "updates": self.updates}
        values = self.stats.metrics(
            **counts,
            online=len(self.online),
            demo=len(self.demo),
            demo_steps=0 if self.offline_data is None else self.offline_data.by_hand,
            on_disk=self.experience.on_disk,
        )
        values |= self.skips.values() | self.collector.counts() | self._learner_metrics
        if self.refits:
            values["reward_verdicts"] = self.refits.verdicts  # frames that operators have labelled
        greedy = {f"greedy_{name}": value for name, value in self.evaluations.latest.items()}
        self.collector.post(values | greedy, self.attention.report() if self.attention else [])
        for section, named in (("hil", values), ("evaluation", self.evaluations.latest)):
            for name, value in named.items():
                self.metrics.log_value((section, name), value, window=1)

    def _store(self, group: Group, episode: SingleAgentEpisode) -> None:
        """One fragment to rings and disk; of a person's episode once it is over and not thrown away."""
        if self.attention and group.operator:
            self.attention.note(group.name, episode)
        self.stats.add(episode, self.pushes)
        fragment, totals = Fragment.from_episode(episode), self.stats.totals()
        if not group.realtime:
            self.experience.add(fragment, totals)
        else:
            self.experience.hold(fragment, totals)
            if episode.is_done:
                thrown_away = bool(episode.get_infos(-1).get(RERECORD))
                self.experience.end(fragment.episode_id, totals, kept=not thrown_away)
        if group.operator:
            refuted = self.appeals.note(group.name, episode)
            if refuted is not None:
                self.experience.withdraw(str(refuted.id_))
            if self.refits:
                self.refits.add(episode, refuted)

    def _finish(self) -> None:
        """Have the runners do nothing more, and store what they did until then."""
        for group, episodes, _ in self.collector.finish():
            for episode in episodes:
                self._store(group, episode)

    @property
    def env_steps(self) -> int:
        """Stored, in the run's lifetime."""
        return self.experience.env_steps

    @property
    def _over(self) -> bool:
        """Whether this is the last report."""
        return self.env_steps >= self.hil.stop.env_steps

    def _owed(self) -> int:
        """Updates the UTD budget still allows: (steps − warm-up)·utd − updates made.

        None once evaluations have passed: the run ends with these weights, or has them evaluated first.
        """
        if self.skips.too_many or self.evaluations.passed(self.hil.stop):
            return 0
        sac = self.hil.sac
        return int(max(0, self.env_steps - sac.learning_starts) * sac.utd_ratio) - self.updates

    def _learn(self, updates: int, **how: Any) -> None:
        """A block of updates: critic steps, the last with an actor step."""
        if self.skips.too_many:  # nothing helps: the run ends with the next report
            return
        block, n_demo = self.mix.sample(updates, demo_only=how.get("cloning", False))
        batch = MultiAgentBatch(
            {DEFAULT_MODULE_ID: SampleBatch(block)}, env_steps=updates * self.hil.sac.batch_size
        )
        self._since_metrics += updates
        with_metrics = self._since_metrics >= METRICS_EVERY
        results = self.learner_group.update(
            batch=batch,
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self.env_steps},
            n_demo=n_demo,
            anchor=self._anchor(),
            with_metrics=with_metrics,
            **how,
        )
        if with_metrics:
            self._since_metrics = 0
            scalars = self.metrics.peek_results(results[0]).get(DEFAULT_MODULE_ID, {})
            # Cloning has no values, critic-only updates no entropy.
            self._learner_metrics |= {name: scalars[name] for name in LEARNER_METRICS if name in scalars}
            self.metrics.aggregate(results, key=LEARNER_RESULTS)
        if not how:
            self.updates += updates

    def _anchor(self) -> float:
        """Factor of the demo terms: constant 1, or falling linearly to 0."""
        over = self.hil.sac.anchor_decay_steps
        return 1.0 if over is None else max(0.0, 1.0 - self.env_steps / over)

    def _push_weights(self) -> None:
        self.pushes += 1
        self.collector.push(self.policy_state(), self.pushes)

    def _appraise(self, observations: Nested) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        answer, *_ = self.learner_group.foreach_learner(lambda learner: learner.appraise(observations))
        return answer.get()

    def policy_state(self) -> dict[str, Any]:
        """The weights that act, as an RLModule state: the averaged ones, see `acting_part`."""
        answer, *_ = self.learner_group.foreach_learner(lambda learner: learner.acting_state())
        return {DEFAULT_MODULE_ID: answer.get()}

    def _evaluate_when_due(self, now: bool = False) -> None:
        """Start a greedy evaluation every so many steps, one at a time; take its result once it is there.

        The last one is waited for. Where one passes that would end the run, and learning has gone on since,
        another follows at once, and learning waits for it: the run ends with weights that passed.
        """
        every = self.hil.evaluation.every_steps
        while True:
            due = self.env_steps // every > self._evaluated_at // every
            if self._evaluation is None and (due or now or self.evaluations.to_confirm(self.hil.stop)):
                self._evaluated_at, self._evaluated_updates = self.env_steps, self.updates
                self._evaluation = self.evaluator.run.remote(self.policy_state()[DEFAULT_MODULE_ID])
            if self._evaluation is None:
                return
            done, _ = ray.wait([self._evaluation], timeout=None if self.lockstep or self._over else 0.0)
            if not done:
                return
            self._evaluation, now = None, False
            try:
                results = ray.get(done[0])
            except RayActorError as error:
                self.evaluations.lost(error)
                now = True
            except RayTaskError as error:  # the env raised
                self.evaluations.failed(error)
            else:
                # What it starts from, before the first step, is reported but does not end a run.
                target = self.hil.stop.success if self._evaluated_at else None
                of_now = self._evaluated_updates == self.updates
                self.evaluations.add(results, self._evaluated_at, target, weights_of_now=of_now)

    def step(self) -> dict[str, Any]:
        result = super().step()
        result[TIMESTEPS_TOTAL] = Step(self.env_steps)  # TensorBoard's horizontal axis
        every = self.hil.checkpoint.every_steps
        if self.env_steps // every > self._checkpointed_at // every:
            self._checkpointed_at = self.env_steps
            result[SHOULD_CHECKPOINT] = True
        return result

    # -- set-up and tear-down ----------------------------------------------------------------------

    def setup(self, config: AlgorithmConfig) -> None:
        super().setup(config)
        self.hil = hil = self.config.hil
        self.lockstep = hil.run.mode == "lockstep"
        torch.manual_seed(hil.run.seed)
        torch.set_num_threads(learner_threads())
        keep_freed_memory()
        self.skips = self.learner_group._learner.skips

        space, _ = self.spaces[DEFAULT_MODULE_ID]
        self.online = Ring(hil.sac.online_capacity, space)
        self.demo = Ring(hil.sac.demo_capacity, space)
        self.mix = ReplayMix(self.online, self.demo, hil.sac.batch_size, hil.sac.demo_fraction, hil.run.seed)
        self.experience = Experience(self.online, self.demo, Path(hil.run.dir) / "replay")
        self.stats, self.evaluations = Statistics(), Evaluations()
        self.cursor: dict[str, Any] = {}  # of the checkpoint being made
        self.cursors: deque[dict[str, Any]] = deque(maxlen=hil.checkpoint.keep)  # of the last that are stored
        self.attention = Attention(self._appraise) if hil.operator.attention else None
        self.base = self.config.base  # kept here: its checkpoint may go
        self._learner_metrics: dict[str, float] = {}
        self.updates = self.pushes = 0
        self._evaluated_at = self._evaluated_updates = self._checkpointed_at = self._since_metrics = 0
        self._block = max(1, int(hil.sac.utd_ratio))
        self._blocks_per_push = max(1, hil.sac.weight_push_every // self._block)

        self.appeals = Appeals()
        self.refits = Refits(self.config) if self.config.refitter else None
        self.writers: dict[str, Any] = {}  # by their datasets' names; an actor lives while its handle is held
        # Fragments that may be under way on the runners before the learner counts as behind.
        runners = hil.operator.count + hil.runners.autonomous
        self._slack = 2 * hil.runners.fragment * runners * hil.sac.utd_ratio
        self.collector = Collector(self._make_groups, self.lockstep, self._so_far)

        self._evaluation = None
        spec = self.config.get_rl_module_spec(spaces=self.spaces, inference_only=True)
        evaluator = ray.remote(num_cpus=0, max_restarts=-1)(Evaluator)
        self.evaluator = evaluator.remote(hil, spec, self.base)

        if self.config.restore_from:
            self.restore_from_path(self.config.restore_from)
        else:
            self._begin()
        if self.offline_data is not None:
            self.offline_data.forget()

    def _so_far(self) -> tuple[int, int]:
        return self.experience.env_steps, self.stats.human_steps // max(1, self.hil.operator.count)

    def _make_groups(self, greet: Greet) -> list[Group]:
        """A group for each operator, who has a device of their own, and one for all autonomous runners."""
        hil = self.hil
        common = {"env_creator": self.env_creator, "logdir": self.logdir, "tune_trial_id": self.trial_id}
        groups = []
        for seat, name in enumerate(operator_names(hil)):
            config = self.config.operator(seat, self._start_writers([name], hil.record.operator))
            paced = config.env_config["operator_hz"] is not None
            runners = RunnerGroup([name], greet, config=config, **common)
            groups.append(Group(name, runners, realtime=paced, operator=True))
        if names := autonomous_names(hil):
            config = self.config.autonomous(self._start_writers(names, hil.record.autonomous))
            runners = RunnerGroup(names, greet, config=config, **common)
            groups.append(Group("autonomous", runners, realtime=False))
        return groups

    def _start_writers(self, runners: list[str], recorded: bool) -> list[str]:
        """Names of the actors that write down the runners' episodes, one each, if they are recorded."""
        hil = self.hil
        started = []
        for name in runners if recorded else []:
            actor, self.writers[name] = start_writer(recordings_dir(hil) / name, hil.record.task)
            started.append(actor)
        return started

    def _begin(self) -> None:
        """Drain the offline input into the demo ring, then the optional behaviour-cloning start.

        A run that was killed before its first checkpoint begins again, but keeps what it had stored.
        """
        if not self.config.resume:
            self.experience.check_new()
        elif self.lockstep and self.hil.record.dir is None:
            keep_recorded(self, dict.fromkeys(self.writers, 0))
        if self.experience.recover(exact=self.lockstep):
            continued(self.stats, self.experience, self.collector)
        else:
            self.experience.clear()
            if self.offline_data is not None:
                for fragment in demo_fragments(
                    self.offline_data, self.hil, self.config.classifier, self.base
                ):
                    self.experience.add_demo(fragment)
            self.experience.begin()
        if self.refits:
            self.refits.recover()
        if self.hil.run.init_from is not None and self.base is None:
            load_policy(self.learner_group._learner._policy, Path(self.hil.run.init_from))
        begun = self.hil.run.init_from is not None
        for _ in announced("Cloning the demonstrations", 0 if begun else self.hil.sac.bc_start_updates):
            self._learn(1, cloning=True)
        for _ in announced("Warming up the critics", self.hil.sac.critic_warmup_updates):
            self._learn(1, train_actor=False)
        self._push_weights()
        if begun or self.hil.sac.bc_start_updates:
            self._evaluate_when_due(now=True)

    def cleanup(self) -> None:
        try:
            self._finish()
        except OSError as error:  # what ended the run may be the disk
            logger.error("The last steps were not stored: %s", error)
        for group in self.collector.groups:
            group.runners.stop()
        for actor in (self.evaluator, *self.writers.values()):
            ray.kill(actor)  # runners close after their last episode is written
        if self.refits:
            self.refits.close()
        self.experience.close()
        super().cleanup()

    @classmethod
    def default_resource_request(cls, config: Any) -> PlacementGroupFactory:
        """What the learner needs, here, where the run's folder is. Runners find their own places."""
        return on_this_node(super().default_resource_request(config))

    # -- checkpoints -------------------------------------------------------------------------------

    def checkpoint_stored(self) -> None:
        """Let go of the journals' files that none of the last checkpoints needs."""
        if len(self.cursors) == self.cursors.maxlen:
            self.experience.forget(self.cursors[0])
        self.cursors.append(self.cursor)

    def save_to_path(self, path: Any = None, **kwargs: Any) -> str:
        self.experience.request_sync()  # meanwhile RLlib writes its part
        path = super().save_to_path(path, **kwargs)
        if self.refits:
            self.refits.save(Path(path))
        if self.base:
            self.base.save(Path(path))
        save_run(self, Path(path))  # last: it says what a whole checkpoint is made of
        return path

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        super().restore_from_path(path, *args, **kwargs)
        offered = self.pushes
        restore_run(self, Path(path))
        if self.refits:
            self.refits.recover(Path(path))
        self._checkpointed_at = self.env_steps
        self._evaluated_at = int(self.evaluations.latest.get("at_env_steps", 0))
        if not self.lockstep:
            self.pushes = max(offered, self.pushes) + 1  # runners take only what is newer
        self.collector.push(self.policy_state(), self.pushes)
