"""The two-number theorems and the vector form, drawn and tabulated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from paperlab.aquant import theory
from paperlab.aquant.border import Border, BorderSpec

LEVELS = 4  # activations are uniform on [0, 4) in units of the scale
SHOWN = {
    "nearest": {"bound": "none", "coefficients": (0.0, 0.0, 0.0)},
    "linear": {"bound": "none", "coefficients": (0.0, 0.45, 0.0)},
    "quadratic": {"bound": "none", "coefficients": (-0.3, 0.0, 0.9)},
    "quadratic, bounded": {"bound": "sigmoid", "coefficients": (-0.3, 0.0, 0.9)},
}


def border_curves(points: int = 401) -> pd.DataFrame:
    """Return border and rounded value along u for a few borders: columns border, u, threshold, level."""
    u = torch.linspace(0, LEVELS - 1, points)
    rows = []
    for name, shown in SHOWN.items():
        border = Border(BorderSpec(bound=str(shown["bound"])), 1)
        border.set_range(torch.tensor(0.0), torch.tensor(LEVELS - 1.0))
        border.coefficients.data[:, 0] = torch.tensor(shown["coefficients"])
        offset = border.offset(u[:, None])[:, 0]
        levels = (u - offset).round().clamp(0, LEVELS - 1)
        rows.append(pd.DataFrame({"border": name, "u": u, "threshold": 0.5 + offset, "level": levels}))
    return pd.concat(rows, ignore_index=True)


def product_errors(draws: int, seed: int, relative: float = 0.1) -> pd.DataFrame:
    """Return the product error along u for nearest rounding and both borders: border, u, error (per scale and |w|)."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(draws, generator=generator, dtype=torch.float64) * LEVELS
    w, w_hat = torch.tensor(1.0, dtype=torch.float64), torch.tensor(1.0 + relative, dtype=torch.float64)
    rows = []
    for name, border in _borders(u, w, w_hat).items():
        rows.append(pd.DataFrame({"border": name, "u": u, "error": theory.product_error(u, w, w_hat, border)}))
    return pd.concat(rows, ignore_index=True)


def theorem_table(draws: int, seed: int) -> pd.DataFrame:
    """Return mean error and mean absolute error of the product by relative weight error and border."""
    rows = []
    for relative in (-0.3, -0.1, -0.05, 0.05, 0.1, 0.3):
        errors = product_errors(draws, seed, relative)
        for name, part in errors.groupby("border", sort=False):
            rows.append((relative, name, part.error.mean(), part.error.abs().mean()))
    return pd.DataFrame(rows, columns=["relative_weight_error", "border", "mean_error", "mean_absolute_error"])


def _borders(u: torch.Tensor, w: torch.Tensor, w_hat: torch.Tensor) -> dict[str, torch.Tensor | float]:
    least, unbiased = theory.least_error_border(u, w, w_hat), theory.zero_bias_border(u, w, w_hat)
    return {
        "nearest": 0.5,
        "least error": least,
        "zero bias": unbiased,
    }


def theorem_gaps(draws: int, seed: int) -> dict[str, float]:
    """Return how far the theorems are from brute force, over random u, w and ŵ of either sign.

    `least_error`: largest excess over the better neighbor; `bias`: largest mean error of the zero-bias border within a
    cell where it lies in [0, 1], in units of scale and |w|.
    """
    generator = torch.Generator().manual_seed(seed)
    draw = {name: torch.rand(draws, generator=generator, dtype=torch.float64) for name in ("u", "w", "d")}
    u, w = LEVELS * (2 * draw["u"] - 1), 2 * draw["w"] - 1
    w_hat = w * (1 + 0.6 * (2 * draw["d"] - 1))
    best = torch.minimum((u.floor() * w_hat - u * w).abs(), ((u.floor() + 1) * w_hat - u * w).abs())
    excess = theory.product_error(u, w, w_hat, theory.least_error_border(u, w, w_hat)).abs() - best
    biases = []
    one = torch.tensor(1.0, dtype=torch.float64)
    inside = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    for cell in range(LEVELS):
        for relative in np.linspace(-0.1, 0.1, 9):
            border = theory.zero_bias_border(cell + inside, one, one * (1 + relative))
            biases.append(theory.product_error(cell + inside, one, one * (1 + relative), border).mean().abs().item())
    return {"least_error": excess.max().item(), "bias": max(biases)}
