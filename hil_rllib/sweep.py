"""Many runs of one configuration with some of its keys varied, side by side on the cluster.

    python -m hil_rllib.sweep tuned_configs/panda_sac_sweep.yaml [sweep.dir=… key=value …] [--resume]

The sweep's folder gets a run for every trial, `trials.csv`, and pictures of the objective over each key and
of the learning curves. Interrupted or killed, `--resume` goes on: finished trials stay, others continue from
their last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import tune
from ray.tune.result import DONE

from hil_rllib.config import CONFIG_FILE, ConfigError, load_config
from hil_rllib.console import INTERRUPTED, report
from hil_rllib.data.demos import SCRIPTED, load_demos
from hil_rllib.data.shared import DemoLibrary, demos_key
from hil_rllib.disk import refusal
from hil_rllib.disk_full import ended_early, not_begun
from hil_rllib.logs import quiet
from hil_rllib.processes import HOOK, return_memory_regularly
from hil_rllib.run_lock import RunLock
from hil_rllib.sac.config import demo_options
from hil_rllib.sweeping.begun import search_differences, store_search
from hil_rllib.sweeping.outcome import Reporter, Row, rows, write_outcome
from hil_rllib.sweeping.plan import Plan, dirname, load_plan
from hil_rllib.sweeping.population import kept_checkpoints
from hil_rllib.sweeping.search import scheduler, searcher, space
from hil_rllib.sweeping.trial import Trial, without_demos
from hil_rllib.train import INPUT_ERRORS, check_ingredients, config_differences
from hil_rllib.under_tune import mend_driver

LIBRARY = "hil_rllib_demos"  # name of the actor; one sweep at a time has it
CHECKED_EVERY_S = "10"  # [s] between two snapshots of what Tune knows: what a kill costs


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 some trials failed, 2 bad input, 4 the disk is full, 130 Ctrl-C."""
    args = parse_args(argv)
    quiet()
    with ExitStack() as lock:
        try:
            plan = load_plan(args.sweep, args.overrides)
            folder = Path(plan.sweep.dir).expanduser().resolve()
            lock.enter_context(RunLock(folder, "sweep.dir"))
            check_folder(folder, resume=args.resume)
            if args.resume:
                check_search(plan, folder)
            check_begun(plan, folder)
            check_trials(plan, folder)
            if not args.resume:
                store_search(plan, folder)
        except INPUT_ERRORS as error:
            if full := refusal(error):
                return not_begun(full)
            report(error)
            return 2
        try:
            found = run(plan, folder, resume=args.resume)
            print(write_outcome(found, plan, folder))
        except KeyboardInterrupt:
            same = shlex.join([str(args.sweep), *args.overrides])
            print(f"\nStopped. Go on with: python -m hil_rllib.sweep {same} --resume", file=sys.stderr)
            return INTERRUPTED
        except Exception as error:
            return ended_early(error, folder)  # or raises it
    failed = [row for row in found if row.error]
    for row in failed:
        print(f"failed: {row.folder.name}: {row.error}", file=sys.stderr)
    return 1 if failed else 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hil_rllib.sweep", description=__doc__.split("\n")[0])
    parser.add_argument("sweep", type=Path, help="a YAML file, such as tuned_configs/panda_sac_sweep.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of sweep.… or of every trial")
    parser.add_argument("--resume", action="store_true", help="go on with the sweep in sweep.dir")
    return parser.parse_intermixed_args(argv)


def check_folder(folder: Path, *, resume: bool) -> None:
    """Raises ConfigError where there is nothing to resume, or not any more, or something to overwrite."""
    there = tune.Tuner.can_restore(str(folder))
    if resume and not there:
        raise ConfigError(f"--resume: {folder} holds no sweep. Leave --resume out to begin one.")
    if there and not resume:
        raise ConfigError(
            f"{folder} already holds a sweep. Continue it with --resume, or say sweep.dir=PATH."
        )
    states = sorted(folder.glob("experiment_state-*.json")) if resume else []
    if states and not whole(states[-1]):
        # Tune would begin anew, with values drawn anew, in folders that have others.
        raise ConfigError(
            f"{states[-1]} is damaged, so it is not known which trials there are. Each can be finished by "
            "itself: python -m hil_rllib.train TRIAL/config.yaml --resume"
        )


def check_search(plan: Plan, folder: Path) -> None:
    """Raises ConfigError where Tune would go on with another search than the plan's."""
    if differences := search_differences(folder, plan):
        raise ConfigError(
            f"--resume: {folder} was begun with another search: {'; '.join(differences)}. "
            "Give the values it was begun with, or a new sweep.dir."
        )


def check_begun(plan: Plan, folder: Path) -> None:
    """Raises ConfigError where a trial in the folder would go on with another configuration than it began."""
    for file in sorted(folder.glob(f"trial_*/{CONFIG_FILE}")):
        begun = load_config(file)
        own = {key: reduce(getitem, key.split("."), begun.to_dict()) for key in plan.space}
        if differences := config_differences(begun, plan.config(own)):
            raise ConfigError(
                f"--resume: {file.parent} was begun with another configuration: {'; '.join(differences)}. "
                "Give the values it was begun with, or a new sweep.dir."
            )


def whole(state: Path) -> bool:
    """Whether the file is JSON to its end."""
    try:
        json.loads(state.read_text())
    except ValueError:
        return False
    return True


def check_trials(plan: Plan, folder: Path) -> None:
    """Fail now over what would fail in the trials, as far as their values are known; see `Plan.configs`."""
    checked: set[str] = set()
    for config in plan.configs():
        shape = config.sac if config.run.init_from else None  # of a policy to begin with
        parts = (config.run, config.env, config.encoder, config.operator, config.record, config.reward, shape)
        if repr(parts) not in checked:
            check_ingredients(without_demos(config), folder)
            checked.add(repr(parts))
        source, options = config.demos.source, demo_options(config)
        key = demos_key(source, options, scripted=SCRIPTED in (source, config.demos.fallback))
        if source != "none" and key not in checked:
            load_demos(source, **options)
            checked.add(key)


def run(plan: Plan, folder: Path, *, resume: bool) -> list[Row]:
    """All trials, under Ray Tune."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # our lines, not Tune's table
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = CHECKED_EVERY_S
    random.seed(plan.sweep.seed)  # pbt draws from both
    np.random.seed(plan.sweep.seed)  # its own generator
    mend_driver()
    return_memory_regularly()
    common: dict[str, Any] = {"logging_level": "ERROR", "runtime_env": HOOK}
    if "RAY_ADDRESS" not in os.environ:
        # "local": without it Ray joins whichever cluster it finds on this machine.
        cpus = max(len(os.sched_getaffinity(0)), plan.cpus)
        common |= {"address": "local", "num_cpus": cpus, "include_dashboard": False}
    ray.init(**common)
    try:
        library = ray.remote(num_cpus=0)(DemoLibrary).options(name=LIBRARY).remote()
        # Not in the space: of what is no plain value there, Tune gives back what was drawn first on --resume.
        told = tune.with_parameters(Trial, plan=plan, sweep_dir=str(folder), library=LIBRARY)
        trainable = tune.with_resources(told, {"cpu": plan.cpus, "gpu": plan.sweep.gpus})
        param_space = space(plan)
        reporter = Reporter(plan)
        if resume:
            tuner = tune.Tuner.restore(
                str(folder),
                trainable,
                resume_unfinished=True,
                resume_errored=True,  # not restart_errored: a trial begun anew by Tune has another name
                param_space=param_space,
            )
        else:
            tuner = tune.Tuner(
                trainable,
                param_space=param_space,
                tune_config=tune.TuneConfig(
                    num_samples=plan.sweep.samples,
                    search_alg=searcher(plan),
                    scheduler=scheduler(plan),
                    trial_name_creator=lambda trial: dirname(trial.trial_id),
                    trial_dirname_creator=lambda trial: dirname(trial.trial_id),
                    reuse_actors=False,
                ),
                run_config=tune.RunConfig(
                    name=folder.name,
                    storage_path=str(folder.parent),
                    verbose=0,
                    callbacks=[reporter],
                    checkpoint_config=tune.CheckpointConfig(
                        num_to_keep=kept_checkpoints(plan.first) if plan.sweep.scheduler == "pbt" else 1,
                        checkpoint_at_end=True,
                        checkpoint_frequency=0,
                    ),
                ),
            )
        results = tuner.fit()
        del library
        if any(r.error is None and not (r.metrics or {}).get(DONE) for r in results):
            raise KeyboardInterrupt  # Tune has taken it, stored how far the trials are, and come back
        return rows(results, plan)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    sys.exit(main())
