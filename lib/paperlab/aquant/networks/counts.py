"""What a network costs: parameters, multiply-accumulates and activation elements, layer by layer."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer as it runs on one image.

    `input_shape` is (C, H, W), or (C,) of a linear layer; `patch_elements` is the size of the input unfolded into the
    patches of every output pixel (im2col); `input_key` tells which layers read the same tensor.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int
    groups: int
    macs: int
    weights: int
    input_shape: tuple[int, ...]
    patch_elements: int
    input_key: int

    @property
    def input_elements(self) -> int:
        """Elements of the input for one image."""
        return math.prod(self.input_shape)


@torch.no_grad()
def layers(model: nn.Module, image: Sequence[int] = (3, 224, 224)) -> list[Layer]:
    """Return the layers of `model` in the order in which they run on an image of (C, H, W).

    Only shapes are computed, by a copy on torch's meta device.
    """
    ghost = copy.deepcopy(model).to("meta").eval()
    found: list[Layer] = []
    seen: list[Tensor] = []  # kept, so that no two tensors share an id
    for name, module in ghost.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):

            def record(module: nn.Module, args: tuple[Tensor], output: Tensor, name: str = name) -> None:
                seen.append(args[0])
                found.append(_layer(name, module, args[0], output))

            module.register_forward_hook(record)
    ghost(torch.empty(1, *image, device="meta"))
    return found


def _layer(name: str, module: nn.Module, x: Tensor, y: Tensor) -> Layer:
    weight = module.weight
    assert isinstance(weight, Tensor)
    outputs, per_group = weight.shape[:2]
    area = weight[0, 0].numel()
    groups = module.groups if isinstance(module, nn.Conv2d) else 1
    positions = y.numel() // outputs
    return Layer(
        name=name,
        inputs=per_group * groups,
        outputs=outputs,
        kernel=weight.shape[-1] if weight.dim() == 4 else 1,
        groups=groups,
        macs=positions * weight.numel(),
        weights=weight.numel(),
        input_shape=tuple(x.shape[1:]),
        patch_elements=positions * per_group * groups * area,
        input_key=id(x),
    )


def macs(model: nn.Module, image: Sequence[int] = (3, 224, 224)) -> int:
    """Return the multiply-accumulates of convolutions and linear layers for one image of (C, H, W)."""
    return sum(layer.macs for layer in layers(model, image))


def parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters, those of batch normalization included."""
    return sum(parameter.numel() for parameter in model.parameters())
