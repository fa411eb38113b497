"""Curves with bands over seeds, drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Curve = tuple[Numbers, Numbers]  # x and y of one run, (N,) each, x not falling

DPI = 130
PANEL_IN = (4.6, 3.2)  # width and height of one panel
# Okabe & Ito 2008: eight colours that colour-blind readers tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")


def panels(rows: int, columns: int) -> tuple[Any, Any]:
    """A figure and its axes (rows, columns)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = PANEL_IN
    figure = Figure(figsize=(width * columns, height * rows + 0.9), layout="constrained")
    FigureCanvasAgg(figure)  # no window, whatever the user's settings
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return figure, axes


def band(
    axis: Any, curves: Sequence[Curve], colour: str, label: str, going_on: Sequence[bool] | None = None
) -> None:
    """Every run as a thin line, their median as a thick one, their quartiles as a band.

    A run that ended before the others keeps its last value, as a policy that is trained no further does.
    going_on: those of which nobody knows yet what follows; median and band end with the first of them.
    """
    known = [True] * len(curves) if going_on is None else [not going for going in going_on]
    begun = [(curve, ended) for curve, ended in zip(curves, known, strict=True) if len(curve[0])]
    if not begun:
        return
    curves = [curve for curve, _ in begun]
    grid, values = on_one_grid(curves)
    until = min([x[-1] for (x, _), ended in begun if not ended], default=grid[-1])
    grid, values = grid[grid <= until], values[:, grid <= until]
    if len(curves) > 1:
        for x, y in curves:
            axis.plot(x, y, color=colour, linewidth=0.6, alpha=0.45)
        if len(grid):
            low, high = np.percentile(values, [25, 75], axis=0)
            axis.fill_between(grid, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.plot(
        grid,
        np.median(values, axis=0),
        color=colour,
        linewidth=1.8,
        marker="o" if len(grid) < 40 else None,  # evaluations are few, reports many
        markersize=3,
        label=label,
    )


def on_one_grid(curves: Sequence[Curve]) -> tuple[Numbers, Numbers]:
    """x (N,) where every run has begun and any has a point, and all runs' y there (runs, N)."""
    begin = max(x[0] for x, _ in curves)
    grid = np.unique(np.concatenate([[begin], *(x[x >= begin] for x, _ in curves)]))
    return grid, np.array([np.interp(grid, x, y) for x, y in curves])


def colours(names: Sequence[str]) -> Mapping[str, str]:
    """One for each name, in order; from the ninth on they repeat."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def save(figure: Any, path: Path, legend_of: Any) -> None:
    """Write the PNG, with one legend for all panels below them. legend_of: axes with all labels."""
    handles: dict[str, Any] = {}
    for axis in legend_of:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=min(4, max(1, len(handles))),
        fontsize=8,
        frameon=False,
    )
    figure.savefig(path, dpi=DPI)
