"""Small quantized networks for the tests of deployment, with borders that are far from zero."""

from __future__ import annotations

import torch
from torch import nn

from paperlab.aquant.border import BorderSpec
from paperlab.aquant.frame.insert import layers_of, prepare, quantizers_of
from paperlab.aquant.frame.quantize import QuantizedModel, calibrate
from paperlab.aquant.frame.recipe import Recipe
from paperlab.aquant.networks import build


def float_network(name="N1", classes=5):
    """A network whose batch norms have seen images, so that activations have sensible sizes."""
    torch.manual_seed(1)
    model = build(name, classes).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(32, 3, 16, 16))
    return model.eval()


def bordered(quantizer, size):
    """Give a quantizer's border random coefficients of the deviation `size`."""
    quantizer.border.coefficients.data = size * torch.randn_like(quantizer.border.coefficients)


def quantized(name="N1", bits=2, border=None, size=0.3, model=None):
    """A network rounded to nearest, then given random borders where `border` says of which kind."""
    images = torch.randn(8, 3, 16, 16)
    recipe = Recipe(method="aquant_cf", w_bits=bits, a_bits=bits, border=border, scales="minmax")
    network = prepare(model or float_network(name), recipe, images)
    calibrate(network, images, recipe)
    for quantizer in quantizers_of(network).values():
        if quantizer.border is not None:
            bordered(quantizer, size)
    for layer in layers_of(network).values():
        layer.deploy()
    return QuantizedModel(network, recipe).eval()


BORDERS = {
    "none": None,
    "channel": BorderSpec(),
    "free": BorderSpec(bound="none"),
    "tensor": BorderSpec(granularity="tensor", bound="clip", degree=1),
    "kernel_pos": BorderSpec(granularity="kernel_pos"),
}


class Odd(nn.Module):
    """What the three families leave out: max and average pools, functions, a sum of three, strides and dilation."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, 2, 1)
        self.b = nn.Conv2d(6, 6, 3, 1, 2, dilation=2, groups=2)
        self.c = nn.Conv2d(6, 6, (1, 3), 1, (0, 1), bias=False)
        self.d = nn.Conv2d(6, 4, 1)
        self.pool, self.average = nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.pool(torch.relu(self.a(x)))
        y = torch.nn.functional.relu6(self.b(x) + x)
        y = torch.add(self.c(y), x).relu()
        return self.head(torch.flatten(self.average(self.d(y).relu()), 1))
