"""The what-if drawing of `50_aquant_idea`: one product, its weight off by what the reader picks, and three borders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from paperlab.aquant import theory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BORDERS = ("nearest", "least error", "zero bias")


def errors(weight_error_percent: float, border: str, levels: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Return activations u on [0, levels) and the errors of their products with a weight of 1, both (N,).

    Raises:
        ValueError: `border` is unknown, or the weight's error leaves nothing of it.
    """
    if border not in BORDERS:
        raise ValueError(f"border is {border!r}; use one of {', '.join(BORDERS)}")
    if weight_error_percent <= -100:
        raise ValueError(f"weight_error_percent is {weight_error_percent}; it must be above -100")
    u = (torch.arange(4000, dtype=torch.float64) + 0.5) * levels / 4000
    w, w_hat = torch.tensor(1.0, dtype=torch.float64), torch.tensor(1 + weight_error_percent / 100, dtype=torch.float64)
    chosen = {
        "nearest": torch.full_like(u, 0.5),
        "least error": theory.least_error_border(u, w, w_hat),
        "zero bias": theory.zero_bias_border(u, w, w_hat),
    }[border]
    return u, theory.product_error(u, w, w_hat, chosen)


def draw_errors(axes: Axes, weight_error_percent: float, border: str) -> None:
    """Draw the error along the activation, with its mean and mean absolute value in the title."""
    u, error = errors(weight_error_percent, border)
    axes.plot(u, error, ".", markersize=1)
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.axhline(float(error.mean()), color="C3", linewidth=1.2, linestyle="--")
    axes.set(xlabel="activation u, in steps", ylabel="product error")
    title = (
        f"Δw = {weight_error_percent:+g} %, {border}\nmean {error.mean():+.3f}, mean |error| {error.abs().mean():.3f}"
    )
    axes.set_title(title, fontsize=9)
