"""Convolutions and linear layers whose weight is quantized, and which deploy to integer codes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperlab.aquant.quantizer import ActivationQuantizer, WeightQuantizer


class QuantLayer(nn.Module):
    """What quantized convolutions and linear layers share: weight, its quantizer, bias, deployment.

    While methods learn, `weight` holds the float weight. `deploy` replaces it by the buffer `weight_codes` (uint8), so
    that nothing of the float weight is left.
    """

    weight_codes: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, bits: int) -> None:
        super().__init__()
        self.weight: Tensor | None = nn.Parameter(weight.detach().clone(), requires_grad=False)
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.register_buffer("weight_codes", None)
        self.weight_quantizer = WeightQuantizer(bits, weight)

    bias: Tensor | None
    groups: int

    @property
    def deployed(self) -> bool:
        """Whether only integer codes are left."""
        return self.weight_codes is not None

    def codes(self) -> Tensor:
        """Return the integer codes of the weight, uint8, its shape."""
        if self.weight_codes is not None:
            return self.weight_codes
        assert self.weight is not None
        return self.weight_quantizer.codes(self.weight).to(torch.uint8)

    def quantized_weight(self) -> Tensor:
        """Return the weight the layer computes with; soft while AdaRound learns."""
        if self.weight_codes is not None:
            return self.weight_quantizer.dequantize(self.weight_codes)
        assert self.weight is not None
        return self.weight_quantizer(self.weight)

    def deploy(self) -> None:
        """Keep the codes alone."""
        with torch.no_grad():
            self.weight_codes = self.codes()
        self.weight, self.weight_quantizer.up = None, None


class QuantConv2d(QuantLayer):
    """A convolution with a quantized weight.

    With a border per kernel position, `patch_quantizer` rounds every k×k patch after unfolding; otherwise the input
    arrives quantized. Padding is added after quantization, so that it is exactly zero.
    """

    def __init__(self, conv: nn.Conv2d, bits: int) -> None:
        super().__init__(conv.weight, conv.bias, bits)
        self.stride, self.padding, self.dilation = _pair(conv.stride), _padding(conv), _pair(conv.dilation)
        self.groups, self.kernel_size = conv.groups, _pair(conv.kernel_size)
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.patch_quantizer: ActivationQuantizer | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of (N, C, H, W)."""
        weight = self.quantized_weight()
        if self.patch_quantizer is None:
            return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return self._by_patches(x, weight, self.patch_quantizer)

    def _by_patches(self, x: Tensor, weight: Tensor, quantizer: ActivationQuantizer) -> Tensor:
        patches = quantizer(self.unfold(x)) * self.unfold(
            torch.ones_like(x[:1])
        )  # padding is zero, whatever its border
        grouped = patches.unflatten(1, (self.groups, -1))
        out = torch.einsum("gok,ngkl->ngol", weight.reshape(self.groups, -1, grouped.shape[2]), grouped).flatten(1, 2)
        if self.bias is not None:
            out = out + self.bias.reshape(1, -1, 1)
        return out.unflatten(2, self.output_size(x))

    def unfold(self, x: Tensor) -> Tensor:
        """Return the patches of (N, C, H, W) as (N, C·k², L)."""
        return F.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)

    def output_size(self, x: Tensor) -> tuple[int, int]:
        """Return height and width of the output for an input (N, C, H, W)."""
        sizes = [
            (x.shape[axis + 2] + 2 * self.padding[axis] - self.dilation[axis] * (self.kernel_size[axis] - 1) - 1)
            // self.stride[axis]
            + 1
            for axis in (0, 1)
        ]
        return sizes[0], sizes[1]


class QuantLinear(QuantLayer):
    """A linear layer with a quantized weight, on (N, features)."""

    def __init__(self, linear: nn.Linear, bits: int) -> None:
        super().__init__(linear.weight, linear.bias, bits)
        self.in_channels, self.out_channels, self.groups = linear.in_features, linear.out_features, 1

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + b."""
        return F.linear(x, self.quantized_weight(), self.bias)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _padding(conv: nn.Conv2d) -> tuple[int, int]:
    if isinstance(conv.padding, str):
        if conv.padding == "valid":
            return 0, 0
        reach = [d * (k - 1) for d, k in zip(_pair(conv.dilation), _pair(conv.kernel_size), strict=True)]
        if any(r % 2 for r in reach):
            raise ValueError("padding='same' with an even kernel pads unevenly; give the padding as a number")
        return reach[0] // 2, reach[1] // 2
    return _pair(conv.padding)
