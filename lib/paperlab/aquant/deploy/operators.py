"""How activations, sums, pools and reshapes become integer steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from paperlab.aquant.deploy.lower import Lowering
from paperlab.aquant.frame.graph import POOLS, SUMS

_POOL_DEFAULTS: dict[str, Any] = {
    "kernel_size": None, "stride": None, "padding": 0, "dilation": 1, "ceil_mode": False, "count_include_pad": True,
    "divisor_override": None,
}  # fmt: skip
_MAX_ORDER = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
_AVERAGE_ORDER = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")


def append(lowering: Lowering, node: fx.Node, module: nn.Module | None) -> None:
    """Append the step of a node that is neither a quantizer nor a layer.

    Raises ValueError where it has no integer form; the message names the node.
    """
    kind = type(module) if module is not None else node.target
    for kinds, make in _MAKERS:
        if kind in kinds:
            make(lowering, node, module)
            return
    raise ValueError(f"{node.name}: {getattr(kind, '__name__', kind)} has no integer form")


def _relu(lowering: Lowering, node: fx.Node, module: nn.Module | None) -> None:
    name = lowering.fixed(_first(node))
    lowering.add("relu", node.name, [name], None, lowering.most[name])


def _relu6(lowering: Lowering, node: fx.Node, module: nn.Module | None) -> None:
    name, top = lowering.fixed(_first(node)), 6 << lowering.fraction_bits
    lowering.add("relu", node.name, [name], None, min(lowering.most[name], top), top=top)


def _add(lowering: Lowering, node: fx.Node, module: nn.Module | None) -> None:
    operands = [operand for operand in node.args if isinstance(operand, fx.Node)]
    if len(operands) != 2:
        raise ValueError(f"{node.name}: adds a constant, which has no integer form")
    names = [lowering.fixed(operand) for operand in operands]
    lowering.add("add", node.name, names, None, sum(lowering.most[name] for name in names))


def _max_pool(lowering: Lowering, node: fx.Node, module: nn.Module | None) -> None:
    name = _first(node).name
    window = window_of(node, module)
    lowering.add("max_pool", node.name, [name], lowering.scale[name], lowering.most[name], **window)


def _average_pool(lowering: Lowering, node: fx.Node, module: nn.Module | None) -> None:
    name, scale = lowering.levels(_first(node), node)
    window = window_of(node, module)
    area = window["kernel"][0] * window["kernel"][1]
    lowering.add("sum_pool", node.name, [name], scale / area, lowering.most[name] * area, **window)


def _mean(lowering: Lowering, node: fx.Node, module: nn.Module | None) -> None:
    """The mean over all pixels, as adaptive pooling to one pixel or as a reduction over dims 2 and 3."""
    name, scale = lowering.levels(_first(node), node)
    keep = True
    if module is not None or node.target is F.adaptive_avg_pool2d:
        size = module.output_size if isinstance(module, nn.AdaptiveAvgPool2d) else _argument(node, 1, "output_size")
        if _pair(size) != (1, 1):
            raise ValueError(f"{node.name}: adaptive pooling to {size}; only to one pixel has an integer form")
    else:
        dims, keep = _argument(node, 1, "dim"), bool(_argument(node, 2, "keepdim", False))
        if sorted(dim % 4 for dim in dims or ()) != [2, 3]:
            raise ValueError(f"{node.name}: a mean over {dims}; only over dims 2 and 3 has an integer form")
    size = _pixels(_first(node))
    area = size[0] * size[1]
    most = lowering.most[name] * area
    lowering.add("sum_pixels", node.name, [name], scale / area, most, size=size, keep=keep)


def _pixels(node: fx.Node) -> tuple[int, int]:
    """Return height and width of a node's tensor, which inserted quantizers take from what they quantize."""
    while "tensor_meta" not in node.meta:
        node = _first(node)
    height, width = node.meta["tensor_meta"].shape[2:]
    return height, width


def _flatten(lowering: Lowering, node: fx.Node, module: nn.Module | None) -> None:
    name = _first(node).name
    start = module.start_dim if isinstance(module, nn.Flatten) else _argument(node, 1, "start_dim", 0)
    if start != 1:
        raise ValueError(f"{node.name}: flattens from dimension {start}; only from 1 has an integer form")
    lowering.add("flatten", node.name, [name], lowering.scale[name], lowering.most[name])


Maker = Callable[[Lowering, fx.Node, nn.Module | None], None]
_MAKERS: tuple[tuple[tuple[object, ...], Maker], ...] = (
    ((nn.ReLU, F.relu, torch.relu, "relu"), _relu),
    ((nn.ReLU6, F.relu6), _relu6),
    (SUMS, _add),
    (POOLS, _max_pool),
    ((nn.AvgPool2d, F.avg_pool2d), _average_pool),
    ((nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d, torch.mean, "mean"), _mean),
    ((nn.Flatten, torch.flatten, "flatten"), _flatten),
)


def _first(node: fx.Node) -> fx.Node:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source


def _argument(node: fx.Node, place: int, name: str, default: Any = None) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def window_of(node: fx.Node, module: nn.Module | None) -> dict[str, Any]:
    """Return kernel, stride and padding of a pool; ValueError for what would need another division per window."""
    order = _MAX_ORDER if (node.target in POOLS or type(module) in POOLS) else _AVERAGE_ORDER
    values = {
        name: getattr(module, name) if module is not None else _argument(node, place, name, _POOL_DEFAULTS[name])
        for place, name in enumerate(order, 1)
    }
    kernel, padding = _pair(values["kernel_size"]), _pair(values["padding"])
    stride = kernel if values["stride"] is None else _pair(values["stride"])
    plain = {"dilation": (1, 1), "ceil_mode": False, "divisor_override": None}
    for name, usual in plain.items():
        found = values.get(name, usual)
        if found != usual and not (name == "dilation" and _pair(found) == usual):
            raise ValueError(f"{node.name}: a pool with {name}={found!r} has no integer form")
    if padding != (0, 0) and values.get("count_include_pad", True) is not True:
        raise ValueError(f"{node.name}: a padded average without its padding has no integer form")
    return {"kernel": kernel, "stride": stride, "padding": padding}


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
