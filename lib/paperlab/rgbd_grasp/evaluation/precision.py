"""Precision of ranked verdicts, average precision, and bootstrap intervals over scenes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from paperlab.rgbd_grasp.geometry.checks import Floats, floats
from paperlab.rgbd_grasp.labels.force_closure import EVALUATED_FRICTIONS

TOP_K = 50


def precision_at(frictions: ArrayLike, top_k: int = TOP_K) -> Floats:
    """Return (top_k, 6): the share of the best k grasps that hold at each evaluated friction coefficient.

    `frictions` (M,) are the smallest ones at which grasps hold, best grasp first, -1 for none. Where there are fewer
    than k grasps it is still divided by k.
    """
    smallest = floats("frictions", frictions, None)[:top_k]
    held = (smallest[:, None] > 0) & (smallest[:, None] <= np.array(EVALUATED_FRICTIONS))
    counts = np.zeros((top_k, len(EVALUATED_FRICTIONS)))
    counts[: len(held)] = held
    return counts.cumsum(axis=0) / np.arange(1, top_k + 1)[:, None]


class Interval(NamedTuple):
    """A mean and its bootstrap interval, in percent."""

    mean: float
    low: float
    high: float


class AveragePrecision(NamedTuple):
    """AP over all six friction coefficients, and at 0.8 and 0.4 alone, in percent."""

    ap: Interval
    ap_08: Interval
    ap_04: Interval


def frame_ap(precision: ArrayLike) -> Floats:
    """Return AP, AP_0.8 and AP_0.4 (F, 3) of frames with precisions (F, 50, 6), as fractions."""
    tensor = floats("precision", precision, None, None, len(EVALUATED_FRICTIONS))
    at = [tensor.mean(axis=(1, 2))]
    at += [tensor[:, :, EVALUATED_FRICTIONS.index(friction)].mean(axis=1) for friction in (0.8, 0.4)]
    return np.stack(at, axis=-1)


def average_precision(
    precision: ArrayLike, scenes: ArrayLike, *, seed: int = 0, resamples: int = 2000, level: float = 0.95
) -> AveragePrecision:
    """Return AP, AP_0.8, AP_0.4 of frames (F, 50, 6), with intervals from resampling whole scenes.

    `scenes` (F,) tells the scene of each frame: frames of one scene are not independent. With one scene the interval
    is NaN. Raises ValueError where there is no frame.
    """
    values = frame_ap(precision)
    scene = np.asarray(scenes)
    if not len(values) or scene.shape != (len(values),):
        raise ValueError(f"scenes: got {scene.shape} for {len(values)} frames, needs one per frame, at least one")
    _, index = np.unique(scene, return_inverse=True)
    count = np.bincount(index)
    sums = np.stack([np.bincount(index, column) for column in values.T], axis=-1)
    low = high = np.full(3, np.nan)
    if len(count) > 1:
        drawn = np.random.default_rng(seed).integers(len(count), size=(resamples, len(count)))
        means = sums[drawn].sum(axis=1) / count[drawn].sum(axis=1)[:, None]
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return AveragePrecision(*(Interval(*row) for row in np.stack([values.mean(axis=0), low, high], axis=-1) * 100))
