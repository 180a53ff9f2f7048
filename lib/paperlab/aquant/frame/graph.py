"""Tracing a model into a graph of supported operators, with batch norms folded into the layers before them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

LAYERS = (nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm2d, nn.BatchNorm1d)
NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)  # when evaluated
ACTIVATIONS: tuple[object, ...] = (nn.ReLU, nn.ReLU6, F.relu, F.relu6, torch.relu, "relu")
# Averages and reshapes before a head: its input is quantized before them.
TRANSPARENT: tuple[object, ...] = (
    nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, "mean",
    torch.flatten, "flatten",
)  # fmt: skip
POOLS: tuple[object, ...] = (nn.MaxPool2d, F.max_pool2d, torch.max_pool2d)
SUMS: tuple[object, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")

_FUSE: dict[object, Callable[..., nn.Module]] = {nn.Conv2d: fuse_conv_bn_eval, nn.Linear: fuse_linear_bn_eval}
_ADVICE: dict[str, str] = {
    "BatchNorm2d": "only a batch norm right after a convolution can be folded",
    "BatchNorm1d": "only a batch norm right after a linear layer can be folded",
    "ConvTranspose2d": "replace it by an upsampling and a convolution, or leave this part out of the model",
    "Conv1d": "write it as a Conv2d with height 1",
    "Sigmoid": "replace it by ReLU or leave this part out of the model",
    "SiLU": "replace it by ReLU and train again",
    "GELU": "replace it by ReLU and train again",
    "Hardswish": "replace it by ReLU6 and train again",
    "view": "use torch.flatten(x, 1)",
    "reshape": "use torch.flatten(x, 1)",
    "size": "use torch.flatten(x, 1) instead of a view",
}


def kind(node: fx.Node, network: nn.Module) -> object:
    """Return what a node does: a module's type, a function, or a method's name."""
    return type(network.get_submodule(str(node.target))) if node.op == "call_module" else node.target


def is_layer(node: fx.Node, network: nn.Module) -> bool:
    """Whether a node is a convolution or linear layer, quantized or not."""
    from paperlab.aquant.layers import QuantLayer

    return node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), (*LAYERS, QuantLayer))


def trace(model: nn.Module) -> fx.GraphModule:
    """Return a folded, evaluating copy of `model` as a graph; the model itself stays as it is.

    Raises:
        ValueError: the model cannot be traced, or holds something unsupported; every such part is named, with advice.
    """
    copy = deepcopy(model).eval()
    try:
        network = fx.symbolic_trace(copy)
    except Exception as error:  # fx raises many kinds, all for the same reason
        raise ValueError(
            f"{type(model).__name__} cannot be traced: {error}; avoid branches on tensor values"
        ) from error
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    _drop_nothings(network)
    _fold_norms(network)
    _no_writes_in_place(network)
    problems = list(_problems(network))
    if problems:
        raise ValueError(f"{type(model).__name__} holds what cannot be quantized: {'; '.join(problems)}")
    network.graph.lint()
    network.delete_all_unused_submodules()
    network.recompile()
    return network


def _replace(network: fx.GraphModule, node: fx.Node, by: fx.Node) -> None:
    node.replace_all_uses_with(by)
    network.graph.erase_node(node)


def _drop_nothings(network: fx.GraphModule) -> None:
    for node in list(network.graph.nodes):
        if kind(node, network) in (*NOTHING, F.dropout):
            _replace(network, node, node.args[0])


def _fold_norms(network: fx.GraphModule) -> None:
    for node in list(network.graph.nodes):
        if kind(node, network) not in NORMS:
            continue
        layer = node.args[0]
        fuse = _FUSE.get(kind(layer, network))
        if fuse is not None and len(layer.users) == 1:
            norm = network.get_submodule(node.target)
            network.set_submodule(layer.target, fuse(network.get_submodule(layer.target), norm))
            _replace(network, node, layer)


def _no_writes_in_place(network: fx.GraphModule) -> None:
    """Units run many times on stored activations, which nothing may overwrite."""
    for node in network.graph.nodes:
        if node.target in (operator.iadd, "add_"):
            node.target, node.op = operator.add, "call_function"
        if node.op == "call_module":
            module: Any = network.get_submodule(node.target)
            if getattr(module, "inplace", False):
                module.inplace = False
        node.kwargs = {name: value for name, value in node.kwargs.items() if name != "inplace"}


def _problems(network: fx.GraphModule) -> Iterator[str]:
    known = {*LAYERS, *ACTIVATIONS, *TRANSPARENT, *POOLS, *SUMS}
    called: set[Any] = set()
    layers = 0
    for node in network.graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        what = kind(node, network)
        name = what.__name__ if isinstance(what, type) else str(getattr(what, "__name__", what))
        if node.op == "get_attr" or what not in known:
            yield f"{node.target if node.op == 'call_module' else node.name} ({name}): {_advice(name)}"
        elif what in SUMS and not all(isinstance(item, fx.Node) for item in node.args[:2]):
            yield f"{node.name} (add): adds a constant; fold it into a bias"
        elif what in LAYERS:
            layers += 1
            if node.target in called:
                yield f"{node.target} ({name}): is called twice; make a copy for each call"
            called.add(node.target)
            if getattr(network.get_submodule(node.target), "padding_mode", "zeros") != "zeros":
                yield f"{node.target} ({name}): pads with something else than zeros; use padding_mode='zeros'"
    if not layers:
        yield "no convolution and no linear layer: there is nothing to quantize"
    if sum(node.op == "placeholder" for node in network.graph.nodes) != 1:
        yield "more than one input: wrap the model so that it takes images alone"


def _advice(name: str) -> str:
    return _ADVICE.get(name, "replace it by a supported operator (see frame/graph.py), or leave it out of the model")
