"""Units of reconstruction: blocks for BRECQ, QDrop and AQuant, single layers for AdaRound."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn

from paperlab.aquant.frame.graph import ACTIVATIONS, TRANSPARENT, is_layer, kind
from paperlab.aquant.quantizer import ActivationQuantizer


@dataclass(frozen=True)
class Unit:
    """A piece of the graph with one input tensor (not quantized yet) and one output tensor."""

    name: str
    source: fx.Node
    nodes: tuple[fx.Node, ...]

    @property
    def output(self) -> fx.Node:
        """The node whose float value is the target."""
        return self.nodes[-1]


def find_units(network: fx.GraphModule, layerwise: bool) -> list[Unit]:
    """Return the units of a prepared network in the order of their layers."""
    return layer_units(network) if layerwise else block_units(network)


def layer_units(network: fx.GraphModule) -> list[Unit]:
    """Return one unit per layer: its quantizer, what lies between, the layer, and its activation function."""
    units = []
    for layer in network.graph.nodes:
        if not is_layer(layer, network):
            continue
        nodes = [layer]
        while kind(nodes[0].args[0], network) in (*TRANSPARENT, ActivationQuantizer):
            nodes.insert(0, nodes[0].args[0])
        users = list(layer.users)
        if len(users) == 1 and kind(users[0], network) in ACTIVATIONS:
            nodes.append(users[0])
        units.append(Unit(str(layer.target), nodes[0].args[0], tuple(nodes)))
    return units


def block_units(network: fx.GraphModule) -> list[Unit]:
    """Return one unit per block: segments between tensors that everything passes through, joined by their module.

    A residual connection makes its whole block one segment; layers in a row belong together if they share the
    innermost module that holds several layers and is no plain container; other layers stand alone.
    """
    segments = _merge(network, _segments(network))
    units = []
    for nodes, block in segments:
        layers = [node for node in nodes if is_layer(node, network)]
        outside = [item for node in nodes for item in node.all_input_nodes if item not in nodes]
        assert len(set(outside)) == 1, "a unit has one input"
        units.append(Unit(block or str(layers[0].target), outside[0], tuple(nodes)))
    return units


def _segments(network: fx.GraphModule) -> list[list[fx.Node]]:
    """Cut the graph wherever a single tensor is alive."""
    alive: dict[fx.Node, int] = {}
    segments: list[list[fx.Node]] = [[]]
    for node in network.graph.nodes:
        if node.op == "output":
            break
        for item in node.all_input_nodes:
            alive[item] -= 1
            if not alive[item]:
                del alive[item]
        alive[node] = len(node.users)
        if node.op != "placeholder":
            segments[-1].append(node)
        if len(alive) == 1 and segments[-1]:
            segments.append([])
    return [segment for segment in segments if segment]


def _merge(network: fx.GraphModule, segments: list[list[fx.Node]]) -> list[tuple[list[fx.Node], str]]:
    """Join segments into units: quantizers and averages go to the layers after them, the rest to those before."""
    merged: list[tuple[list[fx.Node], str]] = []
    waiting: list[fx.Node] = []
    for nodes in segments:
        layers = [node for node in nodes if is_layer(node, network)]
        if not layers:
            ahead = all(kind(node, network) in (*TRANSPARENT, ActivationQuantizer) for node in nodes)
            if ahead or waiting or not merged:
                waiting += nodes
            else:
                merged[-1][0].extend(nodes)
            continue
        block = _block_of(network, layers)
        if block and merged and merged[-1][1] == block:
            merged[-1][0].extend(waiting + nodes)
        else:
            merged.append((waiting + nodes, block))
        waiting = []
    if waiting:
        merged[-1][0].extend(waiting)
    return merged


def _block_of(network: fx.GraphModule, layers: list[fx.Node]) -> str:
    """Return the innermost module around all of `layers` that is a block, or an empty string."""
    names = [str(node.target) for node in network.graph.nodes if is_layer(node, network)]
    around = list(layers[0].meta["nn_module_stack"].values())[:-1]  # the last is the layer itself
    for prefix, module_type in reversed(around):
        inside = [name for name in names if name.startswith(f"{prefix}.")]
        is_container = issubclass(module_type, (nn.Sequential, nn.ModuleList, nn.ModuleDict))
        if prefix and len(inside) > 1 and not is_container and all(str(node.target) in inside for node in layers):
            return str(prefix)
    return ""


def extract(network: fx.GraphModule, unit: Unit) -> fx.GraphModule:
    """Return a unit as a module of its own that shares its parts with `network`."""
    graph = fx.Graph()
    copies = {unit.source: graph.placeholder("x")}
    for node in unit.nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[unit.output])
    return fx.GraphModule(network, graph)
