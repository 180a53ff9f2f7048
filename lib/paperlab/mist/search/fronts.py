"""Pareto fronts over (t, d) and the artifact's α-sampling of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
ALPHAS = 30


def pareto(t: NDArray[Any], d: NDArray[Any]) -> Index:
    """Return the indices of points that no other one matches or beats in both, by growing t; one of equal points."""
    if not len(t):
        return np.array([], dtype=int)
    # One good point usually dominates nearly all others, and sorting is what costs.
    good = np.argmin(t + d)
    left = np.flatnonzero((t < t[good]) | (d < d[good]) | ((t == t[good]) & (d == d[good])))
    order = left[np.lexsort((d[left], t[left]))]
    sorted_d = d[order]
    best_before = np.concatenate(([np.inf], np.minimum.accumulate(sorted_d)[:-1]))
    return order[sorted_d < best_before]


def sampled(t: NDArray[Any], d: NDArray[Any], weight_of_d: float, count: int = ALPHAS) -> Index:
    """Return the points that minimize α/(1−α)·t + weight·d for `count` values of α evenly inside (0, 1).

    Weighted sums only find points on the convex hull, so this may lose the optimum (§2.9).
    """
    if not len(t):
        return np.array([], dtype=int)
    alphas = np.arange(1, count + 1) / (count + 1)
    ratio = alphas / (1 - alphas)
    return np.unique(np.argmin(ratio[:, None] * t + weight_of_d * d, axis=1))
