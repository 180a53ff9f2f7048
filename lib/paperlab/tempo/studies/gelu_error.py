"""How far D(y, side) is from g'(x): the floor that keeping only y sets, and each evaluator against it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from paperlab.tempo.ops.gelu_fit import (
    Approximate,
    Evaluator,
    derivative,
    exact,
    invert,
    minimum,
    side_threshold,
)

NEAR = 0.1  # |x - x*| below which the square-root singularity dominates the error
_LIMIT = 10.0


def grid(dtype: torch.dtype, points: int = 200_001) -> Tensor:
    """Return inputs in [-10, 10]: all values of a 16-bit dtype, else `points` equidistant ones, in `dtype`."""
    if dtype.itemsize > 2:
        return torch.linspace(-_LIMIT, _LIMIT, points, dtype=torch.float64).to(dtype)
    values = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    return values[values.abs() <= _LIMIT].sort().values


def information_floor(dtype: torch.dtype, approximate: Approximate = "none", points: int = 200_001) -> pd.DataFrame:
    """Return the error of the exact inversion of correctly rounded y: no method that keeps only y can do better.

    One row per region, "near" (|x - x*| < 0.1) and "away": region, max_error, rms_error, over `grid`.
    """
    x = grid(dtype, points)
    value, slope = exact(x.double(), approximate)
    side = x >= side_threshold(dtype, approximate)
    inverted = invert(value.to(dtype).double(), side, approximate)
    return _by_nearness(x, exact(inverted, approximate)[1] - slope, approximate)


def derivative_error(
    dtype: torch.dtype,
    approximate: Approximate = "none",
    evaluator: Evaluator = "fit",
    points: int = 200_001,
) -> pd.DataFrame:
    """Return the error of an evaluator on torch's own GELU output, as `information_floor` does."""
    x = grid(dtype, points)
    side = x >= side_threshold(dtype, approximate)
    found = derivative(F.gelu(x, approximate=approximate), side, approximate, evaluator)
    return _by_nearness(x, found.double() - exact(x.double(), approximate)[1], approximate)


def summarize(regions: Mapping[Any, np.ndarray], error: np.ndarray, weight: np.ndarray) -> pd.DataFrame:
    """Return one row per region, a mask over `error`: region, max_error, rms_error weighted by `weight`."""
    rows = [
        (region, np.abs(error[mask]).max(), np.sqrt(np.average(error[mask] ** 2, weights=weight[mask])))
        for region, mask in regions.items()
    ]
    return pd.DataFrame(rows, columns=["region", "max_error", "rms_error"])


def _by_nearness(x: Tensor, error: Tensor, approximate: Approximate) -> pd.DataFrame:
    near = ((x.double() - minimum(approximate).x).abs() < NEAR).numpy()
    return summarize({"near": near, "away": ~near}, error.numpy(), np.ones(len(x)))
