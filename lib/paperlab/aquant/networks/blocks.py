"""Residual blocks of the four families, from convolutions with batch normalization and activations as modules.

Every activation is a module of its own and nothing runs in place, so that torch.fx sees each tensor once. Parameters
are named as in the checkpoints that post-training quantization papers share (torchvision's for ResNet, the original
MobileNetV2's, MNasNet's and RegNet's), so those load without renaming.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


def convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a convolution without bias whose padding keeps the size at stride 1."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


class BasicBlock(nn.Module):
    """ResNet's block of two 3×3 convolutions; `downsample` fits the shortcut where size or width change."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = convolution(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2, self.bn2 = convolution(width, width, 3), nn.BatchNorm2d(width)
        self.downsample = shortcut(inputs, width, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the block's output of (B, width, H / stride, W / stride)."""
        y = self.relu1(self.bn1(self.conv1(x_BCHW)))
        return self.relu2(self.bn2(self.conv2(y)) + self.downsample(x_BCHW))


class Bottleneck(nn.Module):
    """ResNet's block of 1×1, 3×3 (which carries the stride) and 1×1 convolutions, four times as wide outside."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1, self.bn1 = convolution(inputs, width), nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2, self.bn2 = convolution(width, width, 3, stride), nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3, self.bn3 = convolution(width, outputs), nn.BatchNorm2d(outputs)
        self.downsample = shortcut(inputs, outputs, stride)
        self.relu3 = nn.ReLU()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the block's output of (B, 4 · width, H / stride, W / stride)."""
        y = self.relu1(self.bn1(self.conv1(x_BCHW)))
        y = self.relu2(self.bn2(self.conv2(y)))
        return self.relu3(self.bn3(self.conv3(y)) + self.downsample(x_BCHW))


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return the identity, or a 1×1 convolution where size or width change."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


def inverted_residual_path(
    inputs: int, outputs: int, expansion: int, stride: int, kernel: int, activation: type[nn.Module]
) -> nn.Sequential:
    """Return 1×1 up by `expansion` (left out for 1), depthwise, 1×1 down; the last has no activation."""
    hidden = inputs * expansion
    up = [convolution(inputs, hidden), nn.BatchNorm2d(hidden), activation()] if expansion > 1 else []
    depthwise = [convolution(hidden, hidden, kernel, stride, groups=hidden), nn.BatchNorm2d(hidden), activation()]
    return nn.Sequential(*up, *depthwise, convolution(hidden, outputs), nn.BatchNorm2d(outputs))


class InvertedResidual(nn.Module):
    """MobileNetV2's block with a linear bottleneck: x + conv(x) where size and width stay, else conv(x)."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        self.conv = inverted_residual_path(inputs, outputs, expansion, stride, 3, nn.ReLU6)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the block's output of (B, outputs, H / stride, W / stride)."""
        return x_BCHW + self.conv(x_BCHW) if self.residual else self.conv(x_BCHW)


class MnasBlock(nn.Module):
    """MNasNet's inverted residual: kernels of 3 or 5, ReLU."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.layers = inverted_residual_path(inputs, outputs, expansion, stride, kernel, nn.ReLU)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the block's output of (B, outputs, H / stride, W / stride)."""
        return self.layers(x_BCHW) + x_BCHW if self.residual else self.layers(x_BCHW)


class RegNetBlock(nn.Module):
    """RegNetX's block: 1×1, grouped 3×3 (which carries the stride) and 1×1, all of one width."""

    def __init__(self, inputs: int, width: int, stride: int, group_width: int) -> None:
        super().__init__()
        self.proj: nn.Module = nn.Identity()
        self.bn: nn.Module = nn.Identity()
        if stride > 1 or inputs != width:
            self.proj, self.bn = convolution(inputs, width, 1, stride), nn.BatchNorm2d(width)
        grouped = convolution(width, width, 3, stride, width // group_width)
        layers = [("a", convolution(inputs, width)), ("b", grouped), ("c", convolution(width, width))]
        path: OrderedDict[str, nn.Module] = OrderedDict()
        for name, layer in layers:
            path |= {name: layer, f"{name}_bn": nn.BatchNorm2d(width), f"{name}_relu": nn.ReLU()}
        del path["c_relu"]  # which follows the addition
        self.f = nn.Sequential(path)
        self.relu = nn.ReLU()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the block's output of (B, width, H / stride, W / stride)."""
        return self.relu(self.bn(self.proj(x_BCHW)) + self.f(x_BCHW))
