"""What each run of the benchmark came to: read from its folder, or from a report of runs made elsewhere."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from hil_rllib.disk import write_whole
from hil_rllib.results.curves import RunCurves, read_run
from hil_rllib.results.protocol import MOST_SEEDS, SETTINGS, THRESHOLDS, Job, of_setting
from hil_rllib.results.runner import read_record
from hil_rllib.results.scores import NEVER, Numbers, first_reached

RUNS_FILE, CURVES_FILE = "runs.csv", "curves.csv"


@dataclass(frozen=True)
class Result:
    """One run. human_s: demonstrations included [s]; …_to_90: until the first evaluation with ≥ 90 %.

    last_success: None where the run was too short for an evaluation. jobs: so many runs were made side by
    side, None where that was not noted. steps: it was to make at most so many, None: the protocol's.
    """

    setting: str
    arm: str
    seed: int
    env_steps_to_90: float
    wall_s_to_90: float
    human_s_to_90: float
    env_steps_to_100: float
    wall_s_to_100: float
    human_s_to_100: float
    last_success: float | None
    env_steps: int
    wall_s: float
    human_s: float
    demo_s: float
    jobs: int | None
    commit: str
    machine: str
    steps: int | None = None

    @property
    def job(self) -> Job:
        return Job(self.setting, self.arm, self.seed)

    @property
    def place(self) -> tuple[int, int, int]:
        """In the protocol's order, the same for runs of the same setting, arm and seed."""
        arms = SETTINGS[self.setting].arms
        return list(SETTINGS).index(self.setting), arms.index(self.arm), self.seed


@dataclass(frozen=True)
class Outcome:
    """A run's result and the curve behind it. All curves (N,), a value for each evaluation."""

    result: Result
    steps: Numbers
    success: Numbers
    human_s: Numbers
    wall_s: Numbers


def read_runs(out: Path) -> list[Outcome]:
    """Of all finished runs in this folder. A run that settings share is there once for each."""
    return [
        outcome(job, read_run(out / job.name), record)
        for name in SETTINGS
        for job in of_setting(name, range(MOST_SEEDS))
        if "finished" in (record := read_record(out / job.name))
    ]


def read_report(folder: Path) -> list[Outcome]:
    """Of all runs in a report that `write_tables` wrote. Raises ValueError for anything else."""
    try:
        evaluations: dict[tuple[str, ...], list[dict[str, str]]] = {}
        for row in read_csv(folder / CURVES_FILE):
            evaluations.setdefault(key(row), []).append(row)
        return [published(row, evaluations.get(key(row), [])) for row in read_csv(folder / RUNS_FILE)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder} is no report of the benchmark: {error!r}. It needs {RUNS_FILE} and {CURVES_FILE} as "
            "`python -m hil_rllib.benchmark` writes them."
        ) from error


def write_tables(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """A row for every run and one for every evaluation, which `read_report` reads."""
    write_csv(folder / RUNS_FILE, (asdict(o.result) for o in outcomes))
    write_csv(folder / CURVES_FILE, (row for o in outcomes for row in curve_rows(o)))


def outcome(job: Job, run: RunCurves, record: dict[str, Any]) -> Outcome:
    """record: as `runner` writes it."""
    curve, demo_s = run.evaluations, float(record["demo_seconds"])
    offline = run.clock == "updates"  # no robot moves: all at env step 0
    steps = np.zeros_like(curve.steps) if offline else curve.steps
    helped = run.scalars["hil/human_seconds"]
    # From nothing at step 0, which is before the first report.
    human_s = demo_s + np.interp(steps, [0.0, *helped.steps], [0.0, *helped.values])
    reports = run.scalars["hil/env_steps"].wall
    wall_s = elapsed(curve.wall, record["started"], reports)

    def at(threshold: float) -> tuple[float, float, float]:
        i = first_reached(curve.success, threshold)
        return (NEVER, NEVER, NEVER) if i is None else (float(steps[i]), float(wall_s[i]), float(human_s[i]))

    at_90, at_100 = map(at, THRESHOLDS)
    result = Result(
        job.setting,
        job.arm,
        job.seed,
        *at_90,
        *at_100,
        last_success=float(curve.success[-1]) if len(curve.success) else None,
        env_steps=int(run.scalars["hil/env_steps"].values[-1]),
        wall_s=float(elapsed(np.array([record["finished"]]), record["started"], reports)[0]),
        human_s=demo_s + float(helped.values[-1]),
        demo_s=demo_s,
        jobs=record.get("jobs"),
        commit=record["commit"],
        machine=record["machine"],
        steps=record["steps"],
    )
    return Outcome(result, steps, curve.success, human_s, wall_s)


def elapsed(wall: Numbers, started: Sequence[float], reports: Numbers) -> Numbers:
    """Unix times (N,) → seconds of work until then. started: of each session; reports: (M,) those that count.

    A session that was cut off counts up to its last report which the next one went on from.
    """
    worked = np.zeros_like(wall)
    for begin, following in zip(started, [*started[1:], np.inf], strict=True):
        inside = reports[(reports >= begin) & (reports < following)]
        end = following if math.isinf(following) else (inside[-1] if len(inside) else begin)
        worked += np.clip(wall, begin, end) - begin
    return worked


def curve_rows(o: Outcome) -> Iterable[dict[str, Any]]:
    for steps, success, human_s, wall_s in zip(o.steps, o.success, o.human_s, o.wall_s, strict=True):
        r = o.result
        yield {
            "setting": r.setting,
            "arm": r.arm,
            "seed": r.seed,
            "env_steps": int(steps),
            "success": success,
            "human_s": round(human_s, 1),
            "wall_s": round(wall_s, 1),
        }


def write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    rows = list(rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0] if rows else ())
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _rounded(value) for key, value in row.items()})
    write_whole(path, text.getvalue())


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def key(row: Mapping[str, str]) -> tuple[str, ...]:
    return row["setting"], row["arm"], row["seed"]


def published(row: Mapping[str, str], evaluations: Sequence[Mapping[str, str]]) -> Outcome:
    """row, evaluations: as `write_tables` writes them."""
    if row["arm"] not in SETTINGS[row["setting"]].arms:
        raise ValueError(f"no arm {row['arm']} in {row['setting']}")
    values: dict[str, Any] = {
        field.name: PARSERS[str(field.type)](row[field.name])
        for field in fields(Result)
        if field.default is MISSING or field.name in row  # not in reports of earlier releases
    }
    read = Outcome(Result(**values), *(np.array([float(e[name]) for e in evaluations]) for name in CURVES))
    last = round(float(read.success[-1]), 3) if len(read.success) else None
    if last != read.result.last_success or (np.diff(read.steps) <= 0).any():
        raise ValueError(f"{read.result.job.name} and its evaluations do not fit together")
    return read


def _number(text: str) -> float:
    return NEVER if text == "never" else float(text)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return "never" if math.isinf(value) else round(value, 3)
    return value


CURVES = ("env_steps", "success", "human_s", "wall_s")  # columns in the order of Outcome's fields
PARSERS: dict[str, Callable[[str], Any]] = {  # by the types of Result's fields
    "str": str,
    "int": int,
    "float": _number,
    "int | None": lambda text: int(text) if text else None,
    "float | None": lambda text: float(text) if text else None,
}
