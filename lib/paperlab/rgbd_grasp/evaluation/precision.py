"""Precision of ranked verdicts, and average precision with its interval over scenes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from paperlab.rgbd_grasp.evaluation.bootstrap import Interval, interval
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
    by_scene = [100 * np.bincount(index, column) / count for column in values.T]
    return AveragePrecision(*(interval(v, count, seed=seed, resamples=resamples, level=level) for v in by_scene))
