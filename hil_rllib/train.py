"""Train: `python -m hil_rllib.train tuned_configs/panda_sac.yaml [key=value …] [--resume]`."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray.exceptions import RayError

from envs.gl import HeadlessGLError, require_headless_gl
from hil_rllib.algorithms import ALGORITHMS
from hil_rllib.collect.runners import RunnerError
from hil_rllib.config import CONFIG_FILE, SUMMARY_FILE, Config, ConfigError, absolute, load_config
from hil_rllib.console import keys_not_typed, report
from hil_rllib.data.demos import load_demos
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.devices import DeviceUnavailable, check_device, check_present, device_class
from hil_rllib.devices.gamepad_maps import load_maps
from hil_rllib.disk import DiskError, refusal, write_whole
from hil_rllib.disk_full import check_saved, ended_early, not_begun
from hil_rllib.interrupts import StopSignals
from hil_rllib.logs import quiet
from hil_rllib.models.weights import find_weights
from hil_rllib.processes import HOOK, return_memory_regularly
from hil_rllib.progress import ProgressLine, RunStopper
from hil_rllib.reward_sources import local_sources
from hil_rllib.run_lock import RunInUseError, RunLock
from hil_rllib.sac.checkpoint import check_journals, newest_checkpoint
from hil_rllib.sac.classifier import find_classifier
from hil_rllib.sac.config import build_env, demo_options, device_options
from hil_rllib.sac.init_from import check_policy
from hil_rllib.sac.recorder import check_datasets, operator_names, recorded_episodes
from hil_rllib.sac.refit import check_refit
from hil_rllib.sac.run_copy import finish_take_over
from hil_rllib.sac.skipping import BATCH_FILE
from hil_rllib.under_tune import mend_driver

TRIAL = "trial"
INPUT_ERRORS = (
    ConfigError, DatasetError, DeviceUnavailable, HeadlessGLError, RunInUseError, OSError, ValueError,
)  # fmt: skip
CONNECT_S = 10.0  # [s] for a cluster's head to answer
DIVERGED = 3  # exit status: too many updates in a row could not be made


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 training failed, 2 bad input, 3 the losses are no longer finite, 4 a
    disk is full; 130 stopped by Ctrl-C, 143 by SIGTERM, with a last checkpoint unless it came twice."""
    args = parse_args(argv)
    quiet()
    with StopSignals() as signals:
        try:
            return run(args, signals)
        except KeyboardInterrupt:  # before training began, or a second time
            print("Stopped at once, without a last checkpoint.", file=sys.stderr)
            return signals.status


def run(args: argparse.Namespace, signals: StopSignals) -> int:
    """Check everything, claim the run's folder, train."""
    started = time.monotonic()
    with ExitStack() as lock:
        try:
            config = load_config(args.config, args.overrides)
            run_dir = Path(config.run.dir).resolve()
            lock.enter_context(RunLock(run_dir))
            check_begun(run_dir, args.resume)
            checkpoint = checkpoint_to_resume(run_dir, config) if args.resume else None
            ready = check_ingredients(config, run_dir, resumed=checkpoint is not None)
            start_ray(ready)
            write_whole(run_dir / CONFIG_FILE, config.to_yaml())  # last: only a run that can begin claims it
        except INPUT_ERRORS as error:
            if full := refusal(error):
                return not_begun(full)
            report(error)
            return 2
        return train(ready, run_dir, checkpoint, started, signals, resume=args.resume)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hil_rllib.train", description=__doc__)
    parser.add_argument("config", type=Path, help="a YAML file, such as tuned_configs/panda_sac.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example sac.batch_size=128")
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in run.dir from its last checkpoint"
    )
    return parser.parse_intermixed_args(argv)  # --resume may stand between overrides


def check_begun(run_dir: Path, resume: bool) -> None:
    """Raises ConfigError where there is nothing to resume, or where a new run would overwrite one."""
    begun = (run_dir / CONFIG_FILE).exists()
    if resume and not begun:
        raise ConfigError(
            f"--resume: {run_dir} holds no run (no {CONFIG_FILE}). Leave --resume out to begin one."
        )
    if begun and not resume:
        raise ConfigError(f"{run_dir} already holds a run. Continue it with --resume, or say run.dir=PATH.")


def checkpoint_to_resume(run_dir: Path, config: Config) -> Path | None:
    """The run's newest checkpoint; None where it was killed before the first one: what it stored is taken.

    Raises ConfigError where there is a checkpoint of another config only.
    """
    differences = config_differences(load_config(run_dir / CONFIG_FILE), config)
    if differences:
        raise ConfigError(
            f"--resume: {run_dir} was trained with another config: {'; '.join(differences)}. "
            "Give the values it was begun with, or a new run.dir."
        )
    finish_take_over(run_dir)
    checkpoint = newest_checkpoint(run_dir)
    if checkpoint is None:
        print(
            f"{run_dir} has no checkpoint yet: learning begins anew, with what was stored.", file=sys.stderr
        )
    check_journals(run_dir / "replay", checkpoint)
    return checkpoint


def config_differences(old: Config, new: Config) -> list[str]:
    """Keys that must not change between a checkpoint and what goes on from it, and did.

    A run of people's steps cannot go on in lockstep: it would cut off those since the checkpoint. The seed is
    that of frozen random encoders too, whose features the replay holds. In lockstep a checkpoint holds the
    runners as they were, which no others can take over.
    """
    free = {"run", "evaluation", "checkpoint", "stop"}
    if not old.run.mode == new.run.mode == "lockstep":
        free |= {"operator", "runners", "record"}
    before, after = old.to_dict(), new.to_dict()
    was, now = old.run.algorithm, new.run.algorithm
    to_lockstep = old.run.mode == "async" and new.run.mode == "lockstep"
    fixed = [f"run.algorithm was {was!r}, now {now!r}"] * (was != now)
    fixed += ["run.mode was 'async', now 'lockstep'"] * to_lockstep
    fixed += [f"run.seed was {old.run.seed}, now {new.run.seed}"] * (old.run.seed != new.run.seed)
    return fixed + [
        f"{section}.{key} was {before[section][key]!r}, now {after[section][key]!r}"
        for section in before
        if section not in free
        for key in before[section]
        if before[section][key] != after[section][key]
    ]


def check_ingredients(config: Config, run_dir: Path, resumed: bool = False) -> Config:
    """Fail now, in plain words, over what would otherwise fail later in some worker process.

    Returns the config as the workers need it: the demonstrations as a folder on this machine, absolute paths.
    """
    config = absolute(config, Path.cwd())
    if config.run.algorithm in ("sac", "dagger"):
        check_operator(config)
    init_from = config.run.init_from
    if init_from is not None and not resumed:
        init_from = str(check_policy(init_from, config))
    classifier = config.reward.classifier
    if classifier is not None:
        classifier = str(find_classifier(classifier))
        check_refit(config)
    env = build_env(replace(config.env, image_obs=False))
    check_datasets(config, env)
    env.close()
    if config.env.image_obs:
        require_headless_gl()
        if config.encoder.weights != "random":
            find_weights(config.encoder.weights)
    if config.run.algorithm == "reward":
        config = local_sources(config)
    source = config.demos.source
    lengths: list[int] = []
    if source != "none" and config.run.algorithm != "reward":
        demos = load_demos(source, **demo_options(config))
        source, lengths = str(demos.source), [len(demo) for demo in demos.demos]
    if config.run.algorithm == "sac":
        check_rings(config, lengths)
    folder = config.record.dir
    return replace(
        config,
        run=replace(config.run, dir=str(run_dir), init_from=init_from),
        demos=replace(config.demos, source=source),
        reward=replace(config.reward, classifier=classifier),
        record=replace(config.record, dir=folder and str(Path(folder).resolve())),
    )


def check_rings(config: Config, lengths: Sequence[int]) -> None:
    """Raises ConfigError where a ring cannot hold what comes at once.

    lengths: steps of each demonstration.
    """
    fragment = config.runners.fragment
    arrives = dict.fromkeys(("online", "demo"), (fragment + 1, f"a fragment of {fragment} steps"))
    shown = sum(lengths) + len(lengths)
    if shown > fragment:
        arrives["demo"] = shown, f"{len(lengths)} demonstrations of {sum(lengths)} steps"
    for name, (observations, what) in arrives.items():
        capacity = getattr(config.sac, f"{name}_capacity")
        if capacity < observations:
            raise ConfigError(
                f"sac.{name}_capacity {capacity} is too small: {what} {'have' if 'ons ' in what else 'has'} "
                f"{observations} observations. Set it to {observations} or more; its default is "
                f"{getattr(Config().sac, f'{name}_capacity')}."
            )


def check_operator(config: Config) -> None:
    """Raises where a device cannot be used: unknown, not here, in use by another, or with a bad map."""
    devices = [(device, device_options(config, seat)) for seat, device in enumerate(config.operator.devices)]
    for device, options in devices:
        check_device(device, **options)
    if config.operator.controller_config is not None:
        load_maps(config.operator.controller_config)
    if "RAY_ADDRESS" not in os.environ:  # in a cluster the operator may sit at another machine
        for device, options in devices:
            check_present(device, **options)
        made = Counter(map(device_class, config.operator.devices))
        if any(seats > 1 and device.one_per_machine for device, seats in made.items()):
            raise ConfigError(
                f"operator.device is '{', '.join(config.operator.devices)}': at this one machine two would "
                "have the same one in their hands. Give each another, such as browser, or a machine."
            )


def next_session(run_dir: Path) -> str:
    """The name of a folder for this session's checkpoints and curves, which join at the env step."""
    numbers = [folder.name.removeprefix(f"{TRIAL}_") for folder in run_dir.glob(f"{TRIAL}_*")]
    begun = max([*map(int, filter(str.isdecimal, numbers)), int((run_dir / TRIAL).exists())])
    return f"{TRIAL}_{begun + 1}" if begun else TRIAL


def by_keyboard(config: Config) -> bool:
    """Whether somebody drives with the keyboard of this machine."""
    return "RAY_ADDRESS" not in os.environ and device_class("keyboard") in map(
        device_class, config.operator.devices
    )


def train(
    config: Config,
    run_dir: Path,
    checkpoint: Path | None,
    started: float,
    signals: StopSignals,
    *,
    resume: bool = False,
) -> int:
    """Run the experiment under Ray Tune; TensorBoard files, checkpoints and summary land in run_dir."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # our progress line, not Tune's table
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # ours lets the trial end with a checkpoint
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"  # we do
    mend_driver()
    return_memory_regularly()
    algorithm = ALGORITHMS[config.run.algorithm].from_config(config)
    algorithm.restore_from = str(checkpoint) if checkpoint else None
    algorithm.resume = resume

    session = next_session(run_dir)

    stopper = RunStopper(config)
    progress = ProgressLine(config)
    try:
        tuner = tune.Tuner(
            algorithm.algo_class,
            param_space=algorithm,
            tune_config=tune.TuneConfig(trial_dirname_creator=lambda trial: session, reuse_actors=False),
            run_config=tune.RunConfig(
                name=run_dir.name,
                storage_path=str(run_dir.parent),
                stop=stopper,
                verbose=0,
                callbacks=[progress],
                checkpoint_config=tune.CheckpointConfig(
                    num_to_keep=config.checkpoint.keep, checkpoint_at_end=True
                ),
            ),
        )
        with signals.asking(stopper.interrupt), keys_not_typed(by_keyboard(config)):
            result = tuner.fit()[0]
    except Exception as error:
        return ended_early(error, run_dir, progress.curves)  # or raises it
    finally:
        progress.close()
        ray.shutdown()
    if refusal(result.error) is not None:
        return ended_early(result.error, run_dir, progress.curves)
    if result.error is not None:
        report(f"training failed: {said_of(result.error)} The traceback: {run_dir / session / 'error.txt'}")
        return 1
    summary = summarise(result.metrics, config, time.monotonic() - started)
    if recorded := recorded_episodes(config):
        summary["recorded_episodes"] = recorded
    print(json.dumps(summary, indent=2))
    try:
        check_saved(result, config)
        write_whole(run_dir / SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
    except DiskError as error:
        return ended_early(error, run_dir, progress.curves)
    if stopper.diverged:
        print(
            f"error: the last {config.sac.skip_limit} updates were skipped: their loss or gradient was not "
            f"finite. The last checkpoint holds the weights from before. The batch: {run_dir / BATCH_FILE}.",
            file=sys.stderr,
        )
        return DIVERGED
    if summary.get("classifier", {}).get("reason"):
        print(f"error: the classifier cannot be used: {summary['classifier']['reason']}", file=sys.stderr)
        return signals.status or 1
    return signals.status


def said_of(error: BaseException) -> str:
    """What an error of a trial says, as it was raised there: in Ray's own is a traceback."""
    while isinstance(cause := getattr(error, "cause", None), BaseException):
        error = cause
    if isinstance(error, RayError):  # of a trial that could not begin: its traceback is all that is known
        return str(error).strip().rpartition("\n")[2]
    plain = isinstance(error, (*INPUT_ERRORS, RunnerError)) and str(error)
    return str(error) if plain else f"{type(error).__name__}: {error}."


def start_ray(config: Config) -> None:
    """Join the cluster of RAY_ADDRESS, or start one on this machine that has the operators' seats.

    Raises OSError where that cannot be done.
    """
    common = {"logging_level": "ERROR", "runtime_env": HOOK}
    if address := os.environ.get("RAY_ADDRESS"):
        check_cluster(address)
        ray.init(**common)
        return
    # Its record of past tasks, which nobody reads, would grow by 3 kB a request: 350 MB in 50 minutes.
    os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
    cpus = max(len(os.sched_getaffinity(0)), 1 + config.runners.autonomous)
    seats = dict.fromkeys(operator_names(config), 1)
    # "local": without it Ray joins whichever cluster it finds on this machine.
    ray.init("local", num_cpus=cpus, resources=seats, include_dashboard=False, **common)


def check_cluster(address: str) -> None:
    """Raises ConnectionError where no cluster answers: Ray itself would try for a quarter of an hour."""
    if "://" in address:
        return
    try:
        host, _, port = canonicalize_bootstrap_address_or_die(address).rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"No cluster answers at RAY_ADDRESS={address} ({error}). Start one with `ray up` or `ray start`, "
            "or unset RAY_ADDRESS to run on this machine alone."
        ) from error


def summarise(metrics: dict[str, Any], config: Config, seconds: float) -> dict[str, Any]:
    """What came of the run, from Tune's last result. seconds: of this process, set-up included."""
    hil, evaluation = metrics["hil"], metrics.get("evaluation", {})
    at = f"at_{config.schedule[0]}"
    rounds = {"rounds": metrics["rounds"]} if "rounds" in metrics else {}
    return rounds | {
        "algorithm": config.run.algorithm,
        "env_steps": int(hil["env_steps"]),
        "updates": int(hil["updates"]),
        "seconds": round(seconds, 1),
        "human_seconds": round(hil["human_seconds"], 1),
        "greedy_success": evaluation.get("success"),
        "greedy_episodes": evaluation.get("episodes"),
        f"greedy_{at}": evaluation.get(at),
        "seed": config.run.seed,
        **({"classifier": metrics["classifier"]} if "classifier" in metrics else {}),
    }


if __name__ == "__main__":
    sys.exit(main())
