"""What a border costs by the clock, layer by layer: quantizers alone and the convolution that reads their output.

On a GPU the quantizers are the Triton kernels and the convolution runs in bfloat16; on a CPU they are torch's operators
and float32, and a threshold form of 2 bits is three comparisons. The overhead of an arm is the time it takes beyond
rounding to nearest, over the time of nearest rounding and convolution together. Before each run a buffer larger than
any cache is written, which on a GPU also gives the host time to launch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperlab.aquant.border import Border, BorderSpec
from paperlab.aquant.deploy.thresholds import table_of
from paperlab.aquant.layers import QuantConv2d
from paperlab.aquant.networks import build, layers
from paperlab.aquant.quantizer import ActivationQuantizer
from paperlab.lab import timing

NEAREST = "nearest"
ARMS: dict[str, BorderSpec | None] = {
    NEAREST: None,
    "thresholds": BorderSpec(),
    "function, degree 1": BorderSpec(degree=1, bound="clip"),
    "function, degree 2": BorderSpec(degree=2, bound="clip"),
}
"""Quantizers that are timed: the bounded border as thresholds, a clipped polynomial evaluated for every activation."""
FLUSH_BYTES = {"cuda": 2**28, "cpu": 2**26}


@dataclass(frozen=True)
class LayerCase:
    """A convolution, the shape (C, H, W) of its input, and how often a network has one like it."""

    conv: nn.Conv2d
    shape: tuple[int, int, int]
    count: int

    @property
    def label(self) -> str:
        """What tells it apart, such as `64x56x56 3x3/1 to 64`."""
        kernel, stride = self.conv.kernel_size, self.conv.stride
        groups = f", {self.conv.groups} groups" if self.conv.groups > 1 else ""
        return (
            f"{'x'.join(map(str, self.shape))} {kernel[0]}x{kernel[1]}/{stride[0]} to {self.conv.out_channels}{groups}"
        )


def layer_cases(network: str, image: tuple[int, int, int] = (3, 224, 224), classes: int = 1000) -> list[LayerCase]:
    """Return the different convolutions of a network that read bordered activations: all but the first."""
    with torch.device("meta"):
        model = build(network, classes)
        found = layers(model, image)
    cases: dict[str, LayerCase] = {}
    for layer in found[1:]:
        conv = model.get_submodule(layer.name)
        if isinstance(conv, nn.Conv2d):
            channels, height, width = layer.input_shape
            case = LayerCase(conv, (channels, height, width), 1)
            seen = cases.get(case.label)
            cases[case.label] = LayerCase(conv, case.shape, seen.count + 1 if seen else 1)
    return list(cases.values())


@torch.no_grad()
def layer_costs(case: LayerCase, batch: int, bits: int, repeats: int, device: str) -> pd.DataFrame:
    """Time every arm and the convolution on one input of `batch` images.

    Columns: layer, count, batch, bits, arm, time_s (median), time_low_s, time_high_s (quartiles), conv_s, elements.
    """
    torch.manual_seed(0)
    x = torch.randn(batch, *case.shape, device=device).relu()
    actions = {arm: _quantization(x, spec, bits, device) for arm, spec in ARMS.items()}
    actions["conv"] = _convolution(case.conv, x, device)
    times = interleaved(actions, repeats, device)
    rows = [
        {
            "layer": case.label, "count": case.count, "batch": batch, "bits": bits, "arm": arm,
            "time_s": np.median(times[arm]), "time_low_s": np.quantile(times[arm], 0.25),
            "time_high_s": np.quantile(times[arm], 0.75), "conv_s": np.median(times["conv"]), "elements": x.numel(),
        }
        for arm in ARMS
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**timing.machine(device))


@torch.no_grad()
def patch_costs(case: LayerCase, batch: int, bits: int, repeats: int, device: str) -> pd.DataFrame:
    """Time rounding per kernel position, fused with im2col, beside rounding per channel; needs Triton.

    Columns as those of `layer_costs`; `conv_s` of the patch arm is the matrix product that reads the patches.
    """
    from paperlab.aquant.deploy import kernels

    torch.manual_seed(0)
    x = torch.randn(batch, *case.shape, device=device).relu()
    conv = QuantConv2d(case.conv.to_empty(device=device), 8)
    area = conv.kernel_size[0] * conv.kernel_size[1]
    per_channel, per_position = (
        kernels.prepare_quantizer(_quantizer(spec, bits, case.shape[0], positions, device), "thresholds")
        for spec, positions in ((BorderSpec(), 1), (BorderSpec(granularity="kernel_pos"), area))
    )
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    patches = kernels.quantize_patches(x, conv, per_position, codes=False).to(dtype).unflatten(1, (conv.groups, -1))
    weight = torch.randn(conv.groups, conv.out_channels // conv.groups, patches.shape[2], device=device, dtype=dtype)
    actions: dict[str, Callable[[], object]] = {
        "channel": lambda: kernels.quantize(x, per_channel),
        "kernel_pos": lambda: kernels.quantize_patches(x, conv, per_position),
        "conv": _convolution(case.conv, x, device),
        "product": lambda: weight @ patches,
    }
    times = interleaved(actions, repeats, device)
    rows = [
        {
            "layer": case.label, "count": case.count, "batch": batch, "bits": bits, "arm": arm,
            "time_s": np.median(times[arm]), "conv_s": np.median(times[reader]),
        }
        for arm, reader in (("channel", "conv"), ("kernel_pos", "product"))
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**timing.machine(device))


def overheads(costs: pd.DataFrame) -> pd.Series:
    """Return for each arm the time beyond nearest rounding over nearest rounding and convolution, all layers summed."""
    totals = costs.assign(time_s=costs.time_s * costs["count"], conv_s=costs.conv_s * costs["count"])
    sums = totals.groupby("arm")[["time_s", "conv_s"]].sum()
    nearest = sums.time_s[NEAREST]
    return (sums.time_s - nearest) / (nearest + sums.conv_s[NEAREST])


def interleaved(actions: dict[str, Callable[[], object]], repeats: int, device: str) -> dict[str, list[float]]:
    """Return the seconds of `repeats` runs of each action, in turns, after one run to warm up."""
    buffer = torch.empty(FLUSH_BYTES[device] // 4, device=device)
    times: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(repeats + 1):
        for name, action in actions.items():
            found = timing.timed(action, 1, device, lambda: buffer.fill_(0.0))
            times[name] += found if number else []
    return times


def _quantizer(spec: BorderSpec | None, bits: int, channels: int, positions: int, device: str) -> ActivationQuantizer:
    quantizer = ActivationQuantizer(bits)
    if spec is not None:
        quantizer.border = Border(spec, channels, positions)
        quantizer.border.coefficients.data = 0.1 * torch.randn_like(quantizer.border.coefficients)
    quantizer.set_grid(torch.tensor(2.0 / quantizer.top), torch.tensor(0.0))
    return quantizer.to(device)


def _quantization(x: Tensor, spec: BorderSpec | None, bits: int, device: str) -> Callable[[], object]:
    quantizer = _quantizer(spec, bits, x.shape[1], 1, device)
    as_table = spec is not None and spec.bound == "sigmoid"
    if device == "cuda":
        from paperlab.aquant.deploy import kernels

        prepared = kernels.prepare_quantizer(
            quantizer, None if spec is None else "thresholds" if as_table else "function"
        )
        return lambda: kernels.quantize(x, prepared)
    if not as_table:
        return lambda: quantizer.codes(x)
    thresholds_KC11 = torch.from_numpy(table_of(quantizer).staircase().T.copy())[:, None, :, None, None]
    return lambda: sum((x >= threshold).to(torch.uint8) for threshold in thresholds_KC11)


def _convolution(conv: nn.Conv2d, x: Tensor, device: str) -> Callable[[], object]:
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    layout = torch.channels_last if device == "cuda" else torch.contiguous_format
    weight = torch.randn(conv.weight.shape, device=device, dtype=dtype).to(memory_format=layout)
    images = x.to(dtype).to(memory_format=layout)
    return lambda: F.conv2d(images, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
