"""Does another rounding of activations than nearest help? Random borders, the closed form and the oracle on one net."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor, fx

from paperlab.aquant.border import Border, BorderSpec
from paperlab.aquant.closed_form import fit_borders
from paperlab.aquant.data.tasks import Split
from paperlab.aquant.data.training import Trained, one_thread
from paperlab.aquant.frame.insert import prepare, quantizers_of
from paperlab.aquant.frame.quantize import calibrate
from paperlab.aquant.frame.recipe import make_recipe
from paperlab.aquant.oracle import OracleNetwork

SPREAD = 0.15  # of random borders around ½, one per channel


def roundings(net: Trained, test_images: int, draws: int, seed: int, bits: int = 2) -> pd.DataFrame:
    """Return error and accuracy of one net with nearest weights and activations rounded in several ways.

    Columns rounding, draw, output_error (mean squared logit error against the float network), top1.
    """
    images = net.data.calibration(512, seed)
    test = Split(net.data.test.images[:test_images], net.data.test.labels[:test_images])
    recipe = make_recipe("aquant_cf", bits, bits, {"border": BorderSpec(0, bound="clip")})
    with one_thread(), torch.no_grad():
        network = prepare(net.model, recipe, images[:32])
        calibrate(network, images[:256], recipe)
        wanted = net.model(test.images)
        rows = [_row("nearest", 0, _answers(network, test), wanted, test)]
        generator = torch.Generator().manual_seed(seed)
        for draw in range(draws):
            for item in quantizers_of(network).values():
                if item.border is not None:
                    noise = torch.randn(item.border.coefficients.shape, generator=generator)
                    item.border.coefficients.copy_(SPREAD * noise)
            rows.append(_row("random border per channel", draw, _answers(network, test), wanted, test))
        rows.append(_row("random floor or ceil", 0, _stochastic(network, test, bits, generator), wanted, test))
        _use_border(network, BorderSpec(2, bound="clip"))
        fit_borders(network, images)
        rows.append(_row("closed form", 0, _answers(network, test), wanted, test))
        _use_border(network, None)
        rows.append(_row("oracle", 0, _oracle(network, test, bits), wanted, test))
    return pd.DataFrame(rows, columns=["rounding", "draw", "output_error", "top1"])


def _row(name: str, draw: int, found: Tensor, wanted: Tensor, test: Split) -> tuple[str, int, float, float]:
    right = (found.argmax(1) == test.labels).double().mean().item()
    return name, draw, ((found - wanted) ** 2).mean().item(), 100 * right


def _answers(network: fx.GraphModule, test: Split) -> Tensor:
    return torch.cat([network(images) for images in test.images.split(250)])


def _oracle(network: fx.GraphModule, test: Split, bits: int) -> Tensor:
    return torch.cat([OracleNetwork(network, bits).run(images) for images in test.images.split(100)])


def _use_border(network: fx.GraphModule, spec: BorderSpec | None) -> None:
    """Replace every border by one of `spec` with zero coefficients, or by nearest rounding."""
    for item in quantizers_of(network).values():
        if item.border is not None:
            channels = item.border.channels
            item.border = Border(spec, channels) if spec is not None else None
            if item.border is not None:
                item.border.set_range(item.low, item.high)


def _stochastic(network: fx.GraphModule, test: Split, bits: int, generator: torch.Generator) -> Tensor:
    """Return answers where every activation goes to a random one of its two neighbors."""

    def flip(module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        u = inputs[0] / module.scale  # type: ignore[operator]
        up = torch.rand(u.shape, generator=generator) < 0.5
        levels = torch.where(up, u.ceil(), u.floor())
        return levels.clamp(module.low, module.high) * module.scale  # type: ignore[arg-type, operator]

    hooks = [item.register_forward_hook(flip) for item in quantizers_of(network).values() if item.bits == bits]
    try:
        return _answers(network, test)
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def output_gap(net: Trained, quantized: torch.nn.Module, images: int = 1000) -> tuple[float, float]:
    """Return how far logits are off the float network's: the constant part, and all of it.

    Both are root mean squares; the constant part is over the classes' mean gaps, so it is the output's bias.
    """
    x = net.data.test.images[:images]
    gap = quantized(x) - net.model(x)
    return gap.mean(0).square().mean().sqrt().item(), gap.square().mean().sqrt().item()
