"""From a quantized model to a program of integers: scales become multipliers, thresholds fixed-point numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx, nn

from paperlab.aquant.deploy.integer import MAX_BITS, IntegerNetwork, Step
from paperlab.aquant.deploy.thresholds import ThresholdTable, table_of
from paperlab.aquant.layers import QuantConv2d, QuantLayer
from paperlab.aquant.quantizer import ActivationQuantizer

FRACTION_BITS = (48, 44, 40, 36, 32)
"""Of fixed-point numbers: the first is taken for which no sum of the network can pass 2^62 units."""


class TooWide(ValueError):
    """A sum may not fit its integers."""


def lower(model: nn.Module) -> IntegerNetwork:
    """Return the integer program of a quantized model (its `network`, an fx graph).

    Raises:
        ValueError: a border without a threshold table, an operation that has no integer form, or sums that would not
            fit 32 or 64 bits; the message names the node.
    """
    network = model.network
    assert isinstance(network, fx.GraphModule)
    for fraction_bits in FRACTION_BITS[:-1]:
        try:
            return _lower(network, fraction_bits)
        except TooWide:
            continue
    return _lower(network, FRACTION_BITS[-1])


def _lower(network: fx.GraphModule, fraction_bits: int) -> IntegerNetwork:
    from paperlab.aquant.deploy.operators import append

    lowering = Lowering(fraction_bits)
    for node in network.graph.nodes:
        module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
        if node.op == "output":
            lowering.fixed(node.args[0])
        elif isinstance(module, ActivationQuantizer):
            lowering.quantize(node, module)
        elif isinstance(module, QuantLayer):
            lowering.layer(node, module)
        elif node.op != "placeholder":
            append(lowering, node, module)
    return IntegerNetwork(tuple(lowering.steps), lowering.arrays, fraction_bits)


class Lowering:
    """A program while it grows, with what is known of each of its tensors.

    `scale` is that of a tensor of levels, None for one of fixed-point numbers; `most` bounds its integers' magnitude.
    """

    def __init__(self, fraction_bits: int) -> None:
        self.fraction_bits, self.one = fraction_bits, 2.0**fraction_bits
        self.steps: list[Step] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.scale: dict[str, float | None] = {}
        self.most: dict[str, float] = {}

    def add(
        self, kind: str, name: str, inputs: list[str], scale: float | None, most: float,
        arrays: dict[str, np.ndarray] | None = None, **attributes: Any,
    ) -> None:  # fmt: skip
        """Append a step; TooWide where a result of up to `most` does not fit its integers."""
        limit = MAX_BITS if scale is None else 31
        if most >= 2.0**limit:
            raise TooWide(f"{name}: its sums can reach 2^{np.log2(most):.1f}, which does not fit {limit} bits")
        names = {role: f"{name}.{role}" for role in arrays or {}}
        self.arrays |= {f"{name}.{role}": array for role, array in (arrays or {}).items()}
        self.steps.append(Step(kind, name, tuple(inputs), attributes, names))
        self.scale[name], self.most[name] = scale, most

    def fixed(self, node: fx.Node) -> str:
        """Return the name of a node's tensor as fixed-point numbers, appending what turns levels into them."""
        scale = self.scale[node.name]
        if scale is None:
            return node.name
        fixed = f"{node.name}_fixed"
        if fixed not in self.scale:
            multiplier = round(scale * self.one)
            self.add("to_fixed", fixed, [node.name], None, self.most[node.name] * multiplier, multiplier=multiplier)
        return fixed

    def levels(self, node: fx.Node, reader: fx.Node) -> tuple[str, float]:
        """Return the name and scale of a node's tensor of levels; ValueError where it is not quantized."""
        scale = self.scale[node.name]
        if scale is None:
            raise ValueError(f"{reader.name}: reads {node.name}, which is not quantized")
        return node.name, scale

    def quantize(self, node: fx.Node, quantizer: ActivationQuantizer) -> None:
        """Append a quantizer; the image's compares floats, every other one fixed-point numbers."""
        source = _source(node)
        image = source.op == "placeholder"
        arrays = self._table(table_of(quantizer), image)
        name = "image" if image else self.fixed(source)
        most = float(np.abs(arrays["levels"]).max())
        self.add("quantize", node.name, [name], float(quantizer.scale), most, arrays)

    def layer(self, node: fx.Node, layer: QuantLayer) -> None:
        """Append a convolution or linear layer, quantizing its patches where it has a border per kernel position."""
        patches = layer.patch_quantizer if isinstance(layer, QuantConv2d) else None
        if patches is None:
            table: dict[str, np.ndarray] = {}
            name, scale = self.levels(_source(node), node)
            most = self.most[name]
        else:
            table = self._table(table_of(patches), image=False)
            name, scale = self.fixed(_source(node)), float(patches.scale)
            most = float(np.abs(table["levels"]).max())
        weight, weight_scale = _weight(layer)
        sums = np.abs(weight).reshape(len(weight), -1).sum(1).astype(float) * most
        if sums.max() >= 2.0**31:
            raise ValueError(f"{node.name}: its sums can reach 2^{np.log2(sums.max()):.1f}, which does not fit 31 bits")
        multiplier = np.array([round(scale * float(each) * self.one) for each in weight_scale])
        bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().cpu().double().numpy()
        bias = np.round(bias * self.one)
        bound = float((sums * multiplier + np.abs(bias)).max())
        arrays = {"weight": weight, "multiplier": multiplier, "bias": bias.astype(np.int64), **table}
        if isinstance(layer, QuantConv2d):
            where = {name: getattr(layer, name) for name in ("groups", "stride", "padding", "dilation")}
            self.add("convolve", node.name, [name], None, bound, arrays, **where)
        else:
            self.add("linear", node.name, [name], None, bound, arrays)

    def _table(self, table: ThresholdTable, image: bool) -> dict[str, np.ndarray]:
        """Return thresholds, in fixed point but for the image's, and the levels between them."""
        thresholds = table.thresholds
        if not image:
            # exact: an integer reaches t where it reaches t rounded up
            scaled = np.ceil(thresholds.astype(float) * self.one)
            thresholds = np.clip(scaled, -(2.0**MAX_BITS), 2.0**MAX_BITS).astype(np.int64)
        return {"thresholds": thresholds, "levels": table.codes.astype(np.int32) - np.int32(table.zero_point)}


def _source(node: fx.Node) -> fx.Node:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source


def _weight(layer: QuantLayer) -> tuple[np.ndarray, np.ndarray]:
    """Return a layer's integers, codes less zero points, int32, and its scales (C_out,)."""
    quantizer = layer.weight_quantizer
    zero_point, scale = (tensor.detach().cpu().double().numpy() for tensor in (quantizer.zero_point, quantizer.scale))
    return layer.codes().cpu().numpy().astype(np.int32) - zero_point.astype(np.int32), scale.ravel()
