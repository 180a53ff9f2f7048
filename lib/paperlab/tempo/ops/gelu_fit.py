"""The derivative of GELU from its output: D(y, side) = g'(x) where y = g(x) and side = (x >= x*) (own fits).

g has one minimum (x*, y*), so y and the side of the minimum determine x. D has a square-root singularity at y*
and, on the left, a logarithmic one at y -> 0-. Three evaluators of D trade fidelity to the paper for accuracy:

- `fit`: three polynomials of degree 12 in variables that remove both singularities (own derivation). The signed
  distance sigma = ±sqrt(y - y*) makes D analytic through the minimum, so one piece serves both sides of it and no
  logarithm is taken near 1; far on the left the variable is w = sqrt(log(y*/y)).
- `paper`: piecewise polynomials in y itself with the published knots and degrees; about 1e-2 off near the minimum,
  as any polynomial in y must be.
- `newton`: y is inverted numerically in float64, then g' is exact: the oracle.

Every coefficient is derived here by interpolation of the exact function; none is stored. The derivation is in
numpy, so that no default device or fake mode of torch can reach it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import scipy.special
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

Approximate = Literal["none", "tanh"]
Evaluator = Literal["fit", "paper", "newton"]
Array = TypeVar("Array", np.ndarray, Tensor)

FIT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)  # evaluated in float32; float64 is inverted
FIT_DEGREE = 12
FIT_SIGMA_KNOTS = (-0.23, 1.3)  # left of the first: the tail, in w; right of the second: the upper piece
FIT_TAIL_W = 3.7  # y = -1.9e-7; beyond, |g'| < 1.4e-6 is returned as 0
FIT_SATURATION_Y = 5.5  # beyond, |g' - 1| < 6e-7 is returned as 1
PAPER_RIGHT_KNOTS = (0.1068, 0.9774, 3.0)  # beyond the last, D = 1
PAPER_RIGHT_DEGREE = 12
PAPER_LEFT_DEGREE = 13

_BISECTIONS = 64  # halves the widest bracket, 40, to below the spacing of float64 at x*
_LEFT_END = -40.0  # g underflows before it


@dataclass(frozen=True)
class Minimum:
    """The minimum (x*, y*) of GELU; `y_residual` is what float32 cannot hold of `y`."""

    x: float
    y: float

    @property
    def y_residual(self) -> float:
        """y* minus its float32 rounding, so that a float32 kernel can subtract y* without an error of its own."""
        return self.y - float(np.float32(self.y))


@dataclass(frozen=True)
class Piece:
    """A polynomial on [low, high] in powers of t = (2v - low - high)/(high - low), lowest power first."""

    low: float
    high: float
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got [{self.low}, {self.high}]")

    @property
    def scale(self) -> float:
        """Slope of t as a function of v."""
        return 2 / (self.high - self.low)

    @property
    def shift(self) -> float:
        """Value of t at v = 0."""
        return -(self.high + self.low) / (self.high - self.low)

    def __call__(self, v: Tensor) -> Tensor:
        """Evaluate by Horner's rule in the dtype of `v`."""
        t = v * self.scale + self.shift
        result = torch.full_like(t, self.coefficients[-1])
        for coefficient in reversed(self.coefficients[:-1]):
            result.mul_(t).add_(coefficient)
        return result


def check_options(approximate: str, evaluator: str = "fit") -> None:
    """Raise ValueError, naming the field, for an unknown GELU form or evaluator."""
    for field, value, allowed in (
        ("approximate", approximate, get_args(Approximate)),
        ("evaluator", evaluator, get_args(Evaluator)),
    ):
        if value not in allowed:
            raise ValueError(f"{field} must be one of {', '.join(allowed)}; got {value!r}")


def exact(x: Array, approximate: Approximate = "none") -> tuple[Array, Array]:
    """Return g(x) and g'(x) without cancellation in the left tail; tensor or array in, the same out."""
    special: Any = torch.special if isinstance(x, Tensor) else scipy.special
    if approximate == "none":
        cdf = 0.5 * special.erfc(-x * math.sqrt(0.5))  # torch.special.ndtr cancels in the left tail
        density = special.exp2(x * x * (-0.5 / math.log(2))) / math.sqrt(2 * math.pi)
        return x * cdf, cdf + x * density
    slope_at_0 = 2 * math.sqrt(2 / math.pi)
    gate = special.expit(slope_at_0 * (x + 0.044715 * x**3))  # (1 + tanh(u))/2 is the logistic function of 2u
    gate_slope = gate * (1 - gate) * slope_at_0 * (1 + 3 * 0.044715 * x * x)
    return x * gate, gate + x * gate_slope


@lru_cache
def minimum(approximate: Approximate = "none") -> Minimum:
    """Return (x*, y*) to double precision: the root of g' by bisection."""
    x = _bisect(lambda middle: exact(middle, approximate)[1] > 0, np.array(-1.0), np.array(-0.5))
    return Minimum(x.item(), exact(x, approximate)[0].item())


@lru_cache
def side_threshold(dtype: torch.dtype, approximate: Approximate = "none") -> float:
    """Return the smallest value of `dtype` that is >= x*, which gives the same side in any wider type."""
    spacing = torch.finfo(dtype).eps / 2  # of the numbers in [1/2, 1), where |x*| lies
    return math.ceil(minimum(approximate).x / spacing) * spacing


def invert(y: Array, side: Array, approximate: Approximate = "none") -> Array:
    """Return x with g(x) = y on the given side of x*; y, float64, below y* counts as y*; tensor or array."""
    lib: Any = torch if isinstance(y, Tensor) else np
    x_min, left_end = lib.full_like(y, minimum(approximate).x), lib.full_like(y, _LEFT_END)
    low = lib.where(side, lib.where(y > 0, y, x_min), left_end)  # g(x) <= x for x >= 0
    high = lib.where(side, y.clip(min=0) + 0.2, x_min)  # x - g(x) < 0.2 for x >= 0
    return _bisect(lambda middle: (exact(middle, approximate)[0] > y) == side, low, high)


def derivative(y: Tensor, side: Tensor, approximate: Approximate = "none", evaluator: Evaluator = "fit") -> Tensor:
    """Return D(y, side) = g'(x).

    y: any shape, any floating dtype; side: bool, same shape. The result is float64 for float64 `y`, else float32
    (half types are evaluated in float32). `fit` on float64 is the inversion, since a float32-grade fit would waste
    the dtype. y = ±0 gives g'(0) = 0.5 on the right, 0 on the left, within the evaluator's accuracy; y that is not
    finite gives NaN, as in torch.
    """
    check_options(approximate, evaluator)
    wide = y if y.dtype == torch.float64 else y.float()
    if evaluator == "newton" or (evaluator == "fit" and wide.dtype == torch.float64):
        result = exact(invert(wide.double(), side, approximate), approximate)[1].to(wide.dtype)
    else:
        result = (_fit if evaluator == "fit" else _paper)(wide, side, approximate)
    return torch.where(torch.isfinite(wide), result, math.nan)


@lru_cache
def fit_pieces(approximate: Approximate = "none") -> tuple[Piece, Piece, Piece]:
    """Return the pieces of `fit`: the left tail in w, then two in sigma (own derivation)."""
    y_min = minimum(approximate).y
    low, high = FIT_SIGMA_KNOTS
    tail_low = math.sqrt(math.log(y_min / (y_min + low * low)))

    def of_w(w: np.ndarray) -> np.ndarray:
        return _slope(y_min * np.exp(-w * w), np.zeros_like(w, dtype=bool), approximate)

    def of_sigma(sigma: np.ndarray) -> np.ndarray:
        return _slope(y_min + sigma * sigma, sigma >= 0, approximate)

    return (
        interpolate(of_w, tail_low, FIT_TAIL_W, FIT_DEGREE),
        interpolate(of_sigma, low, high, FIT_DEGREE),
        interpolate(of_sigma, high, math.sqrt(FIT_SATURATION_Y - y_min), FIT_DEGREE),
    )


@lru_cache
def paper_pieces(approximate: Approximate = "none") -> tuple[Piece, ...]:
    """Return the pieces of `paper`, in y: the left one, then three on the right (published knots and degrees)."""
    y_min = minimum(approximate).y

    def on(side: bool) -> Callable[[np.ndarray], np.ndarray]:
        return lambda y: _slope(y, np.full_like(y, side, dtype=bool), approximate)

    lows = (y_min, *PAPER_RIGHT_KNOTS[:-1])
    right = [interpolate(on(True), *span, PAPER_RIGHT_DEGREE) for span in zip(lows, PAPER_RIGHT_KNOTS, strict=True)]
    return interpolate(on(False), y_min, 0.0, PAPER_LEFT_DEGREE), *right


def interpolate(function: Callable[[np.ndarray], np.ndarray], low: float, high: float, degree: int) -> Piece:
    """Interpolate at Chebyshev's extreme points, which include both ends, so that neighboring pieces meet."""
    nodes = chebyshev.chebpts2(degree + 1)
    values = function((low + high) / 2 + (high - low) / 2 * nodes)
    coefficients = chebyshev.cheb2poly(chebyshev.chebfit(nodes, values, degree))
    return Piece(low, high, tuple(coefficients.tolist()))


def select_piece(y: Tensor, side: Tensor, left: Tensor, right: list[Tensor]) -> Tensor:
    """Assemble `paper`'s branches: `left`, or the right piece whose knots enclose y, or 1 beyond the last knot."""
    result = torch.ones_like(y)
    for knot, piece in zip(reversed(PAPER_RIGHT_KNOTS), reversed(right), strict=True):
        result = torch.where(y < knot, piece, result)
    return torch.where(side, result, left)


def _fit(y: Tensor, side: Tensor, approximate: Approximate) -> Tensor:
    tail, middle, upper = fit_pieces(approximate)
    least = minimum(approximate)
    distance = ((y - (least.y - least.y_residual)) - least.y_residual).clamp_(min=0).sqrt_()
    sigma = torch.where(side, distance, -distance)
    below, above = sigma < middle.low, sigma >= middle.high
    w = (math.log(-least.y) - y[below].abs().log_()).sqrt_()
    result = middle(sigma)
    result[above] = upper(sigma[above])
    result[below] = torch.where(w < tail.high, tail(w), 0.0)
    result[y > FIT_SATURATION_Y] = 1.0
    return result


def _paper(y: Tensor, side: Tensor, approximate: Approximate) -> Tensor:
    y = y.clamp(min=minimum(approximate).y)
    left, *right = (piece(y) for piece in paper_pieces(approximate))
    return select_piece(y, side, left, right)


def _slope(y: np.ndarray, side: np.ndarray, approximate: Approximate) -> np.ndarray:
    return exact(invert(y, side, approximate), approximate)[1]


def _bisect(beyond: Callable[[Array], Array], low: Array, high: Array) -> Array:
    where: Any = torch.where if isinstance(low, Tensor) else np.where
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        past = beyond(middle)
        low, high = where(past, low, middle), where(past, middle, high)
    return (low + high) / 2
