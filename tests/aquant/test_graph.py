"""Tracing, folding, insertion and units on three kinds of networks; what is unsupported is named."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperlab.aquant.border import BorderSpec
from paperlab.aquant.frame.graph import trace
from paperlab.aquant.frame.insert import layers_of, prepare, quantizers_of
from paperlab.aquant.frame.prefix import Prefix, modes
from paperlab.aquant.frame.quantize import calibrate
from paperlab.aquant.frame.recipe import Recipe
from paperlab.aquant.frame.units import extract, find_units
from tests.aquant.tiny import NETS, images, net


@pytest.mark.parametrize("name", NETS)
def test_folding_keeps_the_function_and_the_model(name: str) -> None:
    model, x = net(name), images(8)
    before = copy.deepcopy(model.state_dict())
    network = trace(model)
    torch.testing.assert_close(network(x), model(x), atol=1e-5, rtol=1e-4)
    assert not [module for module in network.modules() if isinstance(module, nn.BatchNorm2d | nn.Dropout)]
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("granularity", ["channel", "kernel_pos"])
def test_float_mode_is_the_float_network(name: str, granularity: str) -> None:
    model, x = net(name), images(8)
    recipe = Recipe("aquant", 2, 2, border=BorderSpec(granularity=granularity))
    network = prepare(model, recipe, x)
    calibrate(network, x, recipe)
    with modes(network, "float", activations=False):
        torch.testing.assert_close(network(x), model(x), atol=1e-4, rtol=1e-4)


def sources(network: nn.Module) -> dict[str, list[str]]:
    """Who reads each quantizer."""
    return {
        str(node.target): [str(user.target) for user in node.users]
        for node in network.graph.nodes
        if node.op == "call_module" and str(node.target) in quantizers_of(network)
    }


def test_quantizers_belong_to_their_readers() -> None:
    network = prepare(net("residual"), Recipe(w_bits=2, a_bits=2), images(4))
    readers = sources(network)
    assert readers["quantize_x"] == ["stem.0"]
    assert readers["quantize_pool"][0] == "blocks.0.conv1"
    assert len(readers["quantize_pool"]) == 2  # the identity as well: one integer tensor for both
    assert readers["quantize_blocks_0_relu_1"] == ["blocks.1.conv1", "blocks.1.downsample.0"]
    assert readers["quantize_blocks_1_relu_1"] == ["average"]  # the head's input, before its pool
    assert len(readers) == 6
    assert all(layer in layers_of(network) for layer in ("stem.0", "head", "blocks.1.downsample.0"))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("qdrop", {"quantize_x": 8, "quantize_pool": 2, "quantize_blocks_1_relu_1": 8, "stem.0": 8, "head": 8}),
        ("brecq", {"quantize_x": 8, "quantize_pool": 8, "quantize_blocks_1_relu_1": 8, "stem.0": 8, "head": 8}),
        ("none", {"quantize_x": 8, "quantize_pool": 2, "quantize_blocks_1_relu_1": 2, "stem.0": 3, "head": 3}),
    ],
)
def test_eight_bit_rules(rule: str, expected: dict[str, int]) -> None:
    network = prepare(net("residual"), Recipe("rtn", 3, 2, stem_head=rule), images(4))
    bits = {name: item.bits for name, item in quantizers_of(network).items()}
    bits |= {name: layer.weight_quantizer.bits for name, layer in layers_of(network).items()}
    assert {name: bits[name] for name in expected} == expected
    assert all(
        value == (3 if name in layers_of(network) else 2) for name, value in bits.items() if name not in expected
    )


def test_units_are_blocks_or_layers() -> None:
    def names(name: str, layerwise: bool) -> list[str]:
        return [unit.name for unit in find_units(prepare(net(name), Recipe(), images(4)), layerwise)]

    assert names("residual", False) == ["stem.0", "blocks.0", "blocks.1", "head"]
    assert names("mobile", False) == ["features.0.0", "features.1", "features.2", "classifier"]
    assert names("plain", False) == names("plain", True) == ["0", "3", "5", "9"]
    assert names("residual", True) == [
        "stem.0", "blocks.0.conv1", "blocks.0.conv2",
        "blocks.1.conv1", "blocks.1.conv2", "blocks.1.downsample.0", "head",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_units_together_are_the_network(name: str) -> None:
    x = images(8)
    network = prepare(net(name), Recipe("rtn", 3, 3), x)
    calibrate(network, x, Recipe("rtn", 3, 3))
    out = x
    for unit in find_units(network, layerwise=False):
        out = extract(network, unit)(out)
    assert torch.equal(out, network(x))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("layerwise", [False, True])
def test_prefix_holds_what_the_network_computes(name: str, layerwise: bool) -> None:
    x = images(8)
    network = prepare(net(name), Recipe("rtn", 3, 3), x)
    calibrate(network, x, Recipe("rtn", 3, 3))
    seen: dict[str, Tensor] = {}
    units = find_units(network, layerwise)
    prefix = Prefix(network, x, units, activations=True)
    for unit in units:
        prefix.advance(next(node for node in unit.nodes if not prefix.has_passed(node)))
        seen[unit.name] = extract(network, unit)(prefix.quantized[unit.source])
    prefix.advance(None)
    for unit in units:
        assert torch.equal(seen[unit.name].isnan(), torch.zeros_like(seen[unit.name], dtype=torch.bool))
    assert torch.equal(seen[units[-1].name], network(x))
    assert len(prefix.quantized) <= 2  # the rest is forgotten


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.SiLU()
        self.alone = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(self.conv(self.alone(x))))
        return y.view(y.size(0), -1)


def test_unsupported_parts_are_all_named_with_advice() -> None:
    with pytest.raises(ValueError, match="cannot be quantized") as caught:
        trace(Odd())
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "norm (GroupNorm)",
        "act (SiLU): replace it by ReLU",
        "alone (BatchNorm2d): only",
        "torch.flatten(x, 1)",
    ):
        assert part in message


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(self.conv(x)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Branches(), "Branches cannot be traced"),
        (Twice(), "conv .* called twice"),
        (nn.Sequential(nn.ReLU()), "nothing to quantize"),
        (nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")), "padding_mode='zeros'"),
        (nn.Sequential(nn.ConvTranspose2d(3, 3, 3)), "ConvTranspose2d"),
    ],
)
def test_other_models_that_cannot_be(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trace(model)
