"""Fits the 28 slowdown factors to measured points, set by set: pairs first, then triples, then all four (§2.5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paperlab.mist.cost.interference import BOUNDS, RESOURCES, SUBSETS, Interference, overlapped_s

Array = NDArray[np.float64]
_STARTS = 6  # the objective has kinks where another operation ends first, so one start may not be enough
_GOOD = 0.015  # root mean square error of a fit that needs no other start


def fit(alone_s: Array, together_s: Array, seed: int = 0) -> Interference:
    """Fit factors to N points: what each of C, G, H, D takes alone (N x 4, 0 if absent) and all of them together (N).

    Squared relative errors are minimized within [1, 50] from several starts; factors of subsets that no point runs
    stay at 1. Weakly identifiable: compare predictions, never factors.

    Raises:
        ValueError: shapes that do not match, or times that are not positive.
    """
    alone_s, together_s = np.asarray(alone_s, float), np.asarray(together_s, float)
    if alone_s.shape != (len(together_s), 4):
        raise ValueError(f"alone_s has shape {alone_s.shape}; for {len(together_s)} points it must be N x 4")
    if not (alone_s >= 0).all() or not (together_s > 0).all():
        raise ValueError("times alone must not be negative, times together must be positive")
    factors: dict[str, list[float]] = {subset: [1.0] * len(subset) for subset in SUBSETS}
    generator = np.random.default_rng(seed)
    for subset in sorted(SUBSETS, key=len):  # smaller sets follow larger ones, so their factors must be known
        members = [resource in subset for resource in RESOURCES]
        rows = ((alone_s > 0) == members).all(axis=1)
        if rows.any():
            factors[subset] = _fit_subset(subset, factors, alone_s[rows], together_s[rows], generator)
    return Interference.of(factors)


def _fit_subset(
    subset: str, known: dict[str, list[float]], alone_s: Array, together_s: Array, generator: np.random.Generator
) -> list[float]:
    from scipy.optimize import least_squares

    def residuals(values: Array) -> Array:
        table = Interference.of({**known, subset: list(values)}).table
        return overlapped_s(alone_s, table) / together_s - 1

    starts = [np.full(len(subset), 1.2), np.full(len(subset), float(len(subset)))]
    starts += list(np.exp(generator.uniform(0, np.log(8), (_STARTS - 2, len(subset)))))
    best = None
    for start in starts:
        found = least_squares(residuals, np.clip(start, 1.001, 49), bounds=BOUNDS, diff_step=1e-4)
        best = found if best is None or found.cost < best.cost else best
        if 2 * best.cost <= _GOOD**2 * len(alone_s):  # cost is half the sum of squares
            break
    assert best is not None
    return [float(value) for value in best.x]


def relative_errors(model: Interference, alone_s: Array, together_s: Array) -> Array:
    """Return |predicted / measured − 1| of every point."""
    return np.abs(overlapped_s(alone_s, model.table) / together_s - 1)
