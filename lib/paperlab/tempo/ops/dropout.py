"""Dropout of the attention probabilities P: what is kept for its mask, and the steps of backward.

Mask modes: "byte" is the paper's; "bit", "sign" (-P is kept where P was dropped) and "philox" (a seed) are ours.
In backward P and mask are what `encode` has made of them; `kernels.softmax_dropout` has the same steps in Triton.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from paperlab.tempo.ops.bits import pack, unpack

MaskMode = Literal["byte", "bit", "sign", "philox"]


def drop(P: Tensor, p: float, mode: MaskMode) -> tuple[Tensor, Tensor, Tensor | None]:
    """Drop out entries of P: (Dp, mask, seed); all modes but "philox" draw the very pattern of `F.dropout`."""
    if mode == "philox":
        seed = torch.randint(2**63 - 1, (1,), device=P.device)
        mask = _seeded_mask(P, seed, p)
        return _scale_kept(P, mask, p), mask, seed
    if p == 1.0:  # F.dropout leaves the generator alone here, native_dropout on CPU does not
        return P * 0.0, torch.zeros_like(P, dtype=torch.bool), None
    Dp, mask = torch.native_dropout(P, p, True)
    return Dp, mask.bool(), None  # the mask of an empty P is not boolean


def encode(P: Tensor, mask: Tensor, seed: Tensor | None, mode: MaskMode) -> tuple[Tensor, Tensor | None]:
    """Put P and the boolean mask into the form that is kept."""
    if mode == "sign":
        return torch.where(mask, P, -P), None
    if mode == "bit":
        return P, pack(mask)
    return P, mask if seed is None else seed


def dropped(P: Tensor, mask: Tensor | None, p: float, mode: MaskMode) -> Tensor:
    """Rebuild Dp, in a new buffer unless p = 0."""
    return P if p == 0.0 else _scale_kept(*_decode(P, mask, p, mode), p)


def scores_gradient(
    dDp: Tensor, P: Tensor, mask: Tensor | None, p: float, mode: MaskMode, dtype: torch.dtype
) -> Tensor:
    """Turn dDp, which is overwritten, into dZ = P * (dP - sum_row(dP * P)) with dP = dDp * mask / (1 - p)."""
    if p > 0.0:
        P, boolean = _decode(P, mask, p, mode)
        _scale_kept(dDp, boolean, p, out=dDp)
    return torch._softmax_backward_data(dDp, P, -1, P.dtype).to(dtype)


def _decode(P: Tensor, mask: Tensor | None, p: float, mode: MaskMode) -> tuple[Tensor, Tensor]:
    if mask is None:
        return P.abs(), ~P.signbit()
    if mode == "bit":
        return P, unpack(mask, P.shape)
    return P, _seeded_mask(P, mask, p) if mode == "philox" else mask


@torch.compiler.disable  # generators cannot be traced: the torch path of "philox" breaks the graph here
def _seeded_mask(like: Tensor, seed: Tensor, p: float) -> Tensor:
    mask = torch.empty_like(like, dtype=torch.bool)
    if like.is_meta:
        return mask
    return mask.bernoulli_(1.0 - p, generator=torch.Generator(like.device).manual_seed(int(seed)))


def _scale_kept(x: Tensor, mask: Tensor, p: float, out: Tensor | None = None) -> Tensor:
    """Give x * mask / (1 - p), rounded as the framework's dropout does on x's device.

    Its CPU kernel rounds 1 / (1 - p) to x's dtype first, its CUDA kernel multiplies in fp32.
    """
    scale = 1.0 / (1.0 - p) if p < 1.0 else 0.0
    if x.is_cuda:
        return torch.mul(x, mask, out=out).mul_(scale)
    noise = mask.to(x.dtype).mul_(scale)
    return torch.mul(noise, x, out=noise if out is None else out)
