"""RLlib's BC and IQL with this project's schedule: greedy evaluations, reports, checkpoints, by updates."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayActorError, RayTaskError
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.bc import BC
from ray.rllib.algorithms.iql import IQL
from ray.rllib.algorithms.marwil import MARWIL
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.checkpoints import Checkpointable
from ray.tune.execution.placement_groups import PlacementGroupFactory
from ray.tune.result import SHOULD_CHECKPOINT, TIMESTEPS_TOTAL

from hil_rllib.collect.statistics import Evaluations
from hil_rllib.contract import CONTROL_DT
from hil_rllib.offline.config import HILACTConfig, HILBCConfig, HILIQLConfig
from hil_rllib.sac.checkpoint import read_state, restore_random, save_random, write_state
from hil_rllib.sac.evaluation import Evaluator
from hil_rllib.sac.init_from import load_policy
from hil_rllib.sac.machine import keep_freed_memory, learner_threads, on_this_node
from hil_rllib.under_tune import Step, UnderTune

REPORT_EVERY = 20  # [updates]


class OfflineRun(UnderTune, MARWIL):
    """What the algorithms, all derived from MARWIL by RLlib, get here; the update is RLlib's own.

    Nobody waits here, so an evaluation is waited for: what ends a run are the weights that it then saves.
    """

    config: HILBCConfig | HILIQLConfig
    evaluator: Any = None  # handle of the Ray actor
    updates: int
    over = False  # whether the run that it goes on from had come to its end

    def setup(self, config: AlgorithmConfig) -> None:
        torch.manual_seed(self.config.hil.run.seed)
        torch.set_num_threads(learner_threads())
        keep_freed_memory()
        super().setup(config)
        self.hil = hil = self.config.hil
        self.skips = self.learner_group._learner.skips
        self.updates = self._saved_at = 0
        self.evaluations = Evaluations(clock="updates")
        self._clock = (time.monotonic(), 0)
        self.begin()
        if self.config.restore_from:
            self.restore_from_path(self.config.restore_from)
        elif hil.run.init_from:
            load_policy(self._policy, Path(hil.run.init_from))

    def begin(self) -> None:
        """Gather what to learn from; make what averages and evaluates the policy."""
        self.gather()
        if not hasattr(self._policy, f"target_{self._policy.acting[0]}"):
            self._policy.make_target_networks()
        self.prepare_policy()
        spaces = {DEFAULT_MODULE_ID: (self.config.observation_space, self.config.action_space)}
        spec = self.config.get_rl_module_spec(spaces=spaces, inference_only=True)
        self.evaluator = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Evaluator).remote(
            self.hil, spec
        )

    def gather(self) -> None:
        """Have the data drawn from."""
        self.offline_data.fill()

    def prepare_policy(self) -> None:
        """What the policy is to know of the data."""
        self._policy.set_gripper_prior(torch.from_numpy(self.offline_data.gripper_counts()))

    def training_step(self) -> None:
        """Updates up to the next report, which falls on every evaluation, checkpoint and the end."""
        if self.over:  # this report ends it again
            self._log()
            return
        while True:
            super().training_step()
            self.updates += 1
            self.average()
            if self.skips.too_many:  # nothing helps: the run ends with this report
                self._log()
                return
            if self.updates % REPORT_EVERY == 0 or self.evaluation_due() or self.checkpoint_due():
                break
        if self.evaluation_due():
            self.evaluate_greedily()
        self._log()

    def evaluation_due(self) -> bool:
        """Every so many updates, and at the end."""
        return self.updates % self.hil.evaluation.every_steps == 0 or self.updates == self.hil.schedule[1]

    def checkpoint_due(self) -> bool:
        return self.updates % self.hil.checkpoint.every_steps == 0

    @torch.no_grad()
    def average(self) -> None:
        """Move the averages, which act, towards the weights: they span the last tenth of the updates, and no
        more than 1/τ of them."""
        tau = max(self.hil.sac.tau, 10 / (10 + self.updates))
        for name in self._policy.acting:
            online, averaged = getattr(self._policy, name), getattr(self._policy, f"target_{name}")
            for weight, average in zip(online.parameters(), averaged.parameters(), strict=True):
                average.lerp_(weight, tau)

    def evaluate_greedily(self) -> None:
        """Run the greedy episodes of `evaluation` with the averaged weights."""
        try:
            results = ray.get(self.evaluator.run.remote(self._policy.acting_state()))
        except (RayTaskError, RayActorError) as error:  # the env raised, or its process is gone
            self.evaluations.failed(error)
            return
        self.evaluations.add(results, self.updates, self.hil.stop.success)

    def step(self) -> dict[str, Any]:
        result = super().step()
        result[TIMESTEPS_TOTAL] = Step(self.updates)  # TensorBoard's horizontal axis
        if self.checkpoint_due() and self._saved_at != self.updates:
            self._saved_at = self.updates
            result[SHOULD_CHECKPOINT] = True
        return result

    @classmethod
    def default_resource_request(cls, config: Any) -> PlacementGroupFactory:
        return on_this_node(super().default_resource_request(config))

    def cleanup(self) -> None:
        if self.evaluator is not None:
            ray.kill(self.evaluator)
        super().cleanup()

    def save_to_path(self, path: Any = None, **kwargs: Any) -> str:
        path = super().save_to_path(path, **kwargs)
        save_random(Path(path))
        write_state(Path(path), self.hil, self.state_of_run())
        return path

    def state_of_run(self) -> dict[str, Any]:
        """What a checkpoint of ours holds beside the configuration."""
        return {
            "env_steps": 0,
            "updates": self.updates,
            "sampler": self.offline_data.rng.bit_generator.state,
            "evaluations": asdict(self.evaluations),
            "skips": self.skips.get_state(),
        }

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        # Past `Algorithm`'s, which goes on to give the weights to env runners; here are none.
        Checkpointable.restore_from_path(self, path, *args, **kwargs)
        state = read_state(Path(path))
        self.updates = self._saved_at = state["updates"]
        self.offline_data.rng.bit_generator.state = state["sampler"]
        self.evaluations = Evaluations.restored(state, self.hil.stop.success)
        self.skips.set_state(state.get("skips", {}))
        self.over = self.evaluations.passed(self.hil.stop) or self.updates >= self.hil.schedule[1]
        self._clock = (time.monotonic(), self.updates)
        restore_random(Path(path))

    @property
    def _policy(self) -> Any:
        return self.learner_group._learner.module[DEFAULT_MODULE_ID].unwrapped()

    def transitions(self) -> int:
        return self.offline_data.size

    def values(self) -> dict[str, float]:
        """The run's `hil/…` metrics."""
        before, updates = self._clock
        self._clock = (time.monotonic(), self.updates)
        return {
            "env_steps": 0,
            "updates": self.updates,
            "updates_per_s": (self.updates - updates) / max(1e-6, self._clock[0] - before),
            "human_seconds": 0.0,  # in this run
            "demo_seconds": self.offline_data.by_hand * CONTROL_DT,  # [s] a person's, in the demonstrations
            "demo_ring": self.transitions(),  # drawn from
        }

    def _log(self) -> None:
        values = self.values() | self.skips.values()
        for section, named in (("hil", values), ("evaluation", self.evaluations.latest)):
            for name, value in named.items():
                self.metrics.log_value((section, name), value, window=1)


class HILBC(OfflineRun, BC):
    """Behaviour cloning: -log π of the demonstrated actions, by RLlib's own loss."""

    @classmethod
    def get_default_config(cls) -> HILBCConfig:
        return HILBCConfig()


class HILACT(OfflineRun, BC):
    """Behaviour cloning of whole chunks of actions, by ACT's losses."""

    @classmethod
    def get_default_config(cls) -> HILACTConfig:
        return HILACTConfig()

    def prepare_policy(self) -> None:
        """Nothing: a hand that is closed half of the time needs no balancing."""


class HILIQL(OfflineRun, IQL):
    """Implicit Q-learning: -log π weighted by exp(β·advantage), by RLlib's own losses.

    Of RLlib's two offline algorithms with values this one, not CQL: CQL rates actions drawn from the policy
    and at random, and wants their densities in one continuous space, where our gripper is a choice of three.
    IQL rates only what the data did. (And CQL's `training_step` in Ray 2.60 passes a batch as an iterator, so
    with a local learner it runs only through RLlib's slower streams.)
    """

    @classmethod
    def get_default_config(cls) -> HILIQLConfig:
        return HILIQLConfig()
