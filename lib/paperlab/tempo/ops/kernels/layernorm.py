"""Triton kernels of the in-place LayerNorm: one program per row forward, a block of rows per program backward.

Shapes: M rows, N channels (a row stays in registers), K channels whose x-hat was kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from paperlab.tempo.ops.kernels import LAUNCH_OPTIONS, launches

if TYPE_CHECKING:
    from paperlab.tempo.ops.layernorm import Kept

_PROGRAMS_PER_SM = 4


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    x_ptr, weight_ptr, bias_ptr, y_ptr, mean_ptr, rstd_ptr, N, eps,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    inside = cols < N
    x = tl.load(x_ptr + row * N + cols, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(x, 0) / N
    centered = tl.where(inside, x - mean, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centered * centered, 0) / N + eps)
    y = centered * rstd
    if HAS_WEIGHT:
        y *= tl.load(weight_ptr + cols, mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        y += tl.load(bias_ptr + cols, mask=inside, other=0.0).to(tl.float32)
    tl.store(y_ptr + row * N + cols, y, mask=inside)
    tl.store(mean_ptr + row, mean)
    tl.store(rstd_ptr + row, rstd)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    dy_ptr, y_ptr, rstd_ptr, weight_ptr, bias_ptr, xhat_ptr, slot_ptr, dx_ptr, dgamma_ptr, dbeta_ptr,
    M, N, K, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_LOST: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    inside = cols < N
    gamma = tl.full((BLOCK,), 1.0, tl.float32)
    beta = tl.zeros((BLOCK,), tl.float32)
    if HAS_WEIGHT:
        gamma = tl.load(weight_ptr + cols, mask=inside, other=1.0).to(tl.float32)
    if HAS_BIAS:
        beta = tl.load(bias_ptr + cols, mask=inside, other=0.0).to(tl.float32)
    divisor = gamma
    if HAS_LOST:
        slot = tl.load(slot_ptr + cols, mask=inside, other=-1)
        lost = slot >= 0
        divisor = tl.where(lost, 1.0, gamma)
    inverse = 1.0 / divisor
    dgamma = tl.zeros((BLOCK,), tl.float32)
    dbeta = tl.zeros((BLOCK,), tl.float32)
    for step in range(ROWS):
        row = program * ROWS + step
        live = cols < tl.where(row < M, N, 0)
        dy = tl.load(dy_ptr + row * N + cols, mask=live, other=0.0).to(tl.float32)
        y = tl.load(y_ptr + row * N + cols, mask=live, other=0.0).to(tl.float32)
        rstd = tl.load(rstd_ptr + tl.minimum(row, M - 1))
        scaled = y - beta
        xhat = scaled * inverse
        reduced = scaled
        if HAS_LOST:
            stored = tl.load(xhat_ptr + row * K + slot, mask=lost & live, other=0.0).to(tl.float32)
            xhat = tl.where(lost, stored, xhat)
            scaled = tl.where(lost, gamma * stored, scaled)
            reduced = tl.where(lost, stored, reduced)
        grad = gamma * dy
        c1 = tl.sum(grad, 0) / N
        c2 = tl.sum(dy * scaled, 0) / N
        dx = rstd * (grad - c1 - xhat * c2)
        tl.store(dx_ptr + row * N + cols, dx, mask=live)
        dgamma += dy * reduced
        dbeta += dy
    tl.store(dgamma_ptr + program * N + cols, dgamma, mask=inside)
    tl.store(dbeta_ptr + program * N + cols, dbeta, mask=inside)


def _options(channels: int) -> dict[str, Any]:
    block = triton.next_power_of_2(channels)
    return {"BLOCK": block, "num_warps": 4 if block <= 1024 else 8 if block <= 4096 else 16, **LAUNCH_OPTIONS}


def _program_count(like: Tensor) -> int:
    if not like.is_cuda:  # the interpreter runs programs one after the other
        return 4
    return _PROGRAMS_PER_SM * torch.cuda.get_device_properties(like.device).multi_processor_count


def forward(
    x_MN: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, out_dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize rows with fp32 statistics and emit `out_dtype`: (y_MN, mean_M1, rstd_M1)."""
    rows, channels = x_MN.shape
    x_MN = x_MN.contiguous()
    y_MN = torch.empty_like(x_MN, dtype=out_dtype)
    mean_M1, rstd_M1 = (torch.empty(rows, 1, dtype=torch.float32, device=x_MN.device) for _ in range(2))
    if x_MN.numel():
        has = {"HAS_WEIGHT": weight is not None, "HAS_BIAS": bias is not None}
        with torch.cuda.device_of(x_MN):
            _forward[(rows,)](x_MN, weight, bias, y_MN, mean_M1, rstd_M1, channels, eps, **has, **_options(channels))
        launches["layernorm_forward"] += 1
    return y_MN, mean_M1, rstd_M1


def backward(
    dy_MN: Tensor, kept: Kept, weight: Tensor | None, bias: Tensor | None, dx_dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute (dx, dgamma, dbeta) as `layernorm.backward_from_output` does, in one pass over dy and y.

    Every program sums its block of rows in registers; the partial sums, at most a few per multiprocessor, are
    then added by torch, which keeps the result independent of the order in which programs finish.
    """
    rows, channels = dy_MN.shape
    dy_MN, y_MN, rstd_M1 = dy_MN.contiguous(), kept.y_MN.contiguous(), kept.rstd_M1
    divisor, slot, xhat_MK, columns = weight, None, None, 0
    if kept.lost is not None and weight is not None:
        lost, xhat_MK = kept.lost
        columns = lost.numel()
        divisor = weight.index_fill(0, lost, 1.0)
        slot = torch.full((channels,), -1, dtype=torch.int32, device=dy_MN.device)
        slot[lost] = torch.arange(columns, dtype=torch.int32, device=dy_MN.device)
    # a power of two, since every number of rows is compiled for itself
    block_rows = triton.next_power_of_2(max(triton.cdiv(rows, _program_count(dy_MN)), 1))
    programs = triton.cdiv(rows, block_rows)
    dx_MN = torch.empty_like(dy_MN, dtype=dx_dtype)
    dgamma_PN, dbeta_PN = (rstd_M1.new_empty(programs, channels) for _ in range(2))
    if dy_MN.numel():
        has = {"HAS_WEIGHT": weight is not None, "HAS_BIAS": bias is not None, "HAS_LOST": columns > 0}
        with torch.cuda.device_of(dy_MN):
            _backward[(programs,)](
                dy_MN, y_MN, rstd_M1, weight, bias, xhat_MK, slot, dx_MN, dgamma_PN, dbeta_PN,
                rows, channels, columns, **has, ROWS=block_rows, **_options(channels),
            )  # fmt: skip
        launches["layernorm_backward"] += 1
    dgamma = dgamma_PN.sum(0)
    return dx_MN, dgamma if divisor is None else dgamma / divisor, dbeta_PN.sum(0)
