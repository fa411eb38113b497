"""What came of a sweep: a line per trial as it ends, then a table, a CSV file and pictures."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ray import tune

from hil_rllib.results import figures
from hil_rllib.results.curves import NoCurvesError, read_run
from hil_rllib.results.groups import draw as draw_curves
from hil_rllib.results.groups import group
from hil_rllib.results.scores import wilson
from hil_rllib.sweeping.plan import Plan, show
from hil_rllib.sweeping.search import mode


@dataclass(frozen=True)
class Row:
    """One trial. values: of the varied keys; error: why it failed, empty where it did not."""

    folder: Path
    values: dict[str, Any]
    objective: float
    success: float
    episodes: int
    human_seconds_to_90: float | None
    env_steps: int
    seconds: float
    error: str = ""


def rows(results: Any, plan: Plan) -> list[Row]:
    """Tune's results, the best first, failed ones last."""
    found = [row(Path(r.path), r.metrics or {}, r.config or {}, plan, r.error) for r in results]
    sign = -1 if mode(plan) == "max" else 1
    return sorted(found, key=lambda r: (bool(r.error), sign * r.objective, r.folder.name))


def row(folder: Path, metrics: dict[str, Any], config: dict[str, Any], plan: Plan, error: Any = None) -> Row:
    evaluation, hil = metrics.get("evaluation", {}), metrics.get("hil", {})
    return Row(
        folder=folder,
        values={key: config[key] for key in plan.space if key in config},
        objective=float(metrics.get("objective", math.nan)),
        success=float(evaluation.get("success", 0.0)),
        episodes=int(evaluation.get("episodes", 0)),
        human_seconds_to_90=metrics.get("human_seconds_to_90"),
        env_steps=int(hil.get("env_steps", 0)),
        seconds=float(metrics.get("time_total_s", 0.0)),
        error=str(error).strip().splitlines()[-1] if error else "",
    )


class Reporter(tune.Callback):
    """A line for every trial that ends."""

    def __init__(self, plan: Plan, stream: TextIO | None = None) -> None:
        self._plan, self._stream, self._ended = plan, stream or sys.stdout, 0

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **_: Any) -> None:
        self._say(trial, "")

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **_: Any) -> None:
        self._say(trial, "FAILED  ")

    def __getstate__(self) -> dict[str, Any]:
        return {"_plan": self._plan, "_stream": None, "_ended": self._ended}  # Tune saves its callbacks

    def _say(self, trial: Any, outcome: str) -> None:
        self._ended += 1
        r = row(Path(str(trial)), trial.last_result or {}, trial.config, self._plan)
        values = "  ".join(f"{key}={show(value)}" for key, value in r.values.items())
        stream = self._stream or sys.stdout
        stream.write(f"{self._ended}/{self._plan.trials}  {outcome}{trial}  {values}  {result(r)}\n")
        stream.flush()


def write_outcome(found: Sequence[Row], plan: Plan, folder: Path) -> str:
    """`trials.csv`, `objective.png` and `curves.png` in the sweep's folder; returns the table."""
    keys = list(plan.space)
    with (folder / "trials.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        numbers = ["objective", "success", "episodes", "human_seconds_to_90", "env_steps", "seconds"]
        writer.writerow(["trial", *keys, *numbers, "error"])
        for r in found:
            values = [r.values.get(key) for key in keys]
            writer.writerow([r.folder.name, *values, *(getattr(r, name) for name in numbers), r.error])
    whole = [r for r in found if not r.error]
    if whole:
        draw(whole, plan, folder / "objective.png")
        try:
            draw_curves(group([read_run(r.folder) for r in whole]), folder / "curves.png", ended=True)
        except NoCurvesError as error:
            return f"{table(found, keys)}\n\nNo learning curves: {error}"
    return f"{table(found, keys)}\n\n{advice(whole, plan, folder)}"


def table(found: Sequence[Row], keys: Sequence[str]) -> str:
    lines = [["trial", *keys, "success", "95 %", "human s to 90 %", "steps", "seconds"]]
    for r in found:
        interval = wilson(round(r.success * r.episodes), r.episodes) if r.episodes else (0.0, 1.0)
        lines.append(
            [
                r.folder.name,
                *(show(r.values.get(key)) for key in keys),
                "failed" if r.error else f"{r.success:.0%}",
                f"{interval[0]:.0%} … {interval[1]:.0%}",
                "never" if r.human_seconds_to_90 is None else f"{r.human_seconds_to_90:.1f}",
                str(r.env_steps),
                f"{r.seconds:.0f}",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def advice(whole: Sequence[Row], plan: Plan, folder: Path) -> str:
    if not whole:
        return "No trial came to its end."
    best = whole[0].folder
    there = f"Table, objective over each key and learning curves are in {folder}."
    if plan.sweep.scheduler == "pbt":  # values changed on the way: no one configuration makes it again
        return f"{there} Measure the best with\npython -m hil_rllib.evaluate {best}"
    return (
        f"{there} Train the best again with\n"
        f"python -m hil_rllib.train {best / 'config.yaml'} run.dir=runs/best"
    )


def draw(found: Sequence[Row], plan: Plan, path: Path) -> None:
    """Writes a PNG: the objective over each varied key, a dot per trial, the best one marked."""
    figure, axes = figures.panels(1, len(plan.space))
    for axis, (key, how) in zip(axes[0], plan.space.items(), strict=True):
        numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in how.values)
        places = [r.values[key] if numeric else show(r.values[key]) for r in found]
        axis.scatter(places, [r.objective for r in found], s=28, alpha=0.7, color=figures.COLOURS[0])
        axis.scatter(
            places[:1], [found[0].objective], s=90, facecolor="none", color=figures.COLOURS[1], label="best"
        )
        if how.kind == "loguniform":
            axis.set_xscale("log")
        axis.set_xlabel(key, fontsize=8)
        if plan.sweep.objective == "success":
            axis.set_ylim(-0.03, 1.03)
    axes[0, 0].set_ylabel(plan.sweep.objective.replace("_", " "), fontsize=8)
    figures.save(figure, path, axes[0])


def result(r: Row) -> str:
    human = (
        "never at 90 %"
        if r.human_seconds_to_90 is None
        else f"90 % after {r.human_seconds_to_90:.1f} s of a person"
    )
    return f"success {r.success:.0%}, {human}, {r.env_steps} steps, {r.seconds:.0f} s"
