"""Boolean masks at one bit per element: element 8i + k is bit k of byte i (own layout, as numpy's "little")."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def packed_bytes(numel: int) -> int:
    """Return the bytes that a packed mask of `numel` elements takes: ceil(numel/8)."""
    return -(-numel // 8)


def pack(mask: Tensor) -> Tensor:
    """Pack a bool tensor of any shape, in row-major order, into uint8 of shape (ceil(numel/8),).

    The unused bits of the last byte are 0. Raises TypeError for a mask that is not bool.
    """
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be torch.bool, got {mask.dtype}")
    padded = F.pad(mask.reshape(-1).to(torch.uint8), (0, -mask.numel() % 8))
    return (padded.view(-1, 8) << _shifts(mask)).sum(dim=1, dtype=torch.uint8)


def unpack(packed: Tensor, shape: int | Sequence[int]) -> Tensor:
    """Return the bool mask of the given shape (or number of elements); the inverse of `pack`.

    Raises ValueError where `packed` does not have ceil(numel/8) bytes.
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    numel = math.prod(shape)
    if packed.dtype != torch.uint8 or packed.shape != (packed_bytes(numel),):
        raise ValueError(
            f"packed must be uint8 of shape ({packed_bytes(numel)},) for a mask of shape {shape}, "
            f"got {packed.dtype} of shape {tuple(packed.shape)}"
        )
    bits = (packed.unsqueeze(1) >> _shifts(packed)) & 1
    return bits.view(-1)[:numel].bool().view(shape)


def _shifts(like: Tensor) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=like.device)
