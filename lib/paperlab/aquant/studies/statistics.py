"""Paired comparisons: nets are the units of an interval; within a net, McNemar's test pairs the test images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Return mean, lower and upper end of the 95 % t-interval; the ends are NaN for fewer than two values."""
    values = np.asarray(differences, dtype=float)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Return the exact two-sided p-value that two networks are right equally often, from images where they differ."""
    better, worse = int((first & ~second).sum()), int((~first & second).sum())
    return float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0


def verdict(low: float, high: float) -> str:
    """Say what an interval of a difference shows."""
    if np.isnan(low):
        return "one net: no interval"
    return "higher" if low > 0 else "lower" if high < 0 else "not resolved"


def paired(accuracy: pd.DataFrame, pairs: Sequence[tuple[str, str]], by: Sequence[str]) -> pd.DataFrame:
    """Return one row per group and pair of arms: mean difference over nets in points, interval, verdict.

    Args:
        accuracy: columns arm, net_seed, top1 and those of `by`.
        pairs: (arm, the arm it is compared with).
        by: columns that tell comparisons apart, such as network and bits.
    """
    rows = []
    for key, part in accuracy.groupby(list(by), sort=False):
        wide = part.pivot_table(index="net_seed", columns="arm", values="top1")
        for first, second in pairs:
            if first not in wide or second not in wide:
                continue
            differences = (wide[first] - wide[second]).dropna()
            mean, low, high = interval(differences.to_list())
            rows.append((*key, first, second, len(differences), mean, low, high, verdict(low, high)))
    columns = [*by, "arm", "over", "nets", "difference", "low", "high", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def in_words(row: pd.Series) -> str:
    """Return a row of `paired` as "arm − other +2.5 [-0.3, +5.3]"."""
    return f"{row.arm} − {row.over} {row.difference:+.1f} [{row.low:+.1f}, {row.high:+.1f}]"
