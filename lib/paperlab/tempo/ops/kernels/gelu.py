"""Triton kernels of in-place GELU: the packed side mask and the fused backward.

The forward value is left to torch's own GELU. A Triton kernel would use another erf and other contractions into
fused multiply-adds than torch's CUDA kernel, and nobody promises that the bits agree; so the forward is
bit-identical by construction, and the price is that x is read once more for the mask. The mask of one byte per
element needs no kernel: it is torch's own comparison.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from paperlab.tempo.ops.bits import packed_bytes
from paperlab.tempo.ops.gelu_fit import (
    FIT_DTYPES,
    FIT_SATURATION_Y,
    Approximate,
    fit_pieces,
    minimum,
    side_threshold,
)
from paperlab.tempo.ops.kernels import LAUNCH_OPTIONS, interpreted, launches


@triton.jit
def _pack_side_kernel(  # type: ignore[no-untyped-def]
    x_ptr, packed_ptr, numel, THRESHOLD: tl.constexpr, BYTES: tl.constexpr
):
    byte = tl.program_id(0).to(tl.int64) * BYTES + tl.arange(0, BYTES)
    bit = tl.arange(0, 8)
    element = byte[:, None] * 8 + bit[None, :]
    x = tl.load(x_ptr + element, mask=element < numel, other=float("-inf")).to(tl.float32)
    packed = tl.sum((x >= THRESHOLD).to(tl.int32) << bit[None, :], axis=1)
    tl.store(packed_ptr + byte, packed.to(tl.uint8), mask=byte * 8 < numel)


@triton.jit
def _backward_kernel(  # type: ignore[no-untyped-def]
    dy_ptr,
    y_ptr,
    side_ptr,
    dx_ptr,
    numel,
    TAIL: tl.constexpr,  # each piece: (low, high, scale, shift, coefficients), lowest power first
    MIDDLE: tl.constexpr,
    UPPER: tl.constexpr,
    Y_MIN: tl.constexpr,  # y* in float32, and what float32 leaves of it
    Y_RESIDUAL: tl.constexpr,
    LOG2_Y_MIN: tl.constexpr,
    SATURATION: tl.constexpr,
    DEGREE: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offset < numel
    y = tl.load(y_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    if PACKED:
        byte = tl.load(side_ptr + offset // 8, mask=inside, other=0).to(tl.int32)
        side = ((byte >> (offset % 8).to(tl.int32)) & 1) != 0
    else:
        side = tl.load(side_ptr + offset, mask=inside, other=0) != 0

    distance = tl.sqrt(tl.maximum((y - Y_MIN) - Y_RESIDUAL, 0.0))
    sigma = tl.where(side, distance, -distance)
    # the limits are for elements of other pieces; triton 3.6 would take a constant below 1.2e-38 for a float64
    drop = tl.maximum(LOG2_Y_MIN - tl.log2(tl.maximum(-y, 1e-37)), 0.0)
    w = tl.sqrt(0.6931471805599453 * drop)
    below = sigma < MIDDLE[0]
    above = sigma >= MIDDLE[1]
    t = tl.where(above, sigma * UPPER[2] + UPPER[3], sigma * MIDDLE[2] + MIDDLE[3])
    t = tl.minimum(tl.where(below, w * TAIL[2] + TAIL[3], t), 1.0)
    slope = tl.where(below, TAIL[4][DEGREE], tl.where(above, UPPER[4][DEGREE], MIDDLE[4][DEGREE]))
    for k in tl.static_range(DEGREE):
        upper = tl.where(above, UPPER[4][DEGREE - 1 - k], MIDDLE[4][DEGREE - 1 - k])
        slope = slope * t + tl.where(below, TAIL[4][DEGREE - 1 - k], upper)
    slope = tl.where(y > SATURATION, 1.0, tl.where(below & (w >= TAIL[1]), 0.0, slope))
    slope = tl.where(tl.abs(y) < float("inf"), slope, float("nan"))

    dy = tl.load(dy_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    tl.store(dx_ptr + offset, (dy * slope).to(dx_ptr.dtype.element_ty), mask=inside)


def pack_side(x: Tensor, approximate: Approximate = "none", block: int | None = None) -> Tensor:
    """Return the side mask x >= x* of `x`, packed as `bits.pack` does: uint8 of shape (ceil(numel/8),).

    x: float32, float16 or bfloat16, any shape. block: elements per program, a power of two of at least 8.
    """
    _check_dtype(x)
    x = x.contiguous()
    packed = torch.empty(packed_bytes(x.numel()), dtype=torch.uint8, device=x.device)
    if x.numel():
        block = block or _default_block()
        with torch.cuda.device_of(x):
            _pack_side_kernel[(triton.cdiv(x.numel(), block),)](
                x, packed, x.numel(), side_threshold(x.dtype, approximate), block // 8, **LAUNCH_OPTIONS
            )
        launches["gelu_pack_side"] += 1
    return packed


def backward(
    dy: Tensor, y: Tensor, side: Tensor, approximate: Approximate = "none", block: int | None = None
) -> Tensor:
    """Return dx = dy·D(y, side) with the `fit` evaluator in float32, in the dtype of `y`.

    dy, y: same shape; y float32, float16 or bfloat16. side: bool of that shape, or packed uint8 of ceil(numel/8)
    bytes. block: elements per program, a power of two.
    """
    _check_dtype(y)
    dy, y, side = dy.contiguous(), y.contiguous(), side.contiguous()
    dx = torch.empty_like(y)
    if y.numel():
        block = block or _default_block()
        with torch.cuda.device_of(y):
            _backward_kernel[(triton.cdiv(y.numel(), block),)](
                dy, y, side, dx, y.numel(), **_fit_constants(approximate),
                PACKED=side.dtype == torch.uint8, BLOCK=block, **LAUNCH_OPTIONS,
            )  # fmt: skip
        launches["gelu_backward"] += 1
    return dx


def _fit_constants(approximate: Approximate) -> dict[str, object]:
    tail, middle, upper = (
        (piece.low, piece.high, piece.scale, piece.shift, piece.coefficients) for piece in fit_pieces(approximate)
    )
    least = minimum(approximate)
    return {
        "TAIL": tail,
        "MIDDLE": middle,
        "UPPER": upper,
        "Y_MIN": least.y - least.y_residual,
        "Y_RESIDUAL": least.y_residual,
        "LOG2_Y_MIN": math.log2(-least.y),
        "SATURATION": FIT_SATURATION_Y,
        "DEGREE": len(tail[-1]) - 1,
    }


def _default_block() -> int:
    return 1 << 16 if interpreted() else 1024  # the interpreter pays per program, not per element


def _check_dtype(tensor: Tensor) -> None:
    if tensor.dtype not in FIT_DTYPES:
        raise TypeError(f"Triton GELU kernels take float32, float16 or bfloat16, got {tensor.dtype}")
