"""The benchmark's results: a row for every run, a table and curves for every setting."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hil_rllib.disk import write_whole
from hil_rllib.results import figures
from hil_rllib.results.outcomes import RUNS_FILE, Outcome, Result, read_report, read_runs, write_tables
from hil_rllib.results.protocol import ARMS, MOST_STEPS, SETTINGS, THRESHOLDS
from hil_rllib.results.scores import bootstrap, iqm, quartiles


class NothingFinishedError(ValueError):
    """There is no run to report of."""


def write_report(out: Path, folder: Path, others: Sequence[Outcome] = ()) -> str:
    """Tables, rows and curves of the finished runs in `out`; returns the tables.

    others: of runs made elsewhere; where one is in `out` too, that counts. Raises NothingFinishedError.
    """
    found = {o.result.place: o for o in [*others, *read_runs(out)]}
    if not found:
        raise NothingFinishedError(f"{out} holds no finished run of the benchmark yet.")
    every = [found[place] for place in sorted(found)]
    outcomes = {name: [o for o in every if o.result.setting == name] for name in SETTINGS}
    outcomes = {name: some for name, some in outcomes.items() if some}
    folder.mkdir(parents=True, exist_ok=True)
    tables = [section(name, some) for name, some in outcomes.items()]
    text = "\n".join([*tables, time_taken(every), made_by(every)])
    write_whole(folder / "tables.md", text)
    write_tables(folder, every)
    draw(outcomes, folder / "curves.png")
    return text


def check_report(folder: Path, out: Path, others: Sequence[Outcome]) -> None:
    """Raises ValueError where a report in `folder` has runs that one of `out` and `others` would not have."""
    if not (folder / RUNS_FILE).exists():
        return
    here = {o.result.place for o in [*others, *read_runs(out)]}
    lost = {o.result.job.name for o in read_report(folder) if o.result.place not in here}
    if lost:
        raise ValueError(
            f"The report in {folder} would lose {len(lost)} runs that are not in {out}, such as {min(lost)}. "
            f"Keep them with --add {folder}, or name another --report."
        )


def section(name: str, outcomes: Sequence[Outcome]) -> str:
    """A setting's table in Markdown."""
    lines = [
        f"**{name}**: {SETTINGS[name].title}",
        "",
        "| help | seeds | steps to 90 % | human s to 90 % | minutes to 90 % | steps to 100 % "
        "| human s to 100 % | minutes to 100 % | steps made | minutes in all | last evaluation "
        "| ended solved |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in SETTINGS[name].arms:
        results = [o.result for o in outcomes if o.result.arm == arm]
        if results:
            lines.append(f"| {ARMS[arm].title} | {len(results)} | {' | '.join(cells(results))} |")
    return "\n".join(lines) + "\n"


def cells(results: Sequence[Result]) -> list[str]:
    """Median (quartiles) of what each threshold took, the interquartile mean of the last evaluation, and how
    many ended before their last step because all was solved: their last evaluation could only be 100 %.
    """
    texts = []
    for threshold in (90, 100):
        for quantity, unit in (("env_steps", 1.0), ("human_s", 1.0), ("wall_s", 60.0)):
            values = [getattr(r, f"{quantity}_to_{threshold}") / unit for r in results]
            texts.append(spread(values, digits=1 if unit != 1 else 0))
    texts += [spread([r.env_steps for r in results]), spread([r.wall_s / 60 for r in results], digits=1)]
    last = [r.last_success for r in results if r.last_success is not None]
    ended = sum(r.last_success == 1.0 and 0 < r.env_steps < (r.steps or MOST_STEPS) for r in results)
    early = f"{ended} of {len(results)}" if ended else "none"
    if not last:
        return [*texts, "none", early]
    low, high = bootstrap(last)
    interval = f" ({low:.0%} … {high:.0%})" if len(last) > 1 else ""  # of one seed it would say nothing
    return [*texts, f"{iqm(last):.0%}{interval}", early]


def time_taken(outcomes: Sequence[Outcome]) -> str:
    """What all runs took, each counted once although two settings may show it."""
    runs = distinct(outcomes)
    one_by_one = sum(r.wall_s for r in runs) / 3600
    by_the_clock = sum(r.wall_s / (r.jobs or 1) for r in runs) / 3600
    beside = f"; some side by side, so {by_the_clock:.1f} h by the clock" if by_the_clock < one_by_one else ""
    return f"Wall-clock time of the {len(runs)} runs: {one_by_one:.1f} h{beside}.\n"


def made_by(outcomes: Sequence[Outcome]) -> str:
    """Of which commits and on which machines the runs are."""
    runs = distinct(outcomes)

    def counted(names: Sequence[str]) -> str:
        return ", ".join(f"{name} ({count} runs)" for name, count in Counter(names).most_common())

    commits, machines = counted([f"`{r.commit}`" for r in runs]), counted([r.machine for r in runs])
    return f"Commits: {commits}. Machines: {machines}.\n"


def distinct(outcomes: Sequence[Outcome]) -> Sequence[Result]:
    """The runs, each once although two settings may show it."""
    return list({o.result.job.name: o.result for o in outcomes}.values())


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
