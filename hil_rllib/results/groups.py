"""Runs that belong together, what sets groups apart, and their curves in one picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hil_rllib.config import Config
from hil_rllib.results import figures
from hil_rllib.results.curves import NoCurvesError, RunCurves

OWN = {"run.seed", "run.dir"}  # what runs of one group may differ in
UNSAID = {"checkpoint", "record"}  # sections that change nothing about learning
LONGEST = 60  # characters of a label; beyond that the runs' names say it better

PANELS = (  # tag, title, whether it is a share
    ("evaluation", "greedy success", True),
    ("hil/intervention_rate", "intervention rate, last 20 episodes", True),
    ("hil/human_seconds", "seconds of a person's hands", False),
)


def group(runs: Sequence[RunCurves]) -> dict[str, list[RunCurves]]:
    """Runs by label, which says how a group's configuration differs from the others'.

    Raises NoCurvesError where some count env steps and others updates.
    """
    if len({run.clock for run in runs}) > 1:
        raise NoCurvesError(
            "Some of these runs count env steps and some, learning offline, updates. Draw them separately."
        )
    by_config: dict[tuple[tuple[str, Any], ...], list[RunCurves]] = {}
    for run in runs:
        by_config.setdefault(tuple(leaves(run.config).items()), []).append(run)
    configs = [dict(items) for items in by_config]
    differing = [key for key in configs[0] if any(config[key] != configs[0][key] for config in configs)]
    labels = [", ".join(f"{key}={config[key]}" for key in differing) for config in configs]
    if any(not 0 < len(label) <= LONGEST for label in labels):
        labels = [common_name([run.folder.name for run in members]) for members in by_config.values()]
    return dict(zip(distinct(labels), by_config.values(), strict=True))


def leaves(config: Config) -> dict[str, Any]:
    """The configuration by dotted key, without what may differ between seeds."""
    found: dict[str, Any] = {}

    def walk(values: dict[str, Any], prefix: str) -> None:
        for key, value in values.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            elif prefix + key not in OWN:
                found[prefix + key] = tuple(value) if isinstance(value, list) else value

    walk({key: value for key, value in config.to_dict().items() if key not in UNSAID}, "")
    return found


def common_name(names: Sequence[str]) -> str:
    """`state_1` and `state_2` are `state`."""
    stems = {re.sub(r"[-_. ]*(seed)?[-_. ]*\d*$", "", name) for name in names}
    return stems.pop() or names[0] if len(names) > 1 and len(stems) == 1 else names[0]


def distinct(labels: Sequence[str]) -> list[str]:
    """The labels, numbered where two are equal."""
    return [
        f"{label} ({labels[: i + 1].count(label)})" if labels.count(label) > 1 else label
        for i, label in enumerate(labels)
    ]


def draw(groups: dict[str, list[RunCurves]], path: Path, *, ended: bool = False) -> None:
    """Writes the PNG: a panel for each of `PANELS`. ended: all have, though a sweep's trials do not say."""
    figure, axes = figures.panels(1, len(PANELS))
    colours = figures.colours(list(groups))
    clock = next(iter(groups.values()))[0].clock.replace("_", " ")
    for axis, (tag, title, share) in zip(axes[0], PANELS, strict=True):
        for label, runs in groups.items():
            going_on = [not (ended or run.ended) for run in runs]
            figures.band(axis, [curve(run, tag) for run in runs], colours[label], label, going_on)
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_xlabel(clock, fontsize=8)
        if share:
            axis.set_ylim(-0.03, 1.03)
        else:
            axis.set_ylim(bottom=0)
    figures.save(figure, path, axes[0])


def curve(run: RunCurves, tag: str) -> figures.Curve:
    """Steps and values of a panel; empty where the run did not report it."""
    if tag == "evaluation":
        return run.evaluations.steps, run.evaluations.success
    if tag not in run.scalars:
        return run.evaluations.steps[:0], run.evaluations.success[:0]
    return run.scalars[tag].steps, run.scalars[tag].values
