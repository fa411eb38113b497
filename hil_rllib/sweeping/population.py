"""Population based training: poor trials go on as copies of good ones, with values a little different.

Source: Jaderberg et al. 2017, by Ray Tune. A copy is whole: networks, optimisers, what was lived through,
counters, random state. So the trial's folder is a run like any other, only none that one configuration makes.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ray.tune.schedulers import PopulationBasedTraining

from hil_rllib.config import Config
from hil_rllib.data.experience import claimed
from hil_rllib.data.journal import Journal
from hil_rllib.sac.checkpoint import STATE_FILE, read_state, replay_folder
from hil_rllib.sweeping.plan import Plan, show

COPY = "checkpoint_copied"  # in a trial's folder: the other trial's checkpoint that it goes on from
COMPARED_EVALUATIONS = 2  # between two comparisons of a trial with the others; ours
STAGED = "copied"  # a copy that is complete, but not in its place yet

Bounds = dict[str, tuple[float, float]]


class Population(PopulationBasedTraining):
    """Tune's, which says what it does."""

    def _exploit(self, tune_controller: Any, trial: Any, trial_to_clone: Any) -> None:
        super()._exploit(tune_controller, trial, trial_to_clone)
        changes = [
            f"{key} {show(trial_to_clone.config[key])} → {show(trial.config[key])}"
            for key in self._hyperparam_mutations
            if trial.config[key] != trial_to_clone.config[key]
        ]
        sys.stdout.write(f"{trial} goes on as a copy of {trial_to_clone}  {'  '.join(changes)}\n")
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
            bounds[key] = min(draw.tried), max(draw.tried)
    return Population(
        time_attr="timesteps_total",  # env steps
        metric="objective",
        mode=mode,
        perturbation_interval=compared_every(plan.first),
        hyperparam_mutations=changing,
        custom_explore_fn=partial(within, bounds),
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


def take_over(checkpoint: Path, folder: Path) -> None:
    """Make a trial's folder a copy of another one, as that checkpoint of its saw it.

    Killed on the way it is either not begun or ended by `finish_take_over`.
    """
    unfinished = folder / f"{STAGED}.partial"
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(checkpoint, unfinished / COPY)
    (unfinished / "replay").mkdir()
    for file in replay_folder(checkpoint).glob("*.journal"):
        with suppress(FileNotFoundError):  # the other goes on, and this one is not needed any more
            shutil.copy2(file, unfinished / "replay")
    for name, at in read_state(checkpoint)["journals"].items():
        # Cut off what the other did since.
        Journal(unfinished / "replay", name).recover(
            lambda record: None, start=at["records"], stop=at["records"]
        )
    with claimed(folder / "replay"):  # the trial's process of before may not have ended quite
        unfinished.rename(folder / STAGED)
        finish_take_over(folder)


def finish_take_over(folder: Path) -> None:
    """Put a copy in its place, if there is one: what the trial had is not what it goes on from any more."""
    staged = folder / STAGED
    if not staged.is_dir():
        return
    if (staged / "replay").is_dir():
        for state in folder.glob(f"checkpoint_*/{STATE_FILE}"):
            state.unlink()  # a checkpoint no more; Tune removes the rest in its turn
        shutil.rmtree(folder / "replay", ignore_errors=True)
        (staged / "replay").rename(folder / "replay")
    if (staged / COPY).is_dir():
        shutil.rmtree(folder / COPY, ignore_errors=True)
        (staged / COPY).rename(folder / COPY)
    staged.rmdir()
