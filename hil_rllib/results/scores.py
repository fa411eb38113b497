"""Statistics of few seeds: intervals, quartiles with runs that never got there, interquartile means.

After Agarwal et al. 2021 (rliable). Their package brings arch, seaborn and their dependencies for the four
functions below, so they are written out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
NEVER = math.inf  # a threshold that a run did not reach

Z_95 = 1.959964  # two-sided 95 % of the normal distribution


def wilson(solved: int, episodes: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a success rate, [0, 1]: sound at 0 and at all of few. Wilson 1927."""
    if not 0 <= solved <= episodes or episodes == 0:
        raise ValueError(f"{solved} of {episodes} episodes is no success rate.")
    rate, spread = solved / episodes, z * z / episodes
    centre = (rate + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(rate * (1 - rate) / episodes + spread / (4 * episodes))
    return max(0.0, centre - half), min(1.0, centre + half)


def first_reached(success: Numbers, threshold: float) -> int | None:
    """Index of the first evaluation (N,) at or above the threshold, if there is one."""
    reached = np.flatnonzero(success >= threshold - 1e-9)
    return int(reached[0]) if len(reached) else None


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """25 %, median, 75 % of values of which some may be `NEVER`, linear between ranks."""
    ordered = sorted(values)
    return tuple(_at_rank(ordered, share * (len(ordered) - 1)) for share in (0.25, 0.5, 0.75))  # type: ignore[return-value]


def _at_rank(ordered: Sequence[float], rank: float) -> float:
    below = math.floor(rank)
    share = rank - below
    if share == 0:
        return ordered[below]
    return (1 - share) * ordered[below] + share * ordered[below + 1]  # NEVER, if either is


def iqm(values: Sequence[float]) -> float:
    """Interquartile mean: the mean of what remains without the lowest and the highest quarter."""
    ordered = np.sort(np.asarray(values, np.float64))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def bootstrap(
    values: Sequence[float], statistic: Callable[[Any], float] = iqm, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a statistic over seeds; the same arguments give the same interval."""
    rng = np.random.default_rng(seed)
    sample = np.asarray(values, np.float64)
    drawn = [statistic(sample[rng.integers(len(sample), size=len(sample))]) for _ in range(draws)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)
