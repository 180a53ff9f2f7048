"""Fits a roofline's efficiencies and overhead to measured rows and says how well it predicts unseen ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from paperlab.hardware.roofline import Roofline

_COLUMNS = ("flops", "bytes", "latency_s")


@dataclass(frozen=True)
class Calibration:
    """A fitted roofline with relative errors |predicted / measured - 1|, per row sets.

    `compute_rows` and `memory_rows` count the fitted rows on either side of the ridge: an efficiency resting
    on few rows is weakly known.
    """

    roofline: Roofline
    fit_mean_error: float
    held_out_mean_error: float
    held_out_max_error: float
    compute_rows: int
    memory_rows: int


def calibrate(rows: pd.DataFrame, roofline: Roofline, held_out: float = 0.25, seed: int = 0) -> Calibration:
    """Fit `roofline`'s efficiencies and overhead to `rows` and report the error on a held-out share of them.

    `rows` has the columns flops, bytes and latency_s. The fit minimizes squared relative errors of
    overhead + max(flops / (peak·e_c), bytes / (bandwidth·e_m)); the sum in place of the maximum, a linear
    model that non-negative least squares solves, gives its starting point.

    Raises:
        ValueError: a column is missing, a value is out of range, there are too few rows, or all rows lie on
            one side of the ridge, which leaves the other efficiency undetermined.
    """
    _check(rows, held_out)
    order = np.random.default_rng(seed).permutation(len(rows))
    split = max(1, round(held_out * len(rows)))
    unseen, seen = rows.iloc[order[:split]], rows.iloc[order[split:]]
    fitted = _fit(seen, roofline)
    bound = fitted.bound(seen["flops"], seen["bytes"])
    compute_rows, memory_rows = int((bound == "compute").sum()), int((bound == "memory").sum())
    if not compute_rows or not memory_rows:
        missing = "memory" if compute_rows else "compute"
        raise ValueError(f"rows hold no {missing}-bound operation; add some, its efficiency is undetermined")
    error = relative_error(unseen, fitted)
    return Calibration(
        fitted, float(relative_error(seen, fitted).mean()), float(error.mean()), float(error.max()),
        compute_rows, memory_rows,
    )  # fmt: skip


def relative_error(rows: pd.DataFrame, roofline: Roofline) -> NDArray[np.float64]:
    """Return |predicted / measured - 1| of every row."""
    predicted = roofline.time_s(rows["flops"], rows["bytes"])
    return np.abs(predicted / rows["latency_s"].to_numpy() - 1)


def _fit(rows: pd.DataFrame, roofline: Roofline) -> Roofline:
    from scipy.optimize import least_squares, nnls  # slow to import, and only fits need it

    ideal, latency_s = roofline.ideal, rows["latency_s"].to_numpy()
    scale_s = float(latency_s.min())  # the overhead cannot be larger, and this keeps the unknowns near 1
    # Shares of the measured time that each part would take at full efficiency.
    compute = ideal.compute_s(rows["flops"]) / latency_s
    memory = ideal.memory_s(rows["bytes"]) / latency_s
    overhead = scale_s / latency_s
    start, _ = nnls(np.stack([compute, memory, overhead], axis=1), np.ones(len(rows)))

    def residuals(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.maximum(x[0] * compute, x[1] * memory) + x[2] * overhead - 1

    tiny = 1e-9
    x = least_squares(residuals, np.maximum(start, tiny), bounds=(0.0, np.inf), xtol=1e-12, ftol=1e-12).x.tolist()
    return replace(
        ideal,
        compute_efficiency=1 / max(x[0], tiny),
        memory_efficiency=1 / max(x[1], tiny),
        overhead_s=x[2] * scale_s,
    )


def _check(rows: pd.DataFrame, held_out: float) -> None:
    if missing := [column for column in _COLUMNS if column not in rows]:
        raise ValueError(f"rows lack the columns {missing}; they need {', '.join(_COLUMNS)}")
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is {held_out}; give a share between 0 and 1")
    if len(rows) < 8:
        raise ValueError(f"rows has {len(rows)} rows; three unknowns and a held-out share need at least 8")
    if not (np.isfinite(rows[list(_COLUMNS)]).all(axis=None) and (rows[list(_COLUMNS)] >= 0).all(axis=None)):
        raise ValueError("rows hold negative or non-finite values; flops, bytes and latency_s must be >= 0")
    if not (rows["latency_s"] > 0).all():
        raise ValueError("rows hold a latency_s of 0; every measured time must be positive")
