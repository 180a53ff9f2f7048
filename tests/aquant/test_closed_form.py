"""The border in closed form: the one-channel case by hand, least squares by another solver, and what it is good for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from paperlab.aquant.border import Border, BorderSpec
from paperlab.aquant.closed_form import fit
from paperlab.aquant.frame.quantize import quantize
from paperlab.aquant.layers import QuantLinear
from paperlab.aquant.quantizer import ActivationQuantizer
from tests.aquant.tiny import images, net


def linear(channels: int, outputs: int, shrink: float) -> QuantLinear:
    """A layer whose quantized weight is the float one times `shrink`, up to 8 bits."""
    torch.manual_seed(0)
    layer = QuantLinear(nn.Linear(channels, outputs), 8)
    layer.weight_quantizer.set_grid(torch.full((outputs,), 0.01), torch.full((outputs,), 128.0))
    codes = ((layer.weight * shrink / 0.01).round() + 128).clamp(0, 255)
    layer.weight_quantizer.codes = lambda weight: codes  # type: ignore[method-assign]
    return layer


def quantizer(channels: int, degree: int = 2) -> ActivationQuantizer:
    item = ActivationQuantizer(4)
    item.border = Border(BorderSpec(degree, bound="none"), channels)
    item.set_grid(torch.tensor(0.2), torch.tensor(0.0))
    return item


@pytest.mark.parametrize("shrink", [0.8, 1.0, 1.25])
def test_shrunken_weights_give_the_slope_of_the_theory(shrink: float) -> None:
    x = torch.rand(600, 1, generator=torch.Generator().manual_seed(1)) * 3
    item, layer = quantizer(1), linear(1, 6, shrink)
    fit(item, [layer], x, x)
    w, w_hat = layer.weight[:, 0], layer.quantized_weight()[:, 0]
    slope = (1 - (w @ w_hat) / (w_hat @ w_hat)).item()
    u = torch.linspace(0, 15, 50)[:, None]
    torch.testing.assert_close(item.border.offset(u), slope * u, atol=0.02, rtol=0.02)


def test_propagated_error_is_regressed() -> None:
    """Where the quantized prefix is off by a known quadratic, the border takes it back."""
    seen = torch.rand(800, 1, generator=torch.Generator().manual_seed(2)) * 3
    item, layer = quantizer(1), linear(1, 6, 1.0)
    fit(item, [layer], seen - 0.05 * seen**2 - 0.1, seen)
    u = torch.linspace(0, 15, 40)[:, None]
    torch.testing.assert_close(item.border.offset(u), 0.05 * u**2 * 0.2 + 0.1 / 0.2, atol=0.03, rtol=0.03)


def test_channels_are_solved_together() -> None:
    """Against numpy's least squares on the stacked system."""
    g = torch.Generator().manual_seed(3)
    seen = torch.rand(200, 5, generator=g) * 3
    float_ = (seen + 0.1 * torch.randn(200, 5, generator=g)).relu()
    item, layer = quantizer(5, degree=1), linear(5, 7, 0.9)
    fit(item, [layer], float_, seen)
    w_hat = layer.quantized_weight()
    u = (seen / 0.2).clamp(0, 15)
    gap = float_ @ layer.weight.T - 0.2 * u @ w_hat.T
    columns = [-0.2 * basis[:, None] * w_hat[:, c] for k in (0, 1) for c in range(5) for basis in [(u[:, c] / 15) ** k]]
    matrix = torch.stack([column.flatten() for column in columns], 1).double()
    solution = torch.linalg.lstsq(matrix, gap.flatten()[:, None].double()).solution.reshape(2, 5)
    torch.testing.assert_close(item.border.coefficients.double(), solution, atol=0.02, rtol=0.05)


@pytest.mark.parametrize("name", ["residual", "plain"])
def test_network_comes_nearer_without_any_gradient(name: str) -> None:
    model, x, other = net(name), images(64), images(64, seed=4)

    def error(method: str) -> float:
        out: Tensor = quantize(model, x, method, 2, 2)(other)
        return ((out - model(other)) ** 2).mean().item()

    with torch.no_grad():
        assert error("aquant_cf") < error("rtn")
