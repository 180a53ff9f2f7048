"""In which dtype, and by which kernels, a row-wise operator runs: ambient autocast and the choice of backend."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from paperlab.tempo.ops.kernels import Backend, pick_backend

MAX_TRITON_ROW = 16384
"""Rows up to this long stay in the registers of a Triton program."""


def row_backend(x: Tensor, row: int, backend: Backend | None) -> Backend:
    """Choose the backend for rows of `row` elements; `pick_backend` refuses what cannot run.

    Plain torch takes longer rows, fp64, and, unless Triton is asked for, code under torch.compile, which generates
    its own fused kernels.
    """
    chosen = pick_backend(x, backend)
    traced = backend is None and torch.compiler.is_compiling()
    return "torch" if row > MAX_TRITON_ROW or x.dtype == torch.float64 or traced else chosen


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """Give the low precision that autocast is casting to on `device_type`, or None where it is off."""
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return None


def promoted_dtype(x: Tensor) -> torch.dtype:
    """Give the dtype in which LayerNorm and softmax run on `x`: autocast makes it fp32, except on the CPU."""
    untouched = autocast_dtype(x.device.type) is None or x.device.type == "cpu" or x.dtype == torch.float64
    return x.dtype if untouched else torch.float32


def no_autocast(device_type: str) -> AbstractContextManager:
    """Run a block without autocast on `device_type`, where every cast is written out."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()
