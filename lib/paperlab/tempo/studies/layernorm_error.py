"""How the gradients of LayerNorm suffer when x-hat is recovered from a rounded output."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from paperlab.tempo.ops.layernorm import Kept, backward_from_output
from paperlab.tempo.ops.lost_channels import lost_channels

GRID = ((1.0, 0.0), (1.0, 10.0), (1e-2, 0.0), (1e-2, 1.0), (1e-3, 1.0), (1e-4, 1.0))
ARMS = ("per-channel fallback", "no fallback", "clamped gamma")
CLAMP = 1e-5
"""Magnitude to which the clamped arm, after apex's memory-efficient mode, raises gamma in the division."""


def _case(gamma: float, beta: float, zero: bool, rows: int, channels: int, seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    x, dy = (torch.randn(rows, channels, dtype=torch.float64, generator=generator) for _ in range(2))
    weight, bias = (torch.full((channels,), value, dtype=torch.float64) for value in (gamma, beta))
    if zero:
        weight[channels // 2] = 0.0
    return x, dy, weight, bias


def _clamped(dy: Tensor, kept: Kept, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    sign = torch.where(weight < 0, -1.0, 1.0)
    xhat = (kept.y_MN.float() - bias.float()) / (sign * weight.abs().clamp(min=CLAMP)).float()
    grad = dy.float() * weight.float()
    c1, c2 = grad.mean(1, keepdim=True), (grad * xhat).mean(1, keepdim=True)
    return kept.rstd_M1 * (grad - c1 - xhat * c2), (dy.float() * xhat).sum(0)


def _gradients(arm: str, dtype: torch.dtype, x: Tensor, dy: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    """Compute (dx, dgamma) with fp32 arithmetic from an output whose only fault is its rounding to `dtype`."""
    y, mean, rstd = torch.native_layer_norm(x, x.shape[1:], weight, bias, 1e-5)
    lost = lost_channels(weight, bias, dtype) if arm == ARMS[0] else None
    columns = None if lost is None else (lost, ((x - mean) * rstd)[:, lost].to(dtype))
    kept = Kept(y.to(dtype), rstd.float(), columns)
    if arm == "clamped gamma":
        return _clamped(dy, kept, weight, bias)
    return backward_from_output(dy, kept, weight, bias, torch.float32)[:2]


def _reference(x: Tensor, dy: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
    y = torch.nn.functional.layer_norm(leaves[0], x.shape[1:], leaves[1], bias, 1e-5)
    return torch.autograd.grad(y, leaves, dy)


def error_table(
    rows: int = 4096,
    channels: int = 1024,
    seed: int = 0,
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.bfloat16, torch.float16),
) -> pd.DataFrame:
    """Tabulate the relative L2 errors of dgamma and dx against fp64.

    x and dy are standard normal, gamma and beta constant; the last case has gamma = 1 with one channel at zero.
    Columns: dtype, gamma, beta, one_gamma_zero, arm, quantity, relative_l2, kept_channels. Without fallback the
    last case gives NaN, as 0 / 0 should; clamping hides it.
    """
    records = []
    for gamma, beta, zero in [(*case, False) for case in GRID] + [(1.0, 0.0, True)]:
        case = _case(gamma, beta, zero, rows, channels, seed)
        true = _reference(*case)
        for dtype in dtypes:
            lost = lost_channels(case[2], case[3], dtype)
            for arm in ARMS:
                common = {
                    "dtype": str(dtype)[6:],
                    "gamma": gamma,
                    "beta": beta,
                    "one_gamma_zero": zero,
                    "arm": arm,
                }
                common["kept_channels"] = lost.numel() if arm == ARMS[0] and lost is not None else 0
                for quantity, value, exact in zip(("dx", "dgamma"), _gradients(arm, dtype, *case), true, strict=True):
                    error = ((value.double() - exact).norm() / exact.norm()).item()
                    records.append(common | {"quantity": quantity, "relative_l2": error})
    return pd.DataFrame(records)
