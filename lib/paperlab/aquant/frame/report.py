"""What each unit and each quantizer did: losses, flipped roundings, clipping, bits, what becomes of zeros."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from paperlab.aquant.frame.insert import layers_of, quantizers_of
from paperlab.aquant.frame.prefix import in_batches
from paperlab.aquant.quantizer import ActivationQuantizer


@dataclass(frozen=True)
class UnitReport:
    """One unit of one pass over the network; shares are from 0 to 1."""

    unit: str
    sweep: int
    loss_before: float  # rounding to nearest, on the calibration images, input from the quantized prefix
    loss_after: float
    weights_flipped: float  # share of weights that are not rounded to nearest
    activations_flipped: float  # share of activations whose level is not the nearest
    clip_rate: float  # share of activations outside the grid
    zeros_moved: float  # share of channels in which an exact zero does not stay zero
    bits: str  # of every quantizer in the unit


class Watch:
    """Counts, while a unit runs, what its activation quantizers do."""

    def __init__(self, unit: nn.Module) -> None:
        self.elements = self.flipped = self.clipped = 0
        self.unit = unit
        self.hooks = [
            item.register_forward_pre_hook(self._count) for item in quantizers_of(unit).values() if item.enabled
        ]

    def _count(self, quantizer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(quantizer, ActivationQuantizer)
        u = inputs[0] / quantizer.scale
        nearest = u.round().clamp(quantizer.low, quantizer.high)
        self.elements += u.numel()
        self.flipped += int((quantizer.levels(inputs[0]) != nearest).sum())
        self.clipped += int(((u < quantizer.low - 0.5) | (u > quantizer.high + 0.5)).sum())

    def run(self, x: Tensor) -> Tensor:
        """Return the unit's output and stop counting."""
        try:
            return in_batches(self.unit, x)
        finally:
            for hook in self.hooks:
                hook.remove()


def weights_flipped(unit: nn.Module) -> float:
    """Return the share of a unit's weights whose code is not the nearest one."""
    flipped = elements = 0
    for layer in layers_of(unit).values():
        quantizer = layer.weight_quantizer
        if layer.weight is None or quantizer.rounding == "float":
            continue
        nearest = ((layer.weight / quantizer.scale).round() + quantizer.zero_point).clamp(0, quantizer.top)
        flipped += int((layer.codes() != nearest).sum())
        elements += nearest.numel()
    return flipped / max(1, elements)


def zeros_moved(unit: nn.Module) -> float:
    """Return the share of channels with a border in which an exact zero gets another level than zero."""
    moved = channels = 0
    for quantizer in quantizers_of(unit).values():
        if quantizer.border is not None:
            entries = quantizer.border.channels * quantizer.border.positions
            zeros = torch.zeros(1, entries, 1, device=quantizer.scale.device)
            moved += int((quantizer.levels(zeros) != 0).sum())
            channels += entries
    return moved / max(1, channels)


def bits_of(unit: nn.Module) -> str:
    """Return a unit's bits as text: weights of its layers, then its activation quantizers."""
    weights = "/".join(str(layer.weight_quantizer.bits) for layer in layers_of(unit).values())
    return f"W {weights}, A {'/'.join(str(item.bits) for item in quantizers_of(unit).values())}"


def unit_table(reports: list[UnitReport]) -> pd.DataFrame:
    """Return the reports as a table, one row per unit and pass."""
    return pd.DataFrame([asdict(report) for report in reports])


def quantizer_table(network: nn.Module) -> pd.DataFrame:
    """Return one row per quantizer: name, what it quantizes, bits, scale range, border."""
    rows = []
    for name, layer in layers_of(network).items():
        item = layer.weight_quantizer
        rows.append((name, "weight", item.bits, item.scale.min().item(), item.scale.max().item(), ""))
    for name, quantizer in quantizers_of(network).items():
        scale = quantizer.scale.item()
        border = quantizer.border.spec if quantizer.border is not None else None
        text = f"degree {border.degree}, {border.granularity}, {border.bound}" if border else ""
        rows.append((name, "activation", quantizer.bits, scale, scale, text))
    return pd.DataFrame(rows, columns=["name", "tensor", "bits", "scale_min", "scale_max", "border"])
