"""Quantizers as exact threshold tables: which code an activation gets, by comparisons alone.

The quantizer maps a float32 number to a code by arithmetic in float32. Its code changes at finitely many numbers, and
each of them is found to the last bit by bisection over the float32 numbers themselves, with the quantizer's own
function as the oracle. Where `u - offset(u)` rises, row by row, there are 2^b - 1 of them and all steps go up; a border
that falls somewhere gives a row with more steps, some of them down, which the table holds as well and the report tells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from paperlab.aquant.quantizer import ActivationQuantizer

_GRID = 2048  # intervals in which steps are looked for; extrema of v(u) are refined, so that no excursion is missed
Codes = Callable[[np.ndarray], np.ndarray]  # (P, R) float32 -> (P, R) codes, each column by its row's function


@dataclass(frozen=True)
class ThresholdTable:
    """Thresholds of R rows: one for the whole tensor, or one per entry of dimension 1.

    `thresholds` (R, S) float32 ascend along a row, padded with infinity; `codes` (R, S + 1) uint8 is the code of a
    number that has reached so many of them. `bits` is the quantizer's.
    """

    bits: int
    zero_point: int
    thresholds: np.ndarray
    codes: np.ndarray

    @property
    def monotone(self) -> np.ndarray:
        """Whether each row's steps all go up, (R,)."""
        steps = np.diff(self.codes.astype(int), axis=1)
        return np.asarray((steps >= 0).all(1))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the codes of float32 activations (N, R, ...), or of any shape where there is one row; uint8."""
        return apply_rows(self.thresholds, self.codes, x)

    def staircase(self) -> np.ndarray:
        """Return (R, 2^b - 1) thresholds such that the code is the number of those reached.

        Raises ValueError where a row has steps down.
        """
        if not self.monotone.all():
            rows = np.flatnonzero(~self.monotone)
            raise ValueError(
                f"{len(rows)} of {len(self.codes)} rows are not monotone (row {rows[0]} first): such borders have no "
                "staircase of 2^b - 1 thresholds; use the table itself, or a bounded border"
            )
        return self.thresholds[:, : 2**self.bits - 1]


def apply_rows(thresholds: np.ndarray, values: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return `values[row, how many of thresholds[row] are <= x]`, the row by dimension 1 of `x` or the only one."""
    if len(thresholds) == 1:
        return values[0][np.searchsorted(thresholds[0], x, side="right")]
    if x.ndim < 2 or x.shape[1] != len(thresholds):
        raise ValueError(f"x has shape {x.shape}; dimension 1 must be the table's {len(thresholds)} rows")
    out = np.empty(x.shape, values.dtype)
    for row in range(len(thresholds)):
        out[:, row] = values[row][np.searchsorted(thresholds[row], x[:, row], side="right")]
    return out


def table_of(quantizer: ActivationQuantizer) -> ThresholdTable:
    """Return the exact table of a quantizer.

    Raises ValueError where the scale is not set or the border looks at other activations, so that no table exists.
    """
    rows = _rows(quantizer)
    codes = _function(quantizer)
    points = _search_points(quantizer, rows)
    found = codes(points)
    low, high, level, up = _steps(points, found)
    thresholds = _bisect(codes, low, high, level, up)
    passed = np.where(np.isfinite(thresholds), np.where(up, level, level - 1), 0)
    after = np.concatenate([found[:1].astype(int), passed], 0)
    for place in range(1, len(after)):  # padding repeats the last code
        after[place] = np.where(np.isfinite(thresholds[place - 1]), after[place], after[place - 1])
    return ThresholdTable(quantizer.bits, int(quantizer.zero_point), thresholds.T.copy(), after.T.astype(np.uint8))


def _rows(quantizer: ActivationQuantizer) -> int:
    border = quantizer.border
    if not bool(torch.isfinite(quantizer.scale)):
        raise ValueError("the quantizer has no scale yet; calibrate before exporting")
    if border is None:
        return 1
    if border.spec.fusion != "none":
        raise ValueError(
            f"border fusion {border.spec.fusion!r} looks at other activations, so no threshold table exists; deploy "
            "its function, or use fusion 'none'"
        )
    return border.coefficients.shape[1]


def _function(quantizer: ActivationQuantizer) -> Codes:
    @torch.no_grad()
    def codes(x: np.ndarray) -> np.ndarray:
        return quantizer.codes(torch.from_numpy(x).to(quantizer.scale.device)).cpu().numpy()

    return codes


@torch.no_grad()
def _search_points(quantizer: ActivationQuantizer, rows: int) -> np.ndarray:
    """Return (P, R) numbers that ascend: a grid over the range, extrema of v(u) between its points, far outsiders."""
    low, high, scale = (float(v) for v in (quantizer.low, quantizer.high, quantizer.scale))
    grid = np.linspace(low - 1, high + 1, _GRID + 1)

    def v(u: np.ndarray) -> np.ndarray:
        u_PR = torch.from_numpy(u.astype(np.float32)).to(quantizer.scale.device)
        offset = quantizer.border.offset(u_PR) if quantizer.border is not None else torch.zeros_like(u_PR)
        return (u_PR - offset).cpu().numpy().astype(float)

    at_grid = v(np.broadcast_to(grid[:, None], (len(grid), rows)))
    reach = np.abs(at_grid - grid[:, None]).max() + high - low + 2
    inner = np.concatenate([np.broadcast_to(grid[:, None], at_grid.shape), _extrema(v, grid, at_grid)])
    outer = np.broadcast_to([[low - reach], [high + reach]], (2, rows))
    u_PR = np.sort(np.concatenate([inner, outer]), axis=0)
    # outside of what is kept in order by rounding to float32 nothing steps
    return np.sort((u_PR * scale).astype(np.float32), axis=0)


def _extrema(v: Callable[[np.ndarray], np.ndarray], grid: np.ndarray, at_grid: np.ndarray) -> np.ndarray:
    """Return (E, R) places of the extrema of each row's v between grid points, repeated to equal numbers."""
    turns = np.diff(np.sign(np.diff(at_grid, axis=0)), axis=0) != 0  # (G - 2, R): grid point i + 1 is a turn
    most = int(turns.sum(0).max(initial=0))
    if not most:
        return np.empty((0, at_grid.shape[1]))
    order = np.argsort(~turns, axis=0, kind="stable")[:most] + 1
    low, high = grid[order - 1], grid[order + 1]
    sign = np.where(np.take_along_axis(at_grid, order, 0) >= np.take_along_axis(at_grid, order + 1, 0), 1.0, -1.0)
    for _ in range(40):  # ternary search for the maximum of sign · v
        third = (high - low) / 3
        right = sign * v(low + third) < sign * v(high - third)
        low, high = np.where(right, low + third, low), np.where(right, high, high - third)
    return (low + high) / 2


def _steps(points: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return for every step, (S, R) in order: the points around it, the level it crosses, whether it goes up.

    Rows with fewer steps are padded with intervals that begin at infinity.
    """
    change = np.diff(codes.astype(int), axis=0)
    most = int(np.abs(change).sum(0).max())
    low = np.full((most, points.shape[1]), np.inf, np.float32)
    high, level, up = low.copy(), np.zeros(low.shape, int), np.ones(low.shape, bool)
    for row in range(points.shape[1]):
        place = 0
        for at in np.flatnonzero(change[:, row]):
            begin, end = int(codes[at, row]), int(codes[at + 1, row])
            crossed = range(begin + 1, end + 1) if end > begin else range(begin, end, -1)
            for k in crossed:
                low[place, row], high[place, row] = points[at, row], points[at + 1, row]
                level[place, row], up[place, row] = k, end > begin
                place += 1
    return low, high, level, up


def _bisect(codes: Codes, low: np.ndarray, high: np.ndarray, level: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Return the least float32 in each (low, high] that has crossed its level."""
    below, above = _ordinal(low), _ordinal(high)
    while (above - below > 1).any():
        middle = (below + above) // 2
        passed = (codes(_number(middle)) >= level) == up
        above, below = np.where(passed, middle, above), np.where(passed, below, middle)
        below = np.minimum(below, above)
    return _number(above)


def _ordinal(x: np.ndarray) -> np.ndarray:
    """Number the float32 values in their order, as int64."""
    bits = x.view(np.int32).astype(np.int64)
    return np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))


def _number(ordinal: np.ndarray) -> np.ndarray:
    """Return the float32 values of these ordinals."""
    bits = np.where(ordinal >= 0, ordinal, -ordinal | 0x80000000)
    return bits.astype(np.uint32).view(np.float32)


def neighbors(x: np.ndarray, reach: int) -> np.ndarray:
    """Return the 2·reach + 1 float32 values around each of `x` (S, R), as (2·reach + 1, S, R)."""
    steps = np.arange(-reach, reach + 1)[:, None, None]
    ordinal = np.where(np.isfinite(x), _ordinal(x), 0)
    return _number(ordinal + steps)
