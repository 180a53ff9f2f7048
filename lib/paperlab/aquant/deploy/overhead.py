"""What a border costs by count (§2.6.7 of the re-derivation): additional operations and parameters of whole networks.

A border of degree d is d fused multiply-adds per quantized activation, next to the division, rounding and clipping that
every quantizer has; degree 0 is none, since it folds into the bias before it. With a border per channel it is evaluated
once per activation that a layer reads, with one per kernel position once per entry of its unfolded patches. First and
last layer, whose activations have 8 bits and no border, do not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch

from paperlab.aquant.networks import NETWORKS, Layer, build, layers


def overhead_table(
    names: Sequence[str] = tuple(NETWORKS), degree: int = 2, image: Sequence[int] = (3, 224, 224), classes: int = 1000
) -> pd.DataFrame:
    """Return a row per network and granularity.

    Columns: network, granularity, degree, gmac, fma_per_mac, fma_per_mac_shared (layers that read the same tensor
    share its quantizer, as in `paperlab.aquant`), parameters_per_weight, evidence; all of them shares.
    """
    rows = []
    for name in names:
        with torch.device("meta"):
            found = layers(build(name, classes), image)
        rows += [_row(name, granularity, degree, found) for granularity in ("channel", "kernel_pos")]
    return pd.DataFrame(rows).assign(evidence="analytic")


def _row(name: str, granularity: str, degree: int, found: list[Layer]) -> Mapping[str, object]:
    bordered = found[1:-1]
    by_channel = granularity == "channel"
    macs, weights = sum(layer.macs for layer in found), sum(layer.weights for layer in found)
    evaluated = [layer.input_elements if by_channel else layer.patch_elements for layer in bordered]
    readers = {layer.input_key: elements for layer, elements in zip(bordered, evaluated, strict=True)}
    entries = sum(layer.inputs * (1 if by_channel else layer.kernel**2) for layer in bordered)
    return {
        "network": name,
        "granularity": granularity,
        "degree": degree,
        "gmac": macs / 1e9,
        "fma_per_mac": degree * sum(evaluated) / macs,
        "fma_per_mac_shared": degree * sum(readers.values() if by_channel else evaluated) / macs,
        "parameters_per_weight": (degree + 1) * entries / weights,
    }
