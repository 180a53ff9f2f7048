"""Paired differences: scenes and the seeds of nets are the units of an interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

LEVEL, RESAMPLES = 0.95, 4000


def interval(values: NDArray[np.float64], seed: int = 0) -> tuple[float, float, float]:
    """Return mean, lower and upper end over units (seeds, scenes), both resampled; the ends are NaN for one scene."""
    table = np.atleast_2d(values)
    mean = float(table.mean())
    if table.shape[1] < 2:
        return mean, float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(table), size=(RESAMPLES, len(table), 1))
    columns = rng.integers(table.shape[1], size=(RESAMPLES, 1, table.shape[1]))
    means = table[rows, columns].mean(axis=(1, 2))
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return mean, float(low), float(high)


def verdict(low: float, high: float) -> str:
    """Say what an interval of a difference shows."""
    if np.isnan(low):
        return "one scene: no interval"
    return "higher" if low > 0 else "lower" if high < 0 else "not resolved"


def difference(first: Sequence[pd.Series], second: Sequence[pd.Series]) -> tuple[float, float, float]:
    """Return the mean paired difference and its interval between two methods, each a series by scene for every seed.

    Seeds are paired; a method that has one seed is paired with every seed of the other.
    """
    a, b = (np.stack([series.to_numpy(dtype=float) for series in lot]) for lot in (first, second))
    if len(a) != len(b) and min(len(a), len(b)) > 1:
        raise ValueError(f"difference: got {len(a)} and {len(b)} seeds, needs as many, or one")
    return interval(a - b)
