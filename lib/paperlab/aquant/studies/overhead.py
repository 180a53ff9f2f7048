"""What a border adds: counted for the six networks at 224×224, and measured against a plain quantizer on this machine."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from paperlab.aquant import networks
from paperlab.aquant.border import Border, BorderSpec
from paperlab.aquant.networks import Layer
from paperlab.aquant.quantizer import ActivationQuantizer
from paperlab.lab.timing import machine, timed

MULTIPLY_ADDS = {0: 0, 1: 1, 2: 2}  # per activation, beside the subtraction that any quantizer's rounding has
# (channels in, channels out, kernel, image side, groups) of layers of ResNet-18 and MobileNetV2, at one image
TIMED_LAYERS = {
    "ResNet-18, stage 1": (64, 64, 3, 56, 1),
    "ResNet-18, stage 4": (512, 512, 3, 7, 1),
    "MobileNetV2, depthwise": (144, 144, 3, 56, 144),
    "MobileNetV2, pointwise": (96, 24, 1, 56, 1),
}


def overhead_table(degree: int = 2) -> pd.DataFrame:
    """Return per network and granularity: multiply-adds and parameters of the border, relative to those of the layers.

    "channel" counts a border in front of every layer, "channel, shared" one per tensor however many layers read it
    (which is how the frame here places them), "kernel_pos" one per patch. The first and the last layer have none.
    """
    rows = []
    for name in networks.NETWORKS:
        found = networks.layers(networks.build(name))
        macs, weights = sum(item.macs for item in found), sum(item.weights for item in found)
        for granularity in ("channel", "channel, shared", "kernel_pos"):
            adds, parameters = border_cost(found, granularity, degree)
            rows.append((name, macs / 1e9, granularity, 100 * adds / macs, 100 * parameters / weights))
    return pd.DataFrame(rows, columns=["network", "gmac", "granularity", "multiply_adds_percent", "parameters_percent"])


def border_cost(found: list[Layer], granularity: str, degree: int) -> tuple[int, int]:
    """Return multiply-adds per image and coefficients of the borders in front of `found`, its ends left out."""
    adds = parameters = 0
    seen: set[int] = set()
    for item in found[1:-1]:
        if granularity == "channel, shared" and item.input_key in seen:
            continue
        seen.add(item.input_key)
        per_patch = granularity == "kernel_pos"
        adds += MULTIPLY_ADDS[degree] * (item.patch_elements if per_patch else item.input_elements)
        parameters += (degree + 1) * item.inputs * (item.kernel**2 if per_patch else 1)
    return adds, parameters


def border_times(rounds: int) -> pd.DataFrame:
    """Return the seconds of a plain quantizer, of one with a border, and of the convolution behind it, per layer."""
    rows = []
    for name, shape in TIMED_LAYERS.items():
        for arm, seconds in _times(*shape, rounds=rounds).items():
            rows.append({"layer": name, "arm": arm, "seconds": float(np.median(seconds)), **machine("cpu")})
    return pd.DataFrame(rows)


@torch.no_grad()
def _times(channels: int, outputs: int, kernel: int, side: int, groups: int, rounds: int) -> dict[str, list[float]]:
    x = torch.rand(1, channels, side, side) * 3
    conv = nn.Conv2d(channels, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    plain, degree_1, degree_2, bounded = (ActivationQuantizer(2) for _ in range(4))
    for item, spec in (
        (degree_1, BorderSpec(1, bound="none")), (degree_2, BorderSpec(2, bound="none")), (bounded, BorderSpec(2)),
    ):  # fmt: skip
        item.border = Border(spec, channels)
    for item in (plain, degree_1, degree_2, bounded):
        item.set_grid(torch.tensor(1.0), torch.tensor(0.0))
    actions = {
        "convolution": lambda: F.conv2d(x, conv.weight, padding=conv.padding, groups=groups),
        "nearest": lambda: plain(x),
        "linear border": lambda: degree_1(x),
        "quadratic border": lambda: degree_2(x),
        "quadratic border, bounded": lambda: bounded(x),
    }
    for action in actions.values():
        timed(action, 3, "cpu")  # warm-up
    return {name: timed(action, rounds, "cpu") for name, action in actions.items()}
