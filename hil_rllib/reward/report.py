"""Pictures of how well the classifier does: its precision-recall curve, and the frames it gets wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hil_rllib.contract import CAMERAS
from hil_rllib.models.calibration import curve
from hil_rllib.reward.data import Part

Floats = NDArray[np.floating]

COLUMNS, ROWS = 4, 6  # of the contact sheet
WRONG, UNSURE = "firebrick", "dimgray"


def draw_curve(path: Path, probabilities: Floats, labels: NDArray[np.bool_], threshold: float) -> None:
    """Precision over recall on the held-out frames, with the chosen threshold marked."""
    thresholds, precision, recall = curve(probabilities, labels)
    figure = _figure(5, 4)
    axis = figure.subplots()
    axis.step(recall, precision, where="post", color="black")
    accepted = np.flatnonzero(thresholds >= threshold)
    if len(accepted):
        at = accepted[-1]
        axis.plot(recall[at], precision[at], "o", label=f"threshold {threshold:.2f}")
        axis.legend(loc="lower left")
    title = f"{len(labels)} held-out frames, {int(labels.sum())} of success"
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), title=title)
    figure.savefig(path, dpi=100)


def draw_mistakes(path: Path, part: Part, probabilities: Floats, threshold: float) -> None:
    """A contact sheet: frames judged wrongly, worst first, then those nearest to the threshold."""
    called = probabilities >= threshold
    wrong, off = called != part.labels, np.abs(probabilities - threshold)
    chosen = np.lexsort((np.where(wrong, -off, off), ~wrong))[: COLUMNS * ROWS]
    figure = _figure(COLUMNS * 3.2, ROWS * 2.1)
    for axis, i in zip(figure.subplots(ROWS, COLUMNS).flat, chosen, strict=False):
        axis.imshow(np.concatenate([part.frames[camera][i] for camera in CAMERAS], axis=1))
        kind = ("FALSE SUCCESS" if called[i] else "MISSED") if wrong[i] else "right"
        dataset, episode, frame = part.where[i]
        axis.set_title(
            f"{kind}: p {probabilities[i]:.2f}\n{dataset[:16]} episode {episode} frame {frame}",
            color=WRONG if wrong[i] else UNSURE,
            fontsize=7,
        )
    for axis in figure.axes:
        axis.axis("off")
    figure.savefig(path, dpi=100)


def _figure(width_in: float, height_in: float) -> Any:
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)  # no window, whatever the user's settings
    return figure
