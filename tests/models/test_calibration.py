"""Calibration on distributions whose answer is known, and the threshold's promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil_rllib.models.calibration import choose_threshold, curve, fit_scale_and_shift, scores


def test_scale_and_shift_of_a_known_distribution_are_found():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, 40_000)
    labels = rng.random(40_000) < 1 / (1 + np.exp(-(0.5 * logits - 1.0)))  # overconfident twice over
    scale, shift = fit_scale_and_shift(logits, labels)
    assert (scale, shift) == (pytest.approx(0.5, abs=0.02), pytest.approx(-1.0, abs=0.04))


def test_labels_that_logits_separate_give_no_certainty():
    scale, shift = fit_scale_and_shift(np.array([-9.0, -8.0, 8.0, 9.0]), np.array([False, False, True, True]))
    assert 0 < scale < 1
    assert 1 / (1 + np.exp(-(9 * scale + shift))) == pytest.approx(
        3 / 4, abs=0.05
    )  # Platt: (2 + 1) / (2 + 2)


def test_scores_of_a_table_done_by_hand():
    called = np.array([1, 1, 1, 0, 0], bool)
    labels = np.array([1, 1, 0, 1, 0], bool)
    result = scores(called, labels)
    assert (result.precision, result.recall) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert result.f1 == pytest.approx(2 / 3)
    assert (result.positives, result.frames) == (3, 5)
    assert scores(np.zeros(2, bool), np.zeros(2, bool)).f1 == 0.0


@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), st.booleans()), min_size=2, max_size=30)
)
def test_the_curve_is_what_deciding_at_each_threshold_gives(frames):
    probabilities, labels = (np.array(column) for column in zip(*frames, strict=True))
    for threshold, precision, recall in zip(*curve(probabilities, labels), strict=True):
        by_hand = scores(probabilities >= threshold, labels)
        assert (precision, recall) == (pytest.approx(by_hand.precision), pytest.approx(by_hand.recall))


def test_the_threshold_is_as_precise_as_asked_and_lies_in_the_middle_of_its_gap():
    probabilities = np.array([0.9, 0.8, 0.7, 0.5, 0.4, 0.1])
    labels = np.array([1, 1, 0, 1, 0, 0], bool)
    assert choose_threshold(probabilities, labels, 0.99) == pytest.approx(0.75)
    assert choose_threshold(probabilities, labels, 0.7) == pytest.approx(0.45)  # 3 of 4 are right
    everything_right = np.array([1, 1, 1, 0, 0, 0], bool)
    assert choose_threshold(probabilities, everything_right, 1.0) == pytest.approx(0.6)


def test_a_precision_that_no_threshold_reaches_is_said():
    with pytest.raises(
        ValueError, match=r"No threshold reaches precision 0.9 .* at best 0.500\. Record more"
    ):
        choose_threshold(np.array([0.9, 0.8]), np.array([False, True]), 0.9)
