"""What does a second of human help buy? Seeded learning with and without demonstrations and interventions.

    python -m hil_rllib.benchmark OUT [--settings …] [--arms …] [--seeds 0 1] [--jobs 2] [--demos DIR]

Each run has a folder in OUT. Finished ones are not made again, others go on from their last checkpoint:
interrupt and start again at will, with other choices too. Tables (Markdown and CSV) and curves of whatever is
there land in OUT/report. The report of another machine, or of another day, joins them with --add FOLDER.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from hil_rllib.config import ConfigError, load_config
from hil_rllib.console import INTERRUPTED, report
from hil_rllib.contract import CONTROL_DT
from hil_rllib.data.demos import load_demos
from hil_rllib.data.hub import HubUnreachable, locate
from hil_rllib.data.lerobot_format import DatasetError
from hil_rllib.results.outcomes import read_report
from hil_rllib.results.protocol import ARMS, MOST_SEEDS, MOST_STEPS, REAL_DEMOS, SETTINGS, Job, jobs
from hil_rllib.results.report import NothingFinishedError, check_report, write_report
from hil_rllib.results.runner import Plan, is_enough, is_finished, make_runs, shares
from hil_rllib.sac.config import demo_options


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 all runs are there, 1 some failed, 2 bad input, 130 Ctrl-C."""
    args = parse_args(argv)
    out: Path = args.out.resolve()
    chosen = list(jobs(args.settings, args.arms, args.seeds))
    failed: list[Job] = []
    if not chosen:
        report(f"No setting of {', '.join(args.settings)} has an arm of {', '.join(args.arms)}.")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: no run goes on without us
    try:
        others = [outcome for folder in args.add for outcome in read_report(folder)]
        place: Path = args.report or out / "report"
        check_report(place, out, others)
        if not args.collect:
            plan = Plan(out, args.demos, args.steps, args.jobs)
            there = {
                r.job.name for r in (o.result for o in others) if is_enough(r.env_steps, r.steps, args.steps)
            }
            missing = [job for job in chosen if job.name not in there]
            check_real_demos([j for j in missing if not is_finished(out / j.name, args.steps)], args.demos)
            shares(args.jobs)
            place.mkdir(parents=True, exist_ok=True)  # now, or it fails after the work
            failed = make_runs(missing, plan, lambda job: demo_seconds(job, args.demos), say)
        for job in failed:
            print(f"failed: {job.name}, see {out / job.name}.log", file=sys.stderr)
        print(write_report(out, place, others))
    except NothingFinishedError as error:
        report(error)
        return 1 if failed else 2
    except (ConfigError, DatasetError, HubUnreachable, OSError, ValueError) as error:
        report(error)
        return 2
    except KeyboardInterrupt:
        print("\nStopped; the same command goes on with the runs that are not finished.", file=sys.stderr)
        return INTERRUPTED
    return 1 if failed else 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hil_rllib.benchmark", description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, metavar="NAME", help=", ".join(SETTINGS))
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=ARMS,
        metavar="NAME",
        help=", ".join(f"{name} ({arm.title})" for name, arm in ARMS.items()),
    )
    parser.add_argument(
        "--seeds", nargs="+", type=seed, metavar="N", help="default: 0 to 4 from state, 0 to 2 from images"
    )
    parser.add_argument(
        "--steps", type=steps, metavar="N", help=f"a first look: at most so many env steps, not {MOST_STEPS}"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, which share the cores evenly")
    parser.add_argument("--demos", metavar="FOLDER", help="local copy of the real demonstrations")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="where tables and curves go")
    parser.add_argument(
        "--add",
        nargs="+",
        type=Path,
        default=[],
        metavar="FOLDER",
        help="reports of runs made elsewhere: they are reported here too and not made again",
    )
    parser.add_argument("--collect", action="store_true", help="only write the report of the runs that exist")
    return parser.parse_args(argv)


def seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= MOST_SEEDS:
        raise argparse.ArgumentTypeError(f"must be a whole number of 0 to {MOST_SEEDS - 1}, got {text}")
    return int(text)


def steps(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_STEPS:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 to {MOST_STEPS}, got {text}")
    return int(text)


def check_real_demos(chosen: Sequence[Job], demos: str | None) -> None:
    """Read the real demonstrations now if any run needs them: others may be made for hours first."""
    for job in chosen:
        if load_config(job.config, job.overrides(demos)).demos.source in (demos, REAL_DEMOS):
            demo_seconds(job, demos)
            return


def demo_seconds(job: Job, demos: str | None) -> float:
    """Seconds of a person's time in a run's demonstrations.

    Raises HubUnreachable where real ones cannot be had: in a run of its own an expert would replace them.
    """
    config = load_config(job.config, job.overrides(demos))
    if config.demos.source == "none":
        return 0.0
    if config.demos.source == REAL_DEMOS:
        try:
            locate(REAL_DEMOS)
        except HubUnreachable as error:
            raise HubUnreachable(f"{error} Here: --demos FOLDER.") from error
    return load_demos(config.demos.source, **demo_options(config)).by_hand * CONTROL_DT


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
