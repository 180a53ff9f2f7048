"""Inference in integers alone, in numpy: comparisons, integer multiply-accumulates and fixed-point sums.

Two kinds of tensors flow: levels (int32, what a quantizer emits: code less zero point) and fixed-point numbers (int64
in units of 2^-fraction_bits, what convolutions and sums emit). Scales exist only as integer multipliers, thresholds
only as fixed-point numbers; nothing is a float between the image's first comparison and the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from paperlab.aquant.deploy.thresholds import apply_rows

MAX_BITS = 62
"""Of a fixed-point number's magnitude."""


class Step(NamedTuple):
    """One operation: its kind, the name of its result, what it reads, plain attributes, and the names of its arrays."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    attributes: dict[str, Any]
    arrays: dict[str, str]


@dataclass(frozen=True)
class IntegerNetwork:
    """A program of integer operations and its arrays; `run` executes it."""

    steps: tuple[Step, ...]
    arrays: dict[str, np.ndarray]
    fraction_bits: int

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return the logits (N, classes), float64, of float32 images (N, C, H, W)."""
        return self.tensors(images)[self.steps[-1].name] / 2.0**self.fraction_bits

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the classes (N,), found without leaving the integers."""
        return self.tensors(images)[self.steps[-1].name].argmax(1)

    def tensors(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return every tensor of the run by name: levels of quantizers, fixed-point numbers of the rest."""
        if images.dtype != np.float32:
            raise ValueError(f"images are {images.dtype}; the image quantizer's thresholds are float32")
        found: dict[str, np.ndarray] = {"image": images}
        for step in self.steps:
            arrays = {role: self.arrays[name] for role, name in step.arrays.items()}
            values = [found[name] for name in step.inputs]
            found[step.name] = _OPERATIONS[step.kind](*values, **arrays, **step.attributes)
        return found


def quantize(x: np.ndarray, thresholds: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return the levels, int32, of fixed-point numbers (or of the image) by thresholds (R, S) in its unit."""
    return apply_rows(thresholds, levels, x)


def convolve(
    x: np.ndarray, weight: np.ndarray, multiplier: np.ndarray, bias: np.ndarray, *, groups: int,
    stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int],
    thresholds: np.ndarray | None = None, levels: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Return the convolution of levels (N, C, H, W) as fixed-point numbers.

    `weight` (C_out, C/groups, kh, kw) int32 are codes less zero points, `multiplier` and `bias` (C_out,) int64. With
    thresholds, a row per input channel and kernel position, `x` is in fixed point, and each patch is quantized first.
    """
    patches_NCkkHW = unfold(x, weight.shape[2:], stride, padding, dilation)
    size = patches_NCkkHW.shape[-2:]
    patches_NPL = patches_NCkkHW.reshape(len(x), -1, size[0] * size[1])
    if thresholds is not None and levels is not None:
        inside_NPL = unfold(np.ones_like(x[:1], np.int32), weight.shape[2:], stride, padding, dilation)
        patches_NPL = quantize(patches_NPL, thresholds, levels) * inside_NPL.reshape(1, *patches_NPL.shape[1:])
    patches_NGKL = patches_NPL.reshape(len(x), groups, -1, patches_NPL.shape[2])
    weight_GOK = weight.reshape(groups, len(weight) // groups, -1)
    sums_NOL = (weight_GOK @ patches_NGKL).reshape(len(x), len(weight), -1)  # int32, as `lower` has made sure
    return _requantized(sums_NOL, multiplier, bias).reshape(len(x), len(weight), *size)


def linear(x: np.ndarray, weight: np.ndarray, multiplier: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Return x Wᵀ + b of levels (N, features) as fixed-point numbers (N, C_out)."""
    return (x @ weight.T).astype(np.int64) * multiplier + bias


def _requantized(sums_NOL: np.ndarray, multiplier: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return sums_NOL.astype(np.int64) * multiplier[:, None] + bias[:, None]


def unfold(
    x: np.ndarray, kernel: tuple[int, ...], stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> np.ndarray:
    """Return the patches (N, C, kh, kw, H_out, W_out) of (N, C, H, W), zero beyond the border of the image."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    window = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    views = sliding_window_view(padded, window, axis=(2, 3))
    views = views[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    return views.transpose(0, 1, 4, 5, 2, 3)


def max_pool(
    x: np.ndarray, *, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> np.ndarray:
    """Return the largest value of every window; padding never wins."""
    least = np.iinfo(x.dtype).min
    padded = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2), constant_values=least)
    views = sliding_window_view(padded, kernel, axis=(2, 3))[:, :, :: stride[0], :: stride[1]]
    return views.max((4, 5))


def sum_pool(
    x: np.ndarray, *, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> np.ndarray:
    """Return the sum of levels in every window; the mean's division is left to the next multiplier."""
    patches_NCkkHW = unfold(x, kernel, stride, padding, (1, 1))
    return patches_NCkkHW.sum((2, 3), dtype=np.int32)


def sum_pixels(x: np.ndarray, *, size: tuple[int, int], keep: bool) -> np.ndarray:
    """Return the sum of levels over all pixels, of which there must be as many as the multiplier after it takes."""
    if x.shape[2:] != tuple(size):
        raise ValueError(f"feature maps of {x.shape[2:]} pixels; the network was exported for images that give {size}")
    return x.sum((2, 3), dtype=np.int32, keepdims=keep)


_OPERATIONS: dict[str, Callable[..., np.ndarray]] = {
    "quantize": quantize,
    "convolve": convolve,
    "linear": linear,
    "to_fixed": lambda x, *, multiplier: x.astype(np.int64) * multiplier,
    "relu": lambda x, *, top=None: np.clip(x, 0, top),
    "add": lambda x, y: x + y,
    "max_pool": max_pool,
    "sum_pool": sum_pool,
    "sum_pixels": sum_pixels,
    "flatten": lambda x: x.reshape(len(x), -1),
}
