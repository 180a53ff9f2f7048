"""The Angle-View Net: encoder, three upsamplings by two, and a head (paper, Fig. 5; released code)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from paperlab.rgbd_grasp.network.config import AvnConfig
from paperlab.rgbd_grasp.network.encoder import conv_bn, encoder, feature_channels


def duc(channels: int) -> nn.Sequential:
    """Return dense upsampling: a 3x3 convolution to four times the channels, of which every four become 2x2 pixels."""
    return nn.Sequential(conv_bn(channels, 4 * channels, 3), nn.ReLU(inplace=True), nn.PixelShuffle(2))


def stream(config: AvnConfig) -> nn.Sequential:
    """Return encoder, three upsamplings and head: images (B, 3, H, W) to logits (B, C, H/4, W/4)."""
    channels = feature_channels(config) // 4
    head = _head(channels, config.classes, config.head)
    return nn.Sequential(encoder(config), nn.PixelShuffle(2), duc(channels), duc(channels), head)


def _head(channels: int, classes: int, kind: str) -> nn.Module:
    if kind == "3x3":
        return nn.Conv2d(channels, classes, 3, padding=1)
    return nn.Sequential(conv_bn(channels, channels, 3), nn.ReLU(inplace=True), nn.Conv2d(channels, classes, 1))


class AngleViewNet(nn.Module):
    """One stream, or two whole ones for RGB and normals, whose heatmaps a 3x3 convolution joins.

    Images come with 3 channels per stream, (B, 3 or 6, H, W), as `inputs.network_input` makes them.
    """

    def __init__(self, config: AvnConfig) -> None:
        super().__init__()
        self.config = config
        count = 2 if config.modality == "rgb_normals" else 1
        self.streams = nn.ModuleList(stream(config) for _ in range(count))
        self.join = nn.Conv2d(count * config.classes, config.classes, 3, padding=1) if count > 1 else nn.Identity()

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return logits (B, classes, rows, columns); there is no sigmoid."""
        channels, (width, height) = 3 * len(self.streams), self.config.image
        if image_BCHW.shape[1:] != (channels, height, width):
            raise ValueError(
                f"image: got shape {tuple(image_BCHW.shape)}, needs (B, {channels}, {height}, {width}) "
                f"for modality {self.config.modality}"
            )
        parts = image_BCHW.split(3, dim=1)
        heatmaps = [branch(part) for branch, part in zip(self.streams, parts, strict=True)]
        return self.join(torch.cat(heatmaps, dim=1))

    @property
    def last(self) -> nn.Conv2d:
        """The convolution that gives the logits."""
        layer = self.join if len(self.streams) > 1 else self.streams[0][-1]  # type: ignore[index]
        return layer[-1] if isinstance(layer, nn.Sequential) else layer  # type: ignore[return-value]

    def start_at(self, prior: Tensor, seed: int = 0) -> None:
        """Set the last bias so that an untrained net gives each class its `prior` (C,), the share of positive cells.

        Positives are below 0.3 %: without it, hundreds of steps go into learning just that. The last weights become
        small and random.
        """
        if prior.shape != (self.config.classes,) or not ((prior > 0) & (prior < 1)).all():
            raise ValueError(f"prior: needs {self.config.classes} shares between 0 and 1, got {tuple(prior.shape)}")
        weight, bias = self.last.weight, self.last.bias
        assert bias is not None
        small = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            weight.copy_(small * (0.1 / math.sqrt(weight[0].numel())))
            bias.copy_(torch.logit(prior.double()))


def build(config: AvnConfig, seed: int = 0) -> AngleViewNet:
    """Return an untrained net whose weights depend on `seed` alone, from scratch: no ImageNet weights."""
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        net = AngleViewNet(config)
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    finally:
        torch.random.set_rng_state(state)


def parameters(module: nn.Module) -> int:
    """Return how many numbers a module learns."""
    return sum(p.numel() for p in module.parameters())
