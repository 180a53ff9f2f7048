"""ResNet, MobileNetV2, MNasNet and RegNetX at any size: the full ones for 224×224 and the small ones for 16×16."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from paperlab.aquant.networks.blocks import (
    BasicBlock,
    Bottleneck,
    InvertedResidual,
    MnasBlock,
    RegNetBlock,
    convolution,
)


class Head(nn.Module):
    """Mean over the pixels, then a linear layer."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.avg_pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = nn.Linear(channels, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return logits of (B, classes)."""
        return self.fc(self.flatten(self.avg_pool(x_BCHW)))


class ResNet(nn.Module):
    """ResNet of four stages (He et al. 2015; the stride sits on the 3×3 convolutions) or, `small`, of three.

    `small` leaves out the large stem, so that images of 16×16 keep their size in the first stage.
    """

    def __init__(
        self, block: type[BasicBlock | Bottleneck], depths: Sequence[int], classes: int, width: int = 64,
        small: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv1 = convolution(3, width, 3) if small else convolution(3, width, 7, 2)
        self.bn1, self.relu = nn.BatchNorm2d(width), nn.ReLU()
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        inputs = width
        for stage, depth in enumerate(depths):
            blocks = []
            for index in range(depth):
                blocks.append(block(inputs, width << stage, 2 if stage and not index else 1))
                inputs = (width << stage) * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = nn.Linear(inputs, classes)
        initialize(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return logits of (B, classes); the submodules run in the order of their definition."""
        return run_in_order(self, x_BCHW)


MOBILENET_V2_STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
"""Expansion, channels, blocks, stride of the first (Sandler et al. 2018, Table 2)."""


class MobileNetV2(nn.Module):
    """MobileNetV2 of any stages of (expansion, channels, blocks, stride)."""

    def __init__(
        self, classes: int, stages: Sequence[tuple[int, int, int, int]] = MOBILENET_V2_STAGES,
        stem: int = 32, stem_stride: int = 2, last: int = 1280,
    ) -> None:  # fmt: skip
        super().__init__()
        features: list[nn.Module] = [_activated(3, stem, 3, stem_stride)]
        inputs = stem
        for expansion, outputs, depth, stride in stages:
            for index in range(depth):
                features.append(InvertedResidual(inputs, outputs, expansion, 1 if index else stride))
                inputs = outputs
        self.features = nn.Sequential(*features, _activated(inputs, last, 1, 1))
        self.avgpool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.classifier = nn.Sequential(nn.Identity(), nn.Linear(last, classes))  # the identity is where dropout was
        initialize(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return logits of (B, classes)."""
        return run_in_order(self, x_BCHW)


def _activated(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(convolution(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs), nn.ReLU6())


MNASNET_STACKS = ((24, 3, 2, 3, 3), (40, 5, 2, 3, 3), (80, 5, 2, 6, 3), (96, 3, 1, 6, 2), (192, 5, 2, 6, 4),
                  (320, 3, 1, 6, 1))  # fmt: skip
"""Channels at scale 1, kernel, stride, expansion, blocks (Tan et al. 2018, Fig. 7, variant B1)."""


class MNasNet(nn.Module):
    """MNasNet-B1 with its widths multiplied by `scale`; the quantization papers' has scale 2."""

    def __init__(self, classes: int, scale: float = 2.0) -> None:
        super().__init__()
        stem, first = (_multiple_of_eight(width * scale) for width in (32, 16))
        modules: list[nn.Module] = [convolution(3, stem, 3, 2), nn.BatchNorm2d(stem), nn.ReLU()]
        modules += [convolution(stem, stem, 3, groups=stem), nn.BatchNorm2d(stem), nn.ReLU()]
        modules += [convolution(stem, first), nn.BatchNorm2d(first)]
        inputs = first
        for width, kernel, stride, expansion, depth in MNASNET_STACKS:
            outputs = _multiple_of_eight(width * scale)
            strides = [stride] + [1] * (depth - 1)
            widths = [inputs] + [outputs] * (depth - 1)
            stack = [MnasBlock(w, outputs, expansion, s, kernel) for w, s in zip(widths, strides, strict=True)]
            modules.append(nn.Sequential(*stack))
            inputs = outputs
        modules += [convolution(inputs, 1280), nn.BatchNorm2d(1280), nn.ReLU()]
        self.layers = nn.Sequential(*modules)
        self.avgpool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.classifier = nn.Sequential(nn.Identity(), nn.Linear(1280, classes))
        initialize(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return logits of (B, classes)."""
        return run_in_order(self, x_BCHW)


def _multiple_of_eight(width: float) -> int:
    """Round a width to a multiple of 8, up where rounding down would lose more than a tenth."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * width else rounded + 8


class RegNetX(nn.Module):
    """RegNetX of stages of (blocks, width), each beginning with stride 2 or what `strides` says."""

    def __init__(
        self, stages: Sequence[tuple[int, int]], group_width: int, classes: int, stem: int = 32,
        stem_stride: int = 2, strides: Sequence[int] = (2, 2, 2, 2),
    ) -> None:  # fmt: skip
        super().__init__()
        layers = [("conv", convolution(3, stem, 3, stem_stride)), ("bn", nn.BatchNorm2d(stem)), ("relu", nn.ReLU())]
        self.stem = nn.Sequential(OrderedDict(layers))
        inputs = stem
        for number, ((depth, width), stride) in enumerate(zip(stages, strides, strict=False), 1):
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            for index in range(depth):
                blocks[f"b{index + 1}"] = RegNetBlock(inputs, width, 1 if index else stride, group_width)
                inputs = width
            self.add_module(f"s{number}", nn.Sequential(blocks))
        self.head = Head(inputs, classes)
        initialize(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return logits of (B, classes)."""
        return run_in_order(self, x_BCHW)


def regnet_stages(
    initial: int, slope: float, multiplier: float, depth: int, group_width: int
) -> tuple[tuple[int, int], ...]:
    """Return (blocks, width) of RegNet's stages from its design parameters w_0, w_a, w_m, d (Radosavovic 2020, §3.3).

    Block j would have width w_0 + w_a·j; it is rounded to w_0·w_m^k, then to a multiple of 8, and a stage's width to
    a multiple of the group width.
    """
    linear = initial + slope * np.arange(depth)
    powers = np.round(np.log(linear / initial) / np.log(multiplier))
    widths = 8 * np.round(initial * multiplier**powers / 8).astype(int)
    values, depths = np.unique(widths, return_counts=True)
    return tuple((int(d), int(round(w / group_width) * group_width)) for w, d in zip(values, depths, strict=True))


def run_in_order(module: nn.Module, x: Tensor) -> Tensor:
    """Run the children of `module` one after the other."""
    for child in module.children():
        x = child(x)
    return x


def initialize(model: nn.Module) -> None:
    """Draw convolutions by He's rule over the outputs; the normalizations start as identities."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
