"""Intervals and quartiles against values worked out elsewhere, and against what they mean."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hil_rllib.results.scores import NEVER, bootstrap, first_reached, iqm, quartiles, wilson


@pytest.mark.parametrize(
    ("solved", "episodes", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_is_that_of_newcombes_table(
    solved: int, episodes: int, low: float, high: float
) -> None:
    assert wilson(solved, episodes) == pytest.approx((low, high), abs=5e-5)
    assert wilson(episodes - solved, episodes) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_wilson_refuses_what_is_no_rate() -> None:
    with pytest.raises(ValueError, match="21 of 20"):
        wilson(21, 20)


def test_runs_that_never_got_there_move_the_quartiles_up_to_never() -> None:
    assert quartiles([3.0, 1.0, 2.0]) == (1.5, 2.0, 2.5)
    assert quartiles([1.0, 2.0, NEVER]) == (1.5, 2.0, NEVER)
    assert quartiles([1.0, NEVER, NEVER]) == (NEVER, NEVER, NEVER)
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)


def test_interquartile_mean_leaves_a_quarter_out_at_each_end() -> None:
    assert iqm([100.0, 1.0, 2.0, 3.0, -50.0]) == 2.0
    assert iqm([1.0, 2.0, 3.0]) == 2.0  # too few to leave any out


def test_bootstrap_holds_the_statistic_and_repeats_itself() -> None:
    values = list(np.random.default_rng(0).normal(5.0, 1.0, 20))
    low, high = bootstrap(values)
    assert low < iqm(values) < high
    assert high - low == pytest.approx(4 * 1.1 / math.sqrt(20), rel=0.4)
    assert bootstrap(values) == (low, high)


def test_first_reach_is_the_first() -> None:
    success = np.array([0.5, 0.9, 0.7, 1.0])
    assert first_reached(success, 0.9) == 1
    assert first_reached(success, 1.0) == 3
    assert first_reached(success[:1], 0.9) is None
