"""How good a heatmap is, before any depth or search: its best entries against the labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from paperlab.rgbd_grasp.geometry.anchors import Anchors
from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, Ints
from paperlab.rgbd_grasp.learning.samples import Samples

if TYPE_CHECKING:
    import pandas as pd

TOP = 50  # entries that are judged, as many as the evaluator's grasps
NEAR_RAD = np.pi / 6


def top_entries(heatmap: Floats, count: int = TOP, seed: int = 0) -> tuple[Ints, ...]:
    """Return class, row and column of the best entries of a heatmap (C, rows, columns); ties fall at random."""
    flat = heatmap.ravel()
    last = np.partition(flat, -count)[-count]
    above, equal = np.flatnonzero(flat > last), np.flatnonzero(flat == last)
    drawn = np.random.default_rng(seed).choice(equal, count - len(above), replace=False)
    return np.unravel_index(np.concatenate([above, drawn]), heatmap.shape)


def _around(labels: Bools, row: Ints, column: Ints) -> Bools:
    """Return which classes (C, N) have a label in each of N cells or one of the eight around it."""
    padded = np.pad(labels, ((0, 0), (1, 1), (1, 1)))
    return np.logical_or.reduce([padded[:, row + dv, column + du] for dv in range(3) for du in range(3)])


def judged(heatmap: Floats, labels: Bools, objects: Bools, near: Bools, count: int = TOP) -> dict[str, float]:
    """Return the shares of the `count` best entries that are right.

    `exact`: the entry is a label (C, rows, columns). `tolerant`: a label lies within one cell and 30°, `near` (C, C)
    telling which classes do. `on_object`: the cell shows an object (rows, columns).
    """
    kind, row, column = top_entries(heatmap, count)
    around = _around(labels, row, column)
    return {
        "exact": float(labels[kind, row, column].mean()),
        "tolerant": float((around & near[:, kind]).any(axis=0).mean()),
        "on_object": float(objects[row, column].mean()),
    }


def monitored(probability: Floats, labels: Bools) -> dict[str, float]:
    """Return what the released code prints while it trains, for a heatmap of probabilities (C, rows, columns).

    Recall of positives and the rate of true negatives at 0.5, precision at 0.5 and 0.8 (NaN where nothing reaches
    them), the number of entries above 0.5, precision of the best 20.
    """
    above = probability > 0.5
    strict = probability > 0.8
    hits = int((above & labels).sum())
    return {
        "recall": hits / max(int(labels.sum()), 1),
        "true_negatives": float((~above & ~labels).sum() / max(int((~labels).sum()), 1)),
        "precision_at_0.5": hits / above.sum() if above.any() else np.nan,
        "precision_at_0.8": float((strict & labels).sum() / strict.sum()) if strict.any() else np.nan,
        "predicted": int(above.sum()),
        "precision_of_top_20": float(labels[top_entries(probability, 20)].mean()),
    }


def judge_samples(
    predict: Callable[[int], Floats], samples: Samples, anchors: Anchors, chosen: Iterable[int] | None = None
) -> pd.DataFrame:
    """Return a row per sample: scene, and `judged` for the heatmap that `predict` gives for the sample's index."""
    import pandas as pd

    near = anchors.neighbors(NEAR_RAD)
    rows = []
    for i in range(len(samples)) if chosen is None else chosen:
        labels = samples.labels([i])[0].numpy()
        scene = {"sample": i, "scene": int(samples.scenes[i])}
        rows.append(scene | judged(predict(i), labels, samples.objects[i], near))
    return pd.DataFrame(rows)


def prior_heatmap(train: Samples, objects: Bools) -> Floats:
    """Return the baseline (C, rows, columns) that knows no image: class priors of `train`, on true object cells."""
    return train.class_prior()[:, None, None] * objects
