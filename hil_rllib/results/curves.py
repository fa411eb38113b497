"""A run's curves from its TensorBoard files, as arrays.

    run = read_run(Path("runs/panda_sac_state"))
    run.scalars["hil/human_seconds"].steps, run.evaluations.success

A run is a folder with `config.yaml`. Every session of it (the first, and one for each `--resume`) left a
TensorBoard file; they are joined at the step where the later one took over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hil_rllib.config import CONFIG_FILE, SUMMARY_FILE, Config, load_config

EVENTS = "events.out.tfevents.*"
PREFIX = "ray/tune/"  # Tune's, before every tag
SECTIONS = ("hil/", "evaluation/")

Numbers = NDArray[np.float64]


class NoCurvesError(ValueError):
    """There is nothing to read; the message says where and why."""


@dataclass(frozen=True)
class Series:
    """One scalar's reports, (N,). steps: env steps, updates unless sac learns; wall: Unix time [s]."""

    steps: Numbers
    values: Numbers
    wall: Numbers


@dataclass(frozen=True)
class EvaluationCurve:
    """Greedy evaluations in order. steps: whose weights; success: [0, 1]; wall: Unix time [s]. All (N,)."""

    steps: Numbers
    success: Numbers
    episodes: Numbers
    wall: Numbers


@dataclass(frozen=True)
class RunCurves:
    """What one run reported. scalars: by tag, such as `hil/intervention_rate`."""

    folder: Path
    config: Config
    scalars: dict[str, Series]
    evaluations: EvaluationCurve

    @property
    def clock(self) -> str:
        """What the steps count: `env_steps` or `updates`."""
        return self.config.schedule[0]

    @property
    def ended(self) -> bool:
        """Whether the run came to its end, by its own stop or somebody's."""
        return (self.folder / SUMMARY_FILE).is_file()


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """The runs that these folders are, or that lie in them. Raises NoCurvesError."""
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise NoCurvesError(f"{folder}: no such folder. Name a run, such as runs/panda_sac.")
        inside = (file.parent for file in sorted(folder.glob(f"**/{CONFIG_FILE}")))
        runs = [folder] if (folder / CONFIG_FILE).is_file() else list(inside)
        if not runs:
            raise NoCurvesError(f"{folder} is no run and holds none: there is no {CONFIG_FILE} in it.")
        found += runs
    return list(dict.fromkeys(found))


def read_run(folder: Path) -> RunCurves:
    """Raises NoCurvesError where the run has not reported anything yet, ConfigError for a damaged config."""
    config = load_config(folder / CONFIG_FILE)
    files = (*folder.glob(EVENTS), *folder.glob(f"*/{EVENTS}"))
    read = [scalars for file in files if (scalars := read_session(file))]
    if not read:
        raise NoCurvesError(f"{folder} has no TensorBoard curves yet. Train it until its first report.")
    scalars = join(read)
    return RunCurves(folder, config, scalars, evaluations(scalars, config.schedule[0]))


def read_session(file: Path) -> dict[str, Series]:
    """Scalars by tag of one TensorBoard file; of a run under way as far as it has come."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(file), size_guidance={"scalars": 0})  # 0: keep every point
    accumulator.Reload()
    scalars = {}
    for tag in accumulator.Tags()["scalars"]:
        name = tag.removeprefix(PREFIX)
        if name.startswith(SECTIONS):
            events = accumulator.Scalars(tag)
            columns = np.array([(event.step, event.value, event.wall_time) for event in events], np.float64)
            scalars[name] = Series(*columns.T)
    return scalars


def join(sessions: Sequence[dict[str, Series]]) -> dict[str, Series]:
    """One curve per tag: of each session what lies before the first step of those that came later."""
    ordered = sorted(sessions, key=lambda scalars: min(series.wall[0] for series in scalars.values()))
    joined: dict[str, Series] = {}
    for scalars in ordered:
        begin = min(series.steps[0] for series in scalars.values())
        joined = {name: _before(series, begin) for name, series in joined.items()}
        for name, series in scalars.items():
            joined[name] = _concatenate(joined[name], series) if name in joined else series
    return {name: series for name, series in joined.items() if len(series.steps)}


def evaluations(scalars: dict[str, Series], clock: str) -> EvaluationCurve:
    """Each evaluation once: reports repeat the latest until the next, and those of a resumed run at first
    that of its checkpoint, although later ones may lie between."""
    empty = np.zeros(0)
    at = scalars.get(f"evaluation/at_{clock}")
    if at is None:
        return EvaluationCurve(empty, empty, empty, empty)
    new = np.flatnonzero(np.diff(np.maximum.accumulate(at.values), prepend=-1.0) > 0)
    success, episodes = scalars["evaluation/success"].values, scalars["evaluation/episodes"].values
    # TensorBoard keeps 32-bit floats; successes are whole episodes.
    solved = np.round(success[new] * episodes[new])
    return EvaluationCurve(at.values[new], solved / episodes[new], episodes[new], at.wall[new])


def _before(series: Series, step: float) -> Series:
    kept = series.steps < step
    return Series(series.steps[kept], series.values[kept], series.wall[kept])


def _concatenate(first: Series, second: Series) -> Series:
    return Series(
        np.concatenate([first.steps, second.steps]),
        np.concatenate([first.values, second.values]),
        np.concatenate([first.wall, second.wall]),
    )
