"""Which channels of a LayerNorm cannot be recovered from its output, so that their x-hat has to be kept."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

# Largest error of x-hat (which has unit variance) accepted before a channel is kept. These admit |beta / gamma|
# up to about 9000, 170, 8 and 5: far from a fresh model, near the dead channels of a trained one.
MAX_ERROR = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}


def lost_channels(
    weight: Tensor | None, bias: Tensor | None, dtype: torch.dtype, max_error: float | None = None
) -> Tensor | None:
    """List the channels whose x-hat cannot be recovered from an output stored in `dtype` (own derivation).

    Rounding y costs x-hat at most u * (|beta| + tiny) / |gamma|, with u the unit roundoff and tiny the smallest
    normal number, below which rounding is absolute. Returns flat int64 indices, None where every channel is safe.
    """
    return lost_channels_of_all([(weight, bias)], dtype, max_error)[0]


@torch.compiler.disable  # reads the parameters' values: under torch.compile the graph breaks here
def lost_channels_of_all(
    parameters: Sequence[tuple[Tensor | None, Tensor | None]], dtype: torch.dtype, max_error: float | None = None
) -> list[Tensor | None]:
    """Give `lost_channels` of several LayerNorms on one device, (weight, bias) each, waiting for the device once."""
    found: list[Tensor | None] = [None] * len(parameters)
    scaled = [(i, w, b) for i, (w, b) in enumerate(parameters) if w is not None and not w.is_meta]
    if not scaled:
        return found
    info = torch.finfo(dtype)
    limit = MAX_ERROR[dtype] if max_error is None else max_error
    gamma = torch.cat([w.detach().flatten() for _, w, _ in scaled]).double().abs()
    beta = torch.cat([(torch.zeros_like(w) if b is None else b.detach()).flatten() for _, w, b in scaled])
    offset = info.smallest_normal + beta.double().abs()
    lost = (info.eps / 2 * offset >= limit * gamma).nonzero().flatten()  # waits for the device
    if lost.numel():
        ends = list(accumulate(w.numel() for _, w, _ in scaled))
        for (index, weight, _), end in zip(scaled, ends, strict=True):
            start = end - weight.numel()
            mine = lost[(lost >= start) & (lost < end)] - start
            found[index] = mine if mine.numel() else None
    return found
