"""One trial of a sweep: a run in a folder of its own, as `hil_rllib.train` would make it, under Ray Tune."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from ray.tune.result import DONE

from hil_rllib.config import CONFIG_FILE, Config
from hil_rllib.progress import RunStopper
from hil_rllib.sac.checkpoint import newest_checkpoint, run_folder
from hil_rllib.sweeping.objective import Objective
from hil_rllib.sweeping.plan import Plan
from hil_rllib.sweeping.population import COPY, finish_take_over, kept_checkpoints, take_over
from hil_rllib.train import ALGORITHMS, check_ingredients
from hil_rllib.under_tune import Patient, UnderTune

OBJECTIVE_FILE = "objective.json"
PLAN, FOLDER, LIBRARY = "plan", "folder", "library"  # Tune's constant parameters


class Trial(Patient):
    """Holds the algorithm instead of being it, so that each trial's folder is a whole run.

    `setup` takes plan, folder (of the sweep), library (of the demonstrations), and the varied keys' values.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._plan: Plan = config[PLAN]
        self._folder = Path(config[FOLDER]) / dirname(self.trial_id)
        self._library: str = config[LIBRARY]
        self.hil = self._plan.config({key: config[key] for key in self._plan.space}, str(self._folder))
        self.objective = Objective(self._plan.sweep.objective, self.hil)
        self._stopper = RunStopper(self.hil)

    @cached_property
    def algorithm(self) -> UnderTune:
        """Built for the first step: before it Tune may say that a copy of another trial is what goes on."""
        run, folder = self.hil, self._folder
        finish_take_over(folder)
        # Not the checkpoint that Tune names: the newest one.
        saved = newest_checkpoint(folder)
        ready = check_ingredients(without_demos(run), folder, resumed=saved is not None)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(run.to_yaml())
        ready = replace(ready, demos=run.demos)
        if self._plan.sweep.scheduler == "pbt":
            ready = replace(ready, checkpoint=replace(ready.checkpoint, keep=kept_checkpoints(run)))
        rllib = ALGORITHMS[run.run.algorithm].from_config(ready)
        rllib.seated = False
        # Runners find their own places, and other trials may have all: theirs are in what this one reserved.
        rllib.env_runners(num_cpus_per_env_runner=0)
        if run.demos.source != "none":
            rllib.input_read_method_kwargs = rllib.input_read_method_kwargs | {"library": self._library}
        rllib.resume = saved is not None
        if saved:
            rllib.restore_from = str(saved)
            if (saved / OBJECTIVE_FILE).is_file():  # not where `train --resume` has gone on with it
                self.objective.restore(json.loads((saved / OBJECTIVE_FILE).read_text()))
        else:
            shutil.rmtree(folder / "replay", ignore_errors=True)  # of an attempt without a checkpoint
        algorithm: UnderTune = rllib.build_algo()
        torch.set_num_threads(max(1, self._plan.cpus - run.runners.autonomous))
        return algorithm

    def step(self) -> dict[str, Any]:
        result: dict[str, Any] = self.algorithm.step()
        self.objective.add_to(result)
        result[DONE] = self._stopper(self.trial_id, result)
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        # First: the algorithm's part ends with what a whole checkpoint is made of.
        (Path(checkpoint_dir) / OBJECTIVE_FILE).write_text(json.dumps(self.objective.state()))
        self.algorithm.save_to_path(checkpoint_dir)

    def load_checkpoint(self, checkpoint: str | dict[str, Any] | None) -> None:
        """Of another trial's, take over what it is; this one's own newest is found without Tune."""
        if isinstance(checkpoint, str) and run_folder(Path(checkpoint)) != self._folder.resolve():
            take_over(Path(checkpoint), self._folder)

    def checkpoint_stored(self) -> None:
        shutil.rmtree(self._folder / COPY, ignore_errors=True)  # there is a newer one
        self.algorithm.checkpoint_stored()

    def moment(self) -> str:
        return self.algorithm.moment()

    def cleanup(self) -> None:
        if "algorithm" in vars(self):
            self.algorithm.stop()


def without_demos(run: Config) -> Config:
    """For `check_ingredients`, which would read the demonstrations anew."""
    return replace(run, demos=replace(run.demos, source="none"))


def dirname(trial_id: str) -> str:
    """Of a trial; its number in the sweep is the end of its id."""
    return f"trial_{trial_id.rpartition('_')[2]}"
