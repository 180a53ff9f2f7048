"""Checkers of the exercises in `50_aquant_idea`: each compares a reader's function with an independent oracle."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from paperlab.lab.exercises import expect


def check_quantize(quantize: Callable[[Tensor, float, int, int], Tensor]) -> None:
    """Check `quantize(x, scale, zero_point, bits)`: the values on the grid nearest to x."""
    x = torch.linspace(-4, 4, 321, dtype=torch.float64)
    for scale, zero_point, bits in ((0.5, 0, 2), (0.3, 1, 2), (0.1, 7, 4)):
        grid = (torch.arange(2**bits, dtype=torch.float64) - zero_point) * scale
        right = (x[:, None] - grid).abs().amin(1)
        found = quantize(x, scale, zero_point, bits)
        expect(found.shape == x.shape, "return one value for each x")
        on_grid = (found[:, None] - grid).abs().amin(1)
        expect(bool((on_grid < 1e-9).all()), "every value must be (q - zero_point) * scale with q from 0 to 2^bits - 1")
        expect(
            torch.allclose((found - x).abs(), right, atol=1e-9), "take the nearest value of the grid; clamp the ends"
        )


def check_border(border: Callable[[Tensor, float, float], Tensor]) -> None:
    """Check `border(u, w, w_hat)`: rounding up where frac(u) > border makes |x̂ ŵ - u w| least."""
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(5000, generator=generator, dtype=torch.float64) * 4
    for w, w_hat in ((1.0, 1.1), (1.0, 0.8), (-0.5, -0.6)):
        found = border(u, w, w_hat)
        rounded = u.floor() + ((u - u.floor()) > found).double()
        error = (rounded * w_hat - u * w).abs()
        nearest = (u.round() * w_hat - u * w).abs()
        best = torch.minimum((u.floor() * w_hat - u * w).abs(), ((u.floor() + 1) * w_hat - u * w).abs())
        expect(
            bool(error.mean() <= nearest.mean() + 1e-12),
            "worse than nearest rounding: is the sign of w_hat - w right?",
        )
        expect(torch.allclose(error, best, atol=1e-9), "x̂ should be the integer nearest to u * w / w_hat")


def check_soft_rounding(start: Callable[[Tensor], Tensor]) -> None:
    """Check `start(fraction)`: AdaRound's V at which clamp(1.2 * sigmoid(V) - 0.1, 0, 1) is the fraction."""
    fraction = torch.linspace(0, 0.999, 200, dtype=torch.float64)
    share = (1.2 * torch.sigmoid(start(fraction)) - 0.1).clamp(0, 1)
    expect(share.shape == fraction.shape, "return one V for each fraction")
    gap = (share - fraction).abs().max().item()
    expect(gap < 1e-6, f"off by up to {gap:.2g}; solve 1.2 * sigmoid(V) - 0.1 = fraction for V")


def check_slope(slope: Callable[[Tensor, Tensor], float]) -> None:
    """Check `slope(w, w_hat)`: of the border for one activation that meets a whole column of weights."""
    generator = torch.Generator().manual_seed(1)
    for size in (1, 5, 64):
        w = torch.randn(size, generator=generator, dtype=torch.float64)
        w_hat = w + 0.3 * torch.randn(size, generator=generator, dtype=torch.float64)
        found = float(slope(w, w_hat))
        # The best real multiple of w_hat for u w lies at u (1 - slope); a golden-section-free check by perturbation.
        best = ((1 - found) * w_hat - w).square().sum()
        worse = min(((1 - found + step) * w_hat - w).square().sum().item() for step in (-1e-3, 1e-3))
        expect(best.item() < worse, "1 - slope is the multiple of w_hat that comes closest to w: <w, w_hat> / |w_hat|²")


def check_thresholds(thresholds: Callable[[float, float, float, int], list[float]]) -> None:
    """Check `thresholds(a0, a1, a2, levels)`: where u - (a0 + a1 u + a2 u²) crosses k + ½, for k = 0 ... levels - 2."""
    for a0, a1, a2 in ((0.0, 0.0, 0.0), (0.2, 0.0, 0.0), (0.1, 0.15, 0.0), (-0.1, 0.1, 0.05)):
        found = list(thresholds(a0, a1, a2, 4))
        expect(len(found) == 3, "four levels have three thresholds")
        for k, threshold in enumerate(found):
            value = threshold - (a0 + a1 * threshold + a2 * threshold**2)
            expect(abs(value - (k + 0.5)) < 1e-6, f"threshold {k} gives {value:.4f} instead of {k + 0.5}")
        expect(found == sorted(found), "take the root at which the polynomial still rises")
