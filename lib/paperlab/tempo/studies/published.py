"""The defect of the released GELU backward, shown from the structure of its formula by our own evaluation.

The official kernel evaluates a piecewise polynomial in y, each piece in powers of its distance from its left knot.
Two things are wrong with it: in one piece, 0.977 < y < 3, the local variable adds the knot instead of subtracting
it; and powers counted from the end of an interval are ill-conditioned in float32. Neither its code nor its
coefficients are used here. The `paper` polynomials of `gelu_fit` are re-expanded about the left knot, which
isolates the second defect, and then one sign is slipped, which adds the first. Outside its interval a polynomial's
value depends on every digit of its coefficients, so the size of the error that the slip causes differs somewhat
from the released kernel's; where it appears does not.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.polynomial import Polynomial
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from paperlab.tempo.ops.gelu_fit import (
    Approximate,
    check_options,
    derivative,
    exact,
    minimum,
    paper_pieces,
    select_piece,
    side_threshold,
)
from paperlab.tempo.studies.gelu_error import summarize

RELEASED = (
    ("sign-slipped", -10.0, -3.0, 0.20, math.nan),
    ("sign-slipped", -3.0, -2.0, 0.16, math.nan),
    ("sign-slipped", -2.0, -1.0, 0.013, math.nan),
    ("sign-slipped", -1.0, -0.5, 1.2e-2, math.nan),
    ("sign-slipped", -0.5, 0.2, 0.12, math.nan),
    ("sign-slipped", 0.2, 1.1, 1e-6, math.nan),
    ("sign-slipped", 1.1, 2.0, 0.123, math.nan),
    ("sign-slipped", 2.0, 3.004, 2.69, math.nan),
    ("sign-slipped", 3.004, 4.0, 1.2e-2, math.nan),
    ("sign-slipped", -10.0, 4.0, 2.69, 0.082),
    ("left-knot", -10.0, 4.0, 0.20, 0.0087),
)
"""Errors of the released erf kernel as it is and, last row, with the sign repaired: variant, x_low, x_high,
largest error, N(0,1)-weighted rms error; measured in float32 from the coefficients that its repository prints."""


def released_derivative(y: Tensor, side: Tensor, approximate: Approximate = "none", *, slip: bool = True) -> Tensor:
    """Return D(y, side) in float32 as the released kernel forms it; slip=False repairs the sign.

    y: any shape, any floating dtype; side: bool, same shape.
    """
    y = y.float().clamp(min=minimum(approximate).y)
    left, *right = _about_left_knot(approximate)
    branches = [_horner(y - knot, coefficients) for knot, coefficients in right[:-1]]
    knot, coefficients = right[-1]
    branches.append(_horner(y + knot if slip else y - knot, coefficients))
    return select_piece(y, side, _horner(y - left[0], left[1]), branches)


def defect_table(approximate: Approximate = "none", points: int = 1_000_001) -> pd.DataFrame:
    """Return the error of D by range of x for three forms of the same polynomials, beside the released kernel's.

    Columns: variant ("centered": the method as designed; "left-knot": its basis in float32; "sign-slipped": also
    the slip), x_low, x_high, max_error, rms_error (weighted by N(0,1)), released_max_error, released_rms_error
    (NaN where none is known). The last range of a variant is the whole one. Input: torch's float32 GELU on a grid.
    """
    x = torch.linspace(-10, 4, points)
    y, side = F.gelu(x, approximate=approximate), x >= side_threshold(x.dtype, approximate)
    slope = exact(x.double(), approximate)[1]
    found = {
        "centered": derivative(y, side, approximate, "paper"),
        "left-knot": released_derivative(y, side, approximate, slip=False),
        "sign-slipped": released_derivative(y, side, approximate),
    }
    weight = torch.exp(-0.5 * x.double() ** 2).numpy()
    spans = [row[1:3] for row in RELEASED if row[0] == "sign-slipped"]
    masks = {span: ((x >= span[0]) & (x < span[1])).numpy() for span in spans}
    table = pd.concat(
        [
            summarize(masks, (d.double() - slope).numpy(), weight).assign(variant=variant)
            for variant, d in found.items()
        ],
        ignore_index=True,
    )
    table[["x_low", "x_high"]] = table.pop("region").to_list()
    keys = ["variant", "x_low", "x_high"]
    released = pd.DataFrame(RELEASED, columns=[*keys, "released_max_error", "released_rms_error"])
    if approximate != "none":
        released = released.iloc[:0]  # the released kernel knows the erf form only
    return table[[*keys, "max_error", "rms_error"]].merge(released, on=keys, how="left")


def sign_slipped_gelu(x: Tensor, approximate: Approximate = "none") -> Tensor:
    """Return GELU of `x` with the slipped derivative in backward: the control arm of a loss comparison."""
    check_options(approximate)
    return _SignSlippedGELU.apply(x, approximate)


class SignSlippedGELU(nn.Module):
    """`sign_slipped_gelu` as a module, for patching into a model."""

    def __init__(self, approximate: Approximate = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """Return GELU of `x`, same shape and dtype."""
        return sign_slipped_gelu(x, self.approximate)


class _SignSlippedGELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, approximate: Approximate) -> Tensor:
        y = F.gelu(x, approximate=approximate)
        ctx.save_for_backward(y, x >= side_threshold(x.dtype, approximate))
        ctx.approximate = approximate  # type: ignore[attr-defined]
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor, None]:
        y, side = ctx.saved_tensors  # type: ignore[attr-defined]
        return (dy * released_derivative(y, side, ctx.approximate)).to(dy.dtype), None  # type: ignore[attr-defined]


@lru_cache
def _about_left_knot(approximate: Approximate) -> list[tuple[float, np.ndarray]]:
    """Return (left knot, coefficients in powers of y - knot) of each piece of `paper`."""
    return [
        (piece.low, Polynomial(piece.coefficients)(Polynomial([-1, piece.scale])).coef)
        for piece in paper_pieces(approximate)
    ]


def _horner(v: Tensor, coefficients: np.ndarray) -> Tensor:
    result = torch.zeros_like(v)
    for coefficient in reversed(coefficients):
        result.mul_(v).add_(float(coefficient))
    return result
