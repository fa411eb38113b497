"""Learning curves of runs: greedy success, intervention rate, a person's seconds, over env steps or updates.

    python -m hil_rllib.plot RUN… [--out curves.png]

RUN is the folder of a run, also of one under way, or a folder of runs. Runs that differ in the seed alone are
drawn together: each thin, their median thick, a band between their quartiles. Runs that count env steps and
runs that count updates, such as cloning, cannot share a picture.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hil_rllib.console import UsageError, new_file, report
from hil_rllib.results.curves import NoCurvesError, RunCurves, find_runs, read_run
from hil_rllib.results.groups import draw, group


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 drawn, 2 there is nothing to draw."""
    args = parse_args(argv)
    try:
        if not args.out.exists():
            new_file(args.out, ".png")
        elif not args.force:
            raise UsageError(f"{args.out} exists already. Write over it with --force, or say --out PNG.")
        groups = group(read(find_runs(args.runs)))
        draw(groups, args.out)
    except (ValueError, OSError) as error:
        report(error)
        return 2
    for label, runs in groups.items():
        print(f"{label}: {', '.join(run.folder.name for run in runs)}")
    print(f"Drawn in {args.out}.")
    return 0


def read(folders: Sequence[Path]) -> list[RunCurves]:
    """The runs that have curves; of others a line says why not. Raises NoCurvesError where none has."""
    runs: list[RunCurves] = []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except NoCurvesError as error:
            if len(folders) == 1:
                raise
            print(error, file=sys.stderr)
    if not runs:
        raise NoCurvesError("None of these runs has curves.")
    return runs


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hil_rllib.plot", description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run, or a folder of runs")
    parser.add_argument(
        "--out", type=Path, default=Path("curves.png"), metavar="PNG", help="default: %(default)s"
    )
    parser.add_argument("--force", action="store_true", help="write over a picture that is there")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
