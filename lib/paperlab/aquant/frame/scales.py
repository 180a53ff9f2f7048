"""Scales and zero points of grids: by searching the least error, or from the extremes.

The search follows BRECQ's and QDrop's observers: the mean of |x - x̂|^2.4 over shrunken ranges, in one dimension where
all values have one sign, and over zero points as well where they have both.
"""

from __future__ import annotations

import torch
from torch import Tensor

EXPONENT = 2.4
CANDIDATES = 100
SEARCHED = ("mse", "minmax")
_MOST_VALUES = 2**15  # of an activation tensor; more change the chosen grid in no digit that matters
_ZERO_POINTS_UP_TO_BITS = 4  # with more levels, the zero point that follows from the range is good enough


def grid(rows: Tensor, bits: int, search: str = "mse") -> tuple[Tensor, Tensor]:
    """Return scale and zero point for each row of `rows` (R, n), both of shape (R,).

    Raises:
        ValueError: `search` is neither "mse" nor "minmax".
    """
    if search not in SEARCHED:
        raise ValueError(f"scales is {search!r}; use one of {', '.join(SEARCHED)}")
    top = 2**bits - 1
    low, high = rows.amin(1).clamp(max=0), rows.amax(1).clamp(min=0)
    # A row of zeros can have any scale; 1 keeps it finite.
    span = torch.where(high > low, high - low, torch.ones_like(high)) / top
    if search == "minmax":
        return span, _zero_point(low, span)
    if rows.shape[1] > _MOST_VALUES:
        rows = rows[:, :: -(-rows.shape[1] // _MOST_VALUES)]
    points = _zero_point(low, span)[None]
    if bool(((low < 0) & (high > 0)).any()) and bits <= _ZERO_POINTS_UP_TO_BITS:
        points = torch.arange(top + 1.0, device=rows.device)[:, None].expand(-1, len(rows))
    least, best_scale, best_point = torch.full_like(span, float("inf")), span, points[0]
    for step in range(CANDIDATES, 0, -1):
        scale = span * step / CANDIDATES
        error, index = _errors(rows, scale, points, top).min(0)
        wins = error < least
        least = torch.where(wins, error, least)
        best_scale = torch.where(wins, scale, best_scale)
        best_point = torch.where(wins, points.gather(0, index[None])[0], best_point)
    return best_scale, best_point


def _zero_point(low: Tensor, scale: Tensor) -> Tensor:
    return (-low / scale).round()


def _errors(rows: Tensor, scale: Tensor, points: Tensor, top: int) -> Tensor:
    """Return the mean error of every zero point (P, R) for one scale per row."""
    levels, low = (rows / scale[:, None]).round(), -points[:, :, None]
    return ((levels.clamp(low, low + top) * scale[:, None] - rows).abs() ** EXPONENT).mean(2)
