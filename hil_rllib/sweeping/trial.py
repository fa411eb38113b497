"""One trial of a sweep: a run in a folder of its own, as `hil_rllib.train` would make it, under Ray Tune."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ray.tune.result import DONE

from hil_rllib.config import CONFIG_FILE, Config
from hil_rllib.progress import RunStopper
from hil_rllib.sac.checkpoint import newest_checkpoint
from hil_rllib.sac.run_copy import finish_take_over
from hil_rllib.sweeping.objective import Objective
from hil_rllib.sweeping.plan import Plan, dirname
from hil_rllib.sweeping.population import kept_checkpoints
from hil_rllib.train import ALGORITHMS, check_ingredients
from hil_rllib.under_tune import Patient, UnderTune

OBJECTIVE_FILE = "objective.json"


class Trial(Patient):
    """Holds the algorithm instead of being it, so that each trial's folder is a whole run."""

    def setup(self, config: dict[str, Any], *, plan: Plan, sweep_dir: str, library: str) -> None:
        """config: the varied keys' values; library: of the demonstrations."""
        folder = Path(sweep_dir) / dirname(self.trial_id)
        self.hil = run = plan.config({key: config[key] for key in plan.space}, str(folder))
        finish_take_over(folder)
        # Tune restores what it has set up; here set-up itself goes on from the newest checkpoint.
        saved = newest_checkpoint(folder)
        ready = check_ingredients(without_demos(run), folder, resumed=saved is not None)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(run.to_yaml())
        ready = replace(ready, demos=run.demos)
        if plan.sweep.scheduler == "pbt":
            ready = replace(ready, checkpoint=replace(ready.checkpoint, keep=kept_checkpoints(run)))
        rllib = ALGORITHMS[run.run.algorithm].from_config(ready)
        rllib.seated = False
        # Runners find their own places, and other trials may have all: theirs are in what this one reserved.
        rllib.env_runners(num_cpus_per_env_runner=0)
        if run.demos.source != "none":
            rllib.input_read_method_kwargs = rllib.input_read_method_kwargs | {"library": library}
        self.objective = Objective(plan.sweep.objective, run)
        rllib.resume = saved is not None
        if saved:
            rllib.restore_from = str(saved)
            if (saved / OBJECTIVE_FILE).is_file():  # not where `train --resume` has gone on with it
                self.objective.restore(json.loads((saved / OBJECTIVE_FILE).read_text()))
        else:
            shutil.rmtree(folder / "replay", ignore_errors=True)  # of an attempt without a checkpoint
        self.algorithm: UnderTune = rllib.build_algo()
        torch.set_num_threads(max(1, plan.cpus - run.runners.autonomous))
        self._stopper = RunStopper(run)

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
        """`setup` has done it."""

    def checkpoint_stored(self) -> None:
        self.algorithm.checkpoint_stored()

    def moment(self) -> str:
        return self.algorithm.moment()

    def cleanup(self) -> None:
        self.algorithm.stop()


def without_demos(run: Config) -> Config:
    """For `check_ingredients`, which would read the demonstrations anew."""
    return replace(run, demos=replace(run.demos, source="none"))
