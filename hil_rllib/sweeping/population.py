"""Population based training: poor trials go on as copies of good ones, with values a little different.

Source: Jaderberg et al. 2017, by Ray Tune. A copy is whole: networks, optimisers, what was lived through,
counters, random state. So the trial's folder is a run like any other, only none that one configuration makes.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.train._internal.session import _TrainingResult
from ray.tune.result import TIMESTEPS_TOTAL
from ray.tune.schedulers import PopulationBasedTraining

from hil_rllib.config import Config
from hil_rllib.sac.run_copy import take_over
from hil_rllib.sweeping.plan import CONTINUOUS, Plan, show

COMPARED_EVALUATIONS = 2  # between two comparisons of a trial with the others; ours
COPIES_FILE = "copies.csv"  # in the sweep's folder: who became a copy of whom, and with which values
OBJECTIVE = "objective"

Bounds = dict[str, tuple[float, float]]


class Population(PopulationBasedTraining):
    """Tune's, but a copy is made at once, in the driver: later the other trial may be something else."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Of a sweep that is resumed, trials are compared when they would have been."""
        super().on_trial_add(tune_controller, trial)
        last, state = trial.run_metadata.last_result, self._trial_state[trial]
        if OBJECTIVE in last and TIMESTEPS_TOTAL in last:
            state.last_train_time = last[TIMESTEPS_TOTAL]
            state.last_perturbation_time = last[TIMESTEPS_TOTAL] // self._interval * self._interval
            state.last_score = self._metric_op * last[OBJECTIVE]

    @property
    def _interval(self) -> int:
        return int(self._perturbation_interval)

    def _exploit(self, tune_controller: Any, trial: Any, trial_to_clone: Any) -> None:
        mine, other = self._trial_state[trial], self._trial_state[trial_to_clone]
        if mine.last_score >= other.last_score:
            return  # in the lower quarter, but no worse
        checkpoints = trial.run_metadata.checkpoint_manager
        before = trial.config, checkpoints._latest_checkpoint_result
        times = mine.last_train_time, mine.last_perturbation_time
        super()._exploit(tune_controller, trial, trial_to_clone)
        try:
            copied = take_over(Path(other.last_checkpoint.path), Path(trial.storage.trial_fs_path))
        except OSError as error:
            say(f"{trial} stays what it is, and no copy of {trial_to_clone}: {error}")
            trial.set_config(before[0])
            checkpoints._latest_checkpoint_result = before[1]
            mine.last_train_time, mine.last_perturbation_time = times
            return
        checkpoint = tune.Checkpoint(str(copied), other.last_checkpoint.filesystem)
        checkpoints._latest_checkpoint_result = _TrainingResult(checkpoint, other.last_result)
        self._note(trial, trial_to_clone, other.last_train_time)

    def _note(self, trial: Any, other: Any, env_steps: int) -> None:
        values = {key: trial.config[key] for key in self._hyperparam_mutations}
        changes = [
            f"{key} {show(other.config[key])} → {show(value)}"
            for key, value in values.items()
            if value != other.config[key]
        ]
        say(f"{trial} goes on as a copy of {other}  {'  '.join(changes)}")
        row = {"trial": str(trial), "copy_of": str(other), "env_steps": int(env_steps), **values}
        sweep_dir = Path(trial.storage.experiment_fs_path)
        with (sweep_dir / COPIES_FILE).open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if not file.tell():
                writer.writeheader()
            writer.writerow(row)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def population(plan: Plan, space: Mapping[str, Any], mode: str) -> Population:
    """Every so many env steps a trial of the poorest quarter is replaced by a copy of one of the best.

    space: Tune's, of all keys; those of a grid stay as they are, or come with the copy.
    """
    changing: dict[str, Any] = {}
    bounds: Bounds = {}
    for key, draw in plan.space.items():
        if draw.kind == "choice":
            changing[key] = list(draw.values)  # goes to a neighbour in the list
        elif draw.kind != "grid":
            changing[key] = space[key]
            number = float if draw.kind in CONTINUOUS else int  # what is whole once, Tune keeps whole
            bounds[key] = number(min(draw.tried)), number(max(draw.tried))
    return Population(
        time_attr=TIMESTEPS_TOTAL,  # env steps
        metric=OBJECTIVE,
        mode=mode,
        perturbation_interval=compared_every(plan.first),
        hyperparam_mutations=changing,
        custom_explore_fn=partial(within, bounds),
        log_config=False,  # ours is COPIES_FILE
    )


def compared_every(config: Config) -> int:
    """[env steps] between two comparisons of a trial with the others."""
    return COMPARED_EVALUATIONS * config.evaluation.every_steps


def within(bounds: Bounds, config: dict[str, Any]) -> dict[str, Any]:
    """A trial's values after Tune has multiplied them, which may take them out of their ranges."""
    clipped = {key: min(max(config[key], low), high) for key, (low, high) in bounds.items()}
    return config | clipped


def kept_checkpoints(config: Config) -> int:
    """So many that the newest one at a trial's last comparison is still there at its next."""
    return config.checkpoint.keep + 1 + -(-compared_every(config) // config.checkpoint.every_steps)
