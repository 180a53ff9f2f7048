"""Why a border: the best rounding of an activation that will meet a quantized weight.

`u` is an activation in units of its scale, `n = floor(u)`, `r = u - n`, a weight w became ŵ = w + Δw. Rounding up iff
`r > B` is optimal for the borders below. For two numbers both are affine in the activation: one gives the least error
of the product, the other an error without bias. For a column of weights (the coarse-grained case: one activation meets
all outputs) the optimum is affine again, and splits into the terms of weight, propagated and global error; activation
error alone leaves ½.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


def round_by_border(u: Tensor, border: Tensor | float) -> Tensor:
    """Return floor(u), plus 1 where the fraction of `u` exceeds `border`."""
    return u.floor() + ((u - u.floor()) > border).to(u.dtype)


def least_error_border(u: Tensor, w: Tensor, w_hat: Tensor) -> Tensor:
    """Return the border that makes |x̂ ŵ - x w| least: B = ½ + u Δw / ŵ; w_hat must not be zero."""
    return 0.5 + u * (w_hat - w) / w_hat


def least_error_border_of_cell(u: Tensor, w: Tensor, w_hat: Tensor) -> Tensor:
    """Return a border constant in a cell that decides alike for ŵ/w > 0: ½ + (n + ½) Δw / w."""
    return 0.5 + (u.floor() + 0.5) * (w_hat - w) / w


def zero_bias_border(u: Tensor, w: Tensor, w_hat: Tensor) -> Tensor:
    """Return the border whose mean product error is zero in each cell, for u uniform in it: ½ + (n + ½) Δw / ŵ."""
    return 0.5 + (u.floor() + 0.5) * (w_hat - w) / w_hat


@dataclass(frozen=True)
class BorderTerms:
    """What moves the border of one activation away from ½, term by term, each of the activation's shape."""

    weight: Tensor  # quantized weights are shorter or longer than the float ones along themselves
    propagated: Tensor  # the activation is not the float network's
    other: Tensor  # global error: what all other terms of the same outputs are off by

    @property
    def border(self) -> Tensor:
        """The optimal border."""
        return 0.5 + self.weight + self.propagated + self.other


def vector_border(
    u_seen: Tensor, u_float: Tensor, w: Tensor, w_hat: Tensor, error: Tensor, scale: float
) -> BorderTerms:
    """Return the border with the least ‖s q ŵ - s u w + c‖² over q in {floor(ũ), floor(ũ) + 1}.

    Args:
        u_seen: ũ, what the quantizer sees, in units of the scale; shape (N,).
        u_float: u, the float network's activation, or its expectation given ũ; shape (N,).
        w, w_hat: weight column before and after quantization, one entry per output; shape (M,).
        error: c, the error that all other terms bring to the outputs; shape (N, M).
        scale: s of the activation.
    """
    square = w_hat @ w_hat
    share = (w @ w_hat) / square
    return BorderTerms(u_seen * (1 - share), (u_seen - u_float) * share, (error @ w_hat) / (scale * square))


def product_error(u: Tensor, w: Tensor, w_hat: Tensor, border: Tensor | float) -> Tensor:
    """Return the signed error x̂ ŵ - x w in units of the scale."""
    return round_by_border(u, border) * w_hat - u * w
