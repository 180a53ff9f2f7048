"""Activation flips at run time: never worse than nearest, close to exhaustive search, right for every kind of layer."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from paperlab.aquant.frame.insert import layers_of, prepare
from paperlab.aquant.frame.quantize import calibrate
from paperlab.aquant.frame.recipe import Recipe
from paperlab.aquant.frame.scales import grid
from paperlab.aquant.layers import QuantConv2d
from paperlab.aquant.oracle import OracleNetwork, best_levels, oracle_output
from paperlab.aquant.quantizer import ActivationQuantizer
from tests.aquant.tiny import images, net


def problem(seed: int):
    g = torch.Generator().manual_seed(seed)
    u, w = torch.rand(6, 8, generator=g) * 3, torch.randn(4, 8, generator=g)
    return u, w, w + 0.3 * torch.randn(4, 8, generator=g)


@pytest.mark.parametrize("seed", range(10))
def test_flips_against_exhaustive_search(seed: int) -> None:
    u, w, w_hat = problem(seed)
    one, low, high = torch.tensor(1.0), torch.tensor(0.0), torch.tensor(3.0)
    target = u @ w.T
    levels = best_levels(u, w_hat, target, one, low, high, sweeps=10)
    assert ((levels == u.floor()) | (levels == u.ceil())).all()

    def cost(q: torch.Tensor) -> torch.Tensor:
        return ((q @ w_hat.T - target) ** 2).sum(-1)

    nearest = cost(u.round())
    choices = torch.tensor(list(itertools.product((0.0, 1.0), repeat=8)))
    every = u.floor()[:, None] + choices * (u.ceil() - u.floor())[:, None]
    exhaustive = ((every @ w_hat.T - target[:, None]) ** 2).sum(-1).amin(1)
    found = cost(levels)
    assert (found <= nearest + 1e-4).all()
    assert (found >= exhaustive - 1e-4).all()
    assert (found - exhaustive).sum() < 0.35 * (nearest - exhaustive).sum()  # greedy gets most of what there is


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolutions_by_patch(groups: int) -> None:
    conv = QuantConv2d(nn.Conv2d(4, 8, 3, 2, 1, groups=groups), 8)
    conv.weight_quantizer.set_grid(*grid(conv.weight.flatten(1), 8))
    item = ActivationQuantizer(8)
    item.set_grid(torch.tensor(0.02), torch.tensor(128.0))
    x = images(3)[:, :1].expand(-1, 4, -1, -1) * torch.tensor([1.0, 0.5, -1.0, 2.0]).reshape(4, 1, 1)
    found = oracle_output(conv, item, x)
    with torch.no_grad():
        exact = nn.functional.conv2d(x.clamp(-128 * 0.02, 127 * 0.02), conv.weight, conv.bias, 2, 1, groups=groups)
    assert found.shape == exact.shape
    assert (found - exact).abs().max() < 0.15


@pytest.mark.parametrize("name", ["residual", "mobile", "plain"])
def test_network_is_nearer_to_the_float_network(name: str) -> None:
    model, x = net(name), images(24)
    network = prepare(model, Recipe("rtn", 2, 2), x)
    calibrate(network, x, Recipe("rtn", 2, 2))
    with torch.no_grad():
        float_, nearest = model(x), network(x)
        oracle = OracleNetwork(network, bits=2).run(x)
    assert all(not layer.deployed for layer in layers_of(network).values())
    assert ((oracle - float_) ** 2).mean() < ((nearest - float_) ** 2).mean()
