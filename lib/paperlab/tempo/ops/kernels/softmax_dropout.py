"""Triton kernels around the attention probabilities P: a row of P per program, one pass over memory each.

The mask comes as bytes, as the sign of P, or from Philox: a counter-based generator that maps (seed, element) to a
random word, so that forward and backward agree without a stored mask. Matmuls stay in torch. Storage is fp32, fp16
or bf16, arithmetic fp32.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from paperlab.tempo.ops.bits import unpack
from paperlab.tempo.ops.kernels import LAUNCH_OPTIONS, launches


@triton.jit
def _kept(  # type: ignore[no-untyped-def]
    mask_ptr, offset, inside, p, MODE: tl.constexpr,
):  # fmt: skip
    if MODE == "philox":
        return tl.rand(tl.load(mask_ptr), offset) >= p
    mask = tl.load(mask_ptr + offset, mask=inside, other=0)
    if MODE == "sign":  # the bits of P, read as an integer
        return mask >= 0
    return mask != 0


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    z_ptr, seed_ptr, prob_ptr, dropped_ptr, N, p, scale, BLOCK: tl.constexpr,
):  # fmt: skip
    cols = tl.arange(0, BLOCK)
    inside = cols < N
    offset = tl.program_id(0).to(tl.int64) * N + cols
    z = tl.load(z_ptr + offset, mask=inside, other=float("-inf")).to(tl.float32)
    power = tl.exp(z - tl.max(z, 0))
    prob = power / tl.sum(power, 0)
    kept = _kept(seed_ptr, offset, inside, p, "philox")
    tl.store(prob_ptr + offset, prob, mask=inside)
    tl.store(dropped_ptr + offset, prob * tl.where(kept, scale, 0.0), mask=inside)


@triton.jit
def _apply(  # type: ignore[no-untyped-def]
    prob_ptr, mask_ptr, out_ptr, N, p, scale, MODE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    cols = tl.arange(0, BLOCK)
    inside = cols < N
    offset = tl.program_id(0).to(tl.int64) * N + cols
    prob = tl.abs(tl.load(prob_ptr + offset, mask=inside, other=0.0).to(tl.float32))
    kept = _kept(mask_ptr, offset, inside, p, MODE)
    tl.store(out_ptr + offset, prob * tl.where(kept, scale, 0.0), mask=inside)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    grad_ptr, prob_ptr, mask_ptr, out_ptr, N, p, scale,
    MODE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    cols = tl.arange(0, BLOCK)
    inside = cols < N
    offset = tl.program_id(0).to(tl.int64) * N + cols
    prob = tl.abs(tl.load(prob_ptr + offset, mask=inside, other=0.0).to(tl.float32))
    grad = tl.load(grad_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    if MODE != "none":
        grad *= tl.where(_kept(mask_ptr, offset, inside, p, MODE), scale, 0.0)
    out = prob * (grad - tl.sum(grad * prob, 0))
    tl.store(out_ptr + offset, out, mask=inside)


def _options(x: Tensor) -> dict[str, Any]:
    block = triton.next_power_of_2(x.shape[-1])
    warps = 4 if block <= 1024 else 8 if block <= 4096 else 16
    return {"BLOCK": block, "num_warps": warps, **LAUNCH_OPTIONS}


def _grid(x: Tensor) -> tuple[int]:
    return (x.numel() // x.shape[-1],)


def _scale(p: float) -> float:
    return 1.0 / (1.0 - p) if p < 1.0 else 0.0


def _readable(P: Tensor, mask: Tensor | None, mode: str) -> tuple[Tensor, str]:
    """Give the mask as the kernels read it: the bits of P for "sign", one byte per element for "bit"."""
    if mask is None:
        return P.view(torch.int32 if P.dtype == torch.float32 else torch.int16), mode
    if mode == "philox":
        return mask, mode
    return (unpack(mask, P.shape) if mode == "bit" else mask.contiguous()).view(torch.uint8), "byte"


def forward(scores: Tensor, p: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Give (P, Dp, seed) with both in `dtype`; the seed comes from the torch generator, without waiting for it."""
    scores = scores.contiguous()
    P, Dp = (torch.empty_like(scores, dtype=dtype) for _ in range(2))
    seed = torch.randint(2**63 - 1, (1,), device=scores.device)
    if scores.numel():
        with torch.cuda.device_of(scores):
            _forward[_grid(scores)](scores, seed, P, Dp, scores.shape[-1], p, _scale(p), **_options(scores))
        launches["softmax_dropout_forward"] += 1
    return P, Dp, seed


def dropped(P: Tensor, mask: Tensor | None, p: float, mode: str) -> Tensor:
    """Rebuild Dp from P and what stands for the mask, in a new buffer unless p = 0."""
    if p == 0.0 or not P.numel():
        return P
    P = P.contiguous()
    out = torch.empty_like(P)
    readable, read_as = _readable(P, mask, mode)
    with torch.cuda.device_of(P):
        _apply[_grid(P)](P, readable, out, P.shape[-1], p, _scale(p), read_as, **_options(P))
    launches["dropout_apply"] += 1
    return out


def scores_gradient(dDp: Tensor, P: Tensor, mask: Tensor | None, p: float, mode: str, dtype: torch.dtype) -> Tensor:
    """Turn dDp into dZ in one pass over the rows, over the buffer of dDp where `dtype` is its own."""
    dDp, P = dDp.contiguous(), P.contiguous()
    out = dDp if dDp.dtype == dtype else torch.empty_like(dDp, dtype=dtype)
    if P.numel():
        readable, read_as = (None, "none") if p == 0.0 else _readable(P, mask, mode)
        with torch.cuda.device_of(P):
            _backward[_grid(P)](dDp, P, readable, out, P.shape[-1], p, _scale(p), read_as, **_options(P))
        launches["softmax_dropout_backward"] += 1
    return out
