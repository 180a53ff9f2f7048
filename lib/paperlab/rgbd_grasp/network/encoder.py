"""The encoder: a residual network with squeeze and excitation where a stage begins."""

from __future__ import annotations

from torch import Tensor, nn

from paperlab.rgbd_grasp.network.config import AvnConfig

_EXPANSION = {"bottleneck": 4, "basic": 1}


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution without bias and its batch normalization."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class SqueezeExcite(nn.Module):
    """Scale every channel by what its means over the image say; the released code does not reduce in between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(inplace=True), nn.Linear(channels, channels), nn.Sigmoid()
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the scaled channels, of the same shape."""
        return x_BCHW * self.gate(x_BCHW.mean(dim=(2, 3)))[:, :, None, None]


class Residual(nn.Module):
    """A bottleneck or basic block; one that changes channels or resolution has a projection, and is gated."""

    def __init__(self, kind: str, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * _EXPANSION[kind]
        if kind == "bottleneck":
            steps = [conv_bn(inputs, width, 1), conv_bn(width, width, 3, stride), conv_bn(width, outputs, 1)]
        else:
            steps = [conv_bn(inputs, width, 3, stride), conv_bn(width, width, 3)]
        layers: list[nn.Module] = [steps[0]]
        for step in steps[1:]:
            layers += [nn.ReLU(inplace=True), step]
        changes = stride > 1 or inputs != outputs
        if changes:
            layers.append(SqueezeExcite(outputs))
        self.body = nn.Sequential(*layers)
        self.skip = conv_bn(inputs, outputs, 1, stride) if changes else nn.Identity()
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the block's output, at 1/stride of the resolution."""
        return self.activation(self.body(x_BCHW) + self.skip(x_BCHW))


def feature_channels(config: AvnConfig) -> int:
    """Return how many channels the encoder's features have: 2048 in the paper."""
    return _EXPANSION[config.block] * config.width * 8


def encoder(config: AvnConfig) -> nn.Sequential:
    """Return stem and four stages: images (B, 3, H, W) to features (B, C, H/32, W/32). The paper's is SE-ResNet-50."""
    expansion, width = _EXPANSION[config.block], config.width
    stem = nn.Sequential(conv_bn(3, width, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
    stages, inputs = [], width
    for stage, count in enumerate(config.blocks):
        blocks = []
        for k in range(count):
            blocks.append(Residual(config.block, inputs, width * 2**stage, 2 if stage and k == 0 else 1))
            inputs = expansion * width * 2**stage
        stages.append(nn.Sequential(*blocks))
    return nn.Sequential(stem, *stages)
