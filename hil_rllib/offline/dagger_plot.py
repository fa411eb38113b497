"""What rounds of corrections brought, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw_rounds(file: Path, rounds: Sequence[Mapping[str, Any]]) -> None:
    """Greedy success after each round, and beside it the seconds of a person's hands which that round took.

    rounds: from the one before the first correction on, as in `summary.json`.
    """
    number = [finished["round"] for finished in rounds]
    seconds = np.diff([finished["human_seconds"] for finished in rounds], prepend=0.0)
    figure = Figure(figsize=(5.5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)  # no window, whatever the user's settings
    success, hands = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    greedy = np.array([finished["greedy_success"] for finished in rounds], float)  # None: not evaluated
    success.plot(number, greedy, marker="o")
    success.set(ylim=(-0.03, 1.03), ylabel="greedy success")
    success.grid(alpha=0.3)
    hands.bar(number, seconds, width=0.6, color="C1")
    hands.set(xlabel="rounds of corrections", ylabel="human seconds", xticks=number)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
