"""Paired differences between methods; scenes and the seeds of nets are the units of an interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from paperlab.rgbd_grasp.evaluation.bootstrap import Interval, interval


def verdict(low: float, high: float) -> str:
    """Say what an interval of a difference shows."""
    if np.isnan(low):
        return "one scene: no interval"
    return "higher" if low > 0 else "lower" if high < 0 else "not resolved"


def difference(first: Sequence[pd.Series], second: Sequence[pd.Series]) -> Interval:
    """Return the mean paired difference and its interval between two methods, each a series by scene for every seed.

    Seeds are paired; a method that has one seed is paired with every seed of the other.
    """
    a, b = (np.stack([series.to_numpy(dtype=float) for series in lot]) for lot in (first, second))
    if len(a) != len(b) and min(len(a), len(b)) > 1:
        raise ValueError(f"difference: got {len(a)} and {len(b)} seeds, needs as many, or one")
    return interval(a - b)
