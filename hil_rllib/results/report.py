"""The benchmark's results: a row for every run, a table and curves for every setting."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hil_rllib.results import figures
from hil_rllib.results.curves import RunCurves, read_run
from hil_rllib.results.protocol import ARMS, SETTINGS, THRESHOLDS, Job, of_setting
from hil_rllib.results.runner import read_record
from hil_rllib.results.scores import NEVER, Numbers, bootstrap, first_reached, iqm, quartiles

MOST_SEEDS = 100  # looked for in the folder


@dataclass(frozen=True)
class Result:
    """One run. human_s: demonstrations included [s]; …_to_90: until the first evaluation with ≥ 90 %.

    last_success: None where the run was too short for an evaluation. jobs: so many runs were made side by
    side, None where that was not noted.
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


@dataclass(frozen=True)
class Outcome:
    """A run's result and the curve behind it. All curves (N,), a value for each evaluation."""

    result: Result
    steps: Numbers
    success: Numbers
    human_s: Numbers
    wall_s: Numbers


class NothingFinishedError(ValueError):
    """There is no run to report of."""


def write_report(out: Path, folder: Path) -> str:
    """Tables, rows and curves of the finished runs in `out`; returns the tables.

    Raises NothingFinishedError.
    """
    outcomes = {name: list(read_setting(name, out)) for name in SETTINGS}
    outcomes = {name: found for name, found in outcomes.items() if found}
    if not outcomes:
        raise NothingFinishedError(f"{out} holds no finished run of the benchmark yet.")
    folder.mkdir(parents=True, exist_ok=True)
    every = [o for found in outcomes.values() for o in found]
    text = "\n".join([*(section(name, found) for name, found in outcomes.items()), time_taken(every)])
    (folder / "tables.md").write_text(text)
    write_csv(folder / "runs.csv", (asdict(o.result) for o in every))
    write_csv(folder / "curves.csv", (row for o in every for row in curve_rows(o)))
    draw(outcomes, folder / "curves.png")
    return text


def read_setting(name: str, out: Path) -> Iterable[Outcome]:
    for job in of_setting(name, range(MOST_SEEDS)):
        if "finished" in read_record(out / job.name):
            yield outcome(job, read_run(out / job.name), read_record(out / job.name))


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
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0] if rows else ())
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _rounded(value) for key, value in row.items()})


def section(name: str, outcomes: Sequence[Outcome]) -> str:
    """A setting's table in Markdown."""
    lines = [
        f"**{name}**: {SETTINGS[name].title}",
        "",
        "| help | seeds | steps to 90 % | human s to 90 % | minutes to 90 % | steps to 100 % "
        "| human s to 100 % | minutes to 100 % | steps made | minutes in all | last evaluation |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in SETTINGS[name].arms:
        results = [o.result for o in outcomes if o.result.arm == arm]
        if results:
            lines.append(f"| {ARMS[arm].title} | {len(results)} | {' | '.join(cells(results))} |")
    return "\n".join(lines) + "\n"


def cells(results: Sequence[Result]) -> list[str]:
    """Median (quartiles) of what each threshold took, and the interquartile mean of the last evaluation."""
    texts = []
    for threshold in (90, 100):
        for quantity, unit in (("env_steps", 1.0), ("human_s", 1.0), ("wall_s", 60.0)):
            values = [getattr(r, f"{quantity}_to_{threshold}") / unit for r in results]
            texts.append(spread(values, digits=1 if unit != 1 else 0))
    texts += [spread([r.env_steps for r in results]), spread([r.wall_s / 60 for r in results], digits=1)]
    last = [r.last_success for r in results if r.last_success is not None]
    if not last:
        return [*texts, "none"]
    low, high = bootstrap(last)
    interval = f" ({low:.0%} … {high:.0%})" if len(last) > 1 else ""  # of one seed it would say nothing
    return [*texts, f"{iqm(last):.0%}{interval}"]


def time_taken(outcomes: Sequence[Outcome]) -> str:
    """What all runs took, each counted once although two settings may show it."""
    runs = {Job(o.result.setting, o.result.arm, o.result.seed).name: o.result for o in outcomes}.values()
    one_by_one = sum(r.wall_s for r in runs) / 3600
    by_the_clock = sum(r.wall_s / (r.jobs or 1) for r in runs) / 3600
    beside = f"; some side by side, so {by_the_clock:.1f} h by the clock" if by_the_clock < one_by_one else ""
    return f"Wall-clock time of the {len(runs)} runs: {one_by_one:.1f} h{beside}.\n"


def spread(values: Sequence[float], digits: int = 0) -> str:
    """`median (25 % … 75 %)`; where some runs never got there, how many did."""
    low, median, high = (f"{v:.{digits}f}" if math.isfinite(v) else "never" for v in quartiles(values))
    reached = sum(map(math.isfinite, values))
    if reached == 0:
        return "never"
    text = median if len(values) == 1 else f"{median} ({low} … {high})"
    return text if reached == len(values) else f"{text}, {reached} of {len(values)}"


def draw(outcomes: dict[str, list[Outcome]], path: Path) -> None:
    """Success over env steps and over a person's seconds, a row of panels for every setting."""
    figure, axes = figures.panels(len(outcomes), 2)
    colour = figures.colours(list(ARMS))
    for row, (name, found) in zip(axes, outcomes.items(), strict=True):
        for arm in SETTINGS[name].arms:
            runs = [o for o in found if o.result.arm == arm]
            title = ARMS[arm].title
            figures.band(row[0], [(o.steps, o.success) for o in runs], colour[arm], title)
            for o in runs:  # no band: seeds spend a person's time at different steps
                row[1].plot(o.human_s, o.success, color=colour[arm], linewidth=0.8, alpha=0.6)
                row[1].plot(o.human_s[-1:], o.success[-1:], "o", color=colour[arm], markersize=4)
        row[0].set_title(f"{name}: {SETTINGS[name].title}", fontsize=8, loc="left")
        row[0].set_ylabel("greedy success, 50 episodes", fontsize=8)
        row[0].set_xlabel("env steps", fontsize=8)
        row[1].set_xlabel("seconds of a person's hands, demonstrations included", fontsize=8)
        for axis in row:
            axis.set_ylim(-0.03, 1.03)
            axis.axhline(THRESHOLDS[0], color="black", linewidth=0.6, linestyle=":")
    figures.save(figure, path, axes[:, 0])


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return "never" if math.isinf(value) else round(value, 3)
    return value
