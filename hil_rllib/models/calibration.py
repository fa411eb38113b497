"""From a classifier's raw logits to probabilities that mean what they say, and to a decision.

Training draws successes and failures equally often, and stops at some confidence; both distort. Two numbers
put that right: p = sigmoid(scale · logit + shift). Source: Platt 1999; Guo et al. 2017 (with shift 0,
temperature scaling).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Flags = NDArray[np.bool_]

ITERATIONS = 100
RIDGE = 1e-3  # on scale, in units of one frame's loss: separable frames would make it infinite


@dataclass(frozen=True)
class Scores:
    """How decisions compare with the labels; a fraction of nothing is 0. All but the counts in [0, 1]."""

    precision: float  # of the frames called success, those that are
    recall: float  # of the frames that are, those called so
    f1: float
    positives: int
    frames: int


def scores(called: Flags, labels: Flags) -> Scores:
    """called, labels: (N,)."""
    hits = int((called & labels).sum())
    precision = hits / max(1, int(called.sum()))
    recall = hits / max(1, int(labels.sum()))
    f1 = 2 * precision * recall / max(1e-12, precision + recall)
    return Scores(precision, recall, f1, int(labels.sum()), len(labels))


def fit_scale_and_shift(logits: Floats, labels: Flags) -> tuple[float, float]:
    """The two numbers that make the labels (N,) most likely, by Newton's method. scale stays above 0.

    Targets are Platt's, (n₊ + 1)/(n₊ + 2) and 1/(n₋ + 2), so that few or separable frames give no certainty.
    """
    x = np.stack([np.asarray(logits, np.float64), np.ones(len(logits))], -1)
    count = int(labels.sum())
    target = np.where(labels, (count + 1) / (count + 2), 1 / (len(labels) - count + 2))
    weights = np.array([1.0, 0.0])
    ridge = np.diag([RIDGE, 0.0])

    def loss(w: Floats) -> float:
        z = x @ w
        return float(np.logaddexp(0.0, z).sum() - target @ z + 0.5 * w @ ridge @ w)

    for _ in range(ITERATIONS):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -60, 60)))
        gradient = x.T @ (p - target) + ridge @ weights
        hessian = (x * (p * (1 - p))[:, None]).T @ x + ridge + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while loss(weights - size * step) > loss(weights) and size > 1e-6:
            size /= 2
        weights = weights - size * step
        if np.abs(size * step).max() < 1e-8:
            break
    return max(float(weights[0]), 1e-3), float(weights[1])


def curve(probabilities: Floats, labels: Flags) -> tuple[Floats, Floats, Floats]:
    """Thresholds (falling) and what deciding at each gives: precision and recall, all (M,).

    Thresholds are the distinct probabilities: a frame is called success if its own is at least as high.
    """
    order = np.argsort(-probabilities, kind="stable")
    ranked, hits = probabilities[order], np.cumsum(labels[order])
    last = np.append(ranked[1:] != ranked[:-1], True)  # of frames with equal probabilities
    called = np.arange(1, len(order) + 1)[last]
    return ranked[last], hits[last] / called, hits[last] / max(1, int(labels.sum()))


def choose_threshold(probabilities: Floats, labels: Flags, precision: float) -> float:
    """The threshold that finds most successes with at least this precision, in the middle of its gap.

    A policy that learns from the classifier looks for its false positives, so precision comes first; between
    the last frame accepted and the first refused neither is known to be right, so the threshold lies halfway.
    Raises ValueError where no threshold is that precise.
    """
    thresholds, precisions, recalls = curve(probabilities, labels)
    good = np.flatnonzero(precisions >= precision)
    if not len(good) or recalls[good].max() == 0:
        raise ValueError(
            f"No threshold reaches precision {precision:g} on the calibration frames; at best "
            f"{precisions[recalls > 0].max(initial=0.0):.3f}. Record more labelled episodes, or set a lower "
            "reward.precision."
        )
    chosen = good[np.argmax(recalls[good])]
    below = thresholds[chosen + 1] if chosen + 1 < len(thresholds) else 0.0
    return float((thresholds[chosen] + below) / 2)
