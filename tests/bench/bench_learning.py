"""Learning runs over seeds, by the user's own command, against the time and success they must reach.

    python tests/bench/bench_learning.py --out DIR                           # all cases, seeds 0 1 2
    python tests/bench/bench_learning.py --out DIR --cases state --arms all  # what each term buys

Runs one after the other, so that none slows another. A run whose summary.json exists is not repeated:
interrupt and start again at will. Without network, `--demos` names a local copy of the demonstrations.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Case:
    """A configuration and what it must reach: `solved` of 20 greedy episodes `in_row` times by `limit_s`."""

    config: str
    solved: int
    limit_s: float
    cap_steps: int  # a run that has not got there by then is over
    in_row: int = 1
    hub_demos: bool = False
    overrides: tuple[str, ...] = ()


CASES = {
    "fixed": Case("panda_sac.yaml", 20, 480, 8_000, hub_demos=True, overrides=("operator.device=none",)),
    "state": Case("panda_sac_state.yaml", 19, 240, 10_000, in_row=2),
    "random": Case("panda_sac_random.yaml", 18, 1800, 20_000),
}

NO_MARGIN, NO_BC, NO_NORM = "sac.gripper_margin_weight=0", "sac.bc_weight=0", "sac.q_normalised_actor=false"
NO_START = "sac.bc_start_updates=0"
ARMS: dict[str, tuple[str, ...]] = {
    "full": (),
    "no_margin": (NO_MARGIN,),
    "no_bc": (NO_BC,),
    "no_norm": (NO_NORM,),
    "no_start": (NO_START,),
    "plain": (NO_MARGIN, NO_BC, NO_NORM, NO_START),
    # Over after its first step; lockstep waits for the evaluation that follows the cloning start.
    "bc_only": (
        "sac.bc_start_updates=2000",
        "sac.learning_starts=0",
        "stop.env_steps=1",
        "run.mode=lockstep",
    ),
}


@dataclass
class Run:
    """One finished run. evaluations: (env steps, episodes solved, episodes), in order."""

    case: str
    arm: str
    seed: int
    summary: dict[str, Any] = field(default_factory=dict)
    evaluations: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.case}-{self.arm}-{self.seed}"

    def reached(self) -> bool:
        """Whether the last evaluations, as many as the case asks for, are good enough."""
        case = CASES[self.case]
        last = self.evaluations[-case.in_row :]
        return len(last) == case.in_row and all(20 * solved >= case.solved * of for _, solved, of in last)

    def verdict(self) -> str:
        case = CASES[self.case]
        if self.arm == "bc_only":
            return "for comparison"
        if not self.reached():
            return "not solved"
        return "ok" if self.summary["seconds"] <= case.limit_s else f"over {case.limit_s:.0f} s"


def train(run: Run, folder: Path, cap_steps: int | None, extra: list[str]) -> bool:
    """Train in `folder` unless that was done; False where the command failed: see the log beside it."""
    if (folder / "summary.json").exists():
        return True
    shutil.rmtree(folder, ignore_errors=True)  # of a run cut off: its time would not count
    case = CASES[run.case]
    command = [sys.executable, "-m", "hil_rllib.train", f"tuned_configs/{case.config}", f"run.dir={folder}"]
    command += [f"run.seed={run.seed}", f"stop.env_steps={cap_steps or case.cap_steps}"]
    command += [*case.overrides, *ARMS[run.arm], *extra]
    print(f"{time.strftime('%H:%M:%S')}  {' '.join(command[1:])}", flush=True)
    with folder.with_suffix(".log").open("w") as log:
        return (
            subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
            == 0
        )


def read(run: Run, folder: Path) -> Run:
    """What `train` left behind."""
    run.summary = json.loads((folder / "summary.json").read_text())
    lines = (folder / "trial" / "result.json").read_text().splitlines()
    run.evaluations = list(evaluations(json.loads(line) for line in lines))
    return run


def evaluations(results: Iterator[dict[str, Any]]) -> Iterator[tuple[int, int, int]]:
    """Each greedy evaluation once; reports repeat the latest."""
    before: int | None = None
    for result in results:
        latest = result.get("evaluation", {})
        if "at_env_steps" in latest and latest["at_env_steps"] != before:
            before = latest["at_env_steps"]
            of = int(latest["episodes"])
            yield int(before), round(latest["success"] * of), of


def print_table(runs: list[Run]) -> None:
    columns = f"{'steps':>6} {'seconds':>8} {'human s':>8} {'greedy':>7}"
    print(f"\n{'case':7} {'arm':10} {'seed':>4} {columns}  verdict")
    for run in runs:
        _, solved, of = run.evaluations[-1] if run.evaluations else (0, 0, 0)
        numbers = (
            f"{run.summary['env_steps']:6d} {run.summary['seconds']:8.0f} {run.summary['human_seconds']:8.0f}"
        )
        print(f"{run.case:7} {run.arm:10} {run.seed:4d} {numbers} {f'{solved}/{of}':>7}  {run.verdict()}")
    print("\nGreedy episodes solved, at env steps:")
    for run in runs:
        history = "  ".join(f"{solved}/{of} @{steps}" for steps, solved, of in run.evaluations)
        print(f"  {run.name:20} {history}")
    print("\nTargets: " + "; ".join(f"{name} {target(case)}" for name, case in CASES.items()))


def target(case: Case) -> str:
    row = f" at {case.in_row} evaluations in a row" if case.in_row > 1 else ""
    return f"≥ {case.solved}/20{row} within {case.limit_s:.0f} s"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--arms", nargs="+", choices=[*ARMS, "all"], default=["full"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--demos", default=os.environ.get("HIL_DEMOS"), help="local folder in place of the hub id"
    )
    parser.add_argument("--cap", type=int, help="env steps after which a run that solved nothing ends")
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value", help="overrides for every run")
    parser.add_argument("--collect", action="store_true", help="only print the table of the runs that exist")
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    done, failed = [], []
    for case in args.cases:
        source = (
            [f"demos.source={Path(args.demos).resolve()}"] if args.demos and CASES[case].hub_demos else []
        )
        for arm in ARMS if "all" in args.arms else args.arms:
            for seed in args.seeds:
                run = Run(case, arm, seed)
                folder = (args.out / run.name).resolve()
                if args.collect and not (folder / "summary.json").exists():
                    continue
                if train(run, folder, args.cap, [*source, *args.set]):
                    done.append(read(run, folder))
                else:
                    failed.append(folder.with_suffix(".log"))
    if done:
        print_table(done)
    for log in failed:
        print(f"failed: see {log}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
