"""The networks by name: the six of the quantization literature and three small ones that train on a CPU."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from paperlab.aquant.networks.blocks import BasicBlock, Bottleneck
from paperlab.aquant.networks.families import MNasNet, MobileNetV2, RegNetX, ResNet, regnet_stages


def _regnet(initial: int, slope: float, multiplier: float, depth: int, group_width: int) -> Callable[[int], nn.Module]:
    stages = regnet_stages(initial, slope, multiplier, depth, group_width)
    return lambda classes: RegNetX(stages, group_width, classes)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "ResNet-18": lambda classes: ResNet(BasicBlock, (2, 2, 2, 2), classes),
    "ResNet-50": lambda classes: ResNet(Bottleneck, (3, 4, 6, 3), classes),
    "MobileNetV2": MobileNetV2,
    "RegNetX-600M": _regnet(48, 36.97, 2.24, 16, 24),
    "RegNetX-3.2G": _regnet(88, 26.31, 2.25, 25, 48),
    "MNasNet": MNasNet,
}
"""The full-size networks, for images of 224×224; each takes the number of classes."""

SMALL: dict[str, Callable[[int], nn.Module]] = {
    "N1": lambda classes: ResNet(BasicBlock, (2, 2, 2), classes, width=8, small=True),
    "N2": lambda classes: MobileNetV2(classes, ((4, 12, 2, 1), (4, 24, 2, 2), (4, 48, 2, 2)), 12, 1, 96),
    "N3": lambda classes: RegNetX(((2, 16), (2, 32), (2, 64)), 8, classes, 16, 1, (1, 2, 2)),
}
"""A ResNet, a MobileNetV2 and a RegNetX of three stages, for images of 8×8 or 16×16."""


def build(name: str, classes: int = 1000) -> nn.Module:
    """Return the network called `name`, one of `NETWORKS` or `SMALL`, with random weights.

    Raises ValueError for an unknown name or fewer than two classes.
    """
    known = NETWORKS | SMALL
    if name not in known:
        raise ValueError(f"network: {name!r} is unknown; use one of {', '.join(known)}")
    if classes < 2:
        raise ValueError(f"classes: {classes} is too few; a network tells at least 2 apart")
    return known[name](classes)
