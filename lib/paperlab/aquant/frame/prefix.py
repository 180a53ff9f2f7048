"""Activations of the float network and of the quantized prefix over all calibration images, each computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, fx, nn

from paperlab.aquant.frame.insert import layers_of, quantizers_of
from paperlab.aquant.frame.units import Unit

BATCH = 128


@contextmanager
def modes(network: nn.Module, rounding: str | None = None, activations: bool = True) -> Iterator[None]:
    """Set every weight's rounding (None: leave it) and whether activations are quantized, for a while."""
    layers, quantizers = layers_of(network), quantizers_of(network)
    before = {name: layer.weight_quantizer.rounding for name, layer in layers.items()}
    for layer in layers.values():
        layer.weight_quantizer.rounding = rounding or layer.weight_quantizer.rounding
    for quantizer in quantizers.values():
        quantizer.enabled = activations
    try:
        yield
    finally:
        for name, layer in layers.items():
            layer.weight_quantizer.rounding = before[name]
        for quantizer in quantizers.values():
            quantizer.enabled = True


class Prefix:
    """Walks a network front to back, holding the tensors that later nodes still need.

    `float_` and `quantized` hold them by node. What the quantized prefix is follows from the modes its nodes have when
    the walk passes them, so a unit is learned before the walk passes it.
    """

    def __init__(self, network: fx.GraphModule, images: Tensor, units: Sequence[Unit], activations: bool) -> None:
        self.network, self.activations = network, activations
        self.nodes = [node for node in network.graph.nodes if node.op != "output"]
        self.position = 0
        order = self._order = {node: index for index, node in enumerate(self.nodes)}
        self.last_use = {node: max([order.get(user, 0) for user in node.users], default=0) for node in self.nodes}
        for unit in units:
            last = max(order[node] for node in unit.nodes)
            self.last_use[unit.source] = max(self.last_use[unit.source], last)
        self.float_: dict[fx.Node, Tensor] = {}
        self.quantized: dict[fx.Node, Tensor] = {}
        self.images = images

    def has_passed(self, node: fx.Node) -> bool:
        """Whether the walk has computed a node."""
        return self._order[node] < self.position

    def advance(self, stop: fx.Node | None) -> None:
        """Compute all nodes before `stop`, or all there are."""
        end = len(self.nodes) if stop is None else max(self._order[stop], self.position)
        ahead = self.nodes[self.position : end]
        with modes(self.network, "float", activations=False):
            self._walk(ahead, self.float_)
        with modes(self.network, activations=self.activations):
            self._walk(ahead, self.quantized)
        self.position = end

    def _walk(self, nodes: list[fx.Node], values: dict[fx.Node, Tensor]) -> None:
        for node in nodes:
            values[node] = self.images if node.op == "placeholder" else self._compute(node, values)
            for item in [item for item in values if self.last_use[item] <= self._order[node] and item is not node]:
                del values[item]

    @torch.no_grad()
    def _compute(self, node: fx.Node, values: dict[fx.Node, Tensor]) -> Tensor:
        interpreter = fx.Interpreter(self.network, garbage_collect_values=False)
        outputs = []
        for start in range(0, len(self.images), BATCH):
            interpreter.env = {item: values[item][start : start + BATCH] for item in node.all_input_nodes}
            outputs.append(interpreter.run_node(node))
        return torch.cat(outputs)


def in_batches(module: nn.Module, x: Tensor) -> Tensor:
    """Return `module(x)` without gradients, computed in batches."""
    with torch.no_grad():
        return torch.cat([module(x[start : start + BATCH]) for start in range(0, len(x), BATCH)])
