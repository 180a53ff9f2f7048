"""The one bootstrap: what varies is the scene, and the seed of a net; frames of a scene are not independent."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from paperlab.rgbd_grasp.geometry.checks import Floats


class Interval(NamedTuple):
    """A mean and its bootstrap interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def interval(
    values: Floats, weights: ArrayLike | None = None, *, seed: int = 0, resamples: int = 4000, level: float = 0.95
) -> Interval:
    """Return mean and interval of values (seeds, scenes), or (scenes,), both resampled; the ends are NaN for one scene.

    `weights` (scenes,), such as numbers of frames, are 1 by default.
    """
    table = np.atleast_2d(values)
    seeds, scenes = table.shape
    weight = np.ones(scenes) if weights is None else np.asarray(weights, dtype=float)
    mean = float(np.average(table.mean(axis=0), weights=weight))
    if scenes < 2:
        return Interval(mean, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    rows = rng.integers(seeds, size=(resamples, seeds, 1))
    columns = rng.integers(scenes, size=(resamples, 1, scenes))
    drawn = weight[columns]
    means = (table[rows, columns] * drawn).sum(axis=(1, 2)) / (seeds * drawn.sum(axis=(1, 2)))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))
