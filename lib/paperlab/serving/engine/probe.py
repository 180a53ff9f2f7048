"""A kernel whose programs record the multiprocessor they run on (the %smid register). It has not run on a GPU yet."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from paperlab.serving.engine.kernels import LAUNCH_OPTIONS

_ROUNDS = 20_000  # of arithmetic per program, some tens of microseconds: long enough for programs to spread


@triton.jit
def _probe(where_ptr, noise_ptr, ROUNDS):  # type: ignore[no-untyped-def]
    where = tl.inline_asm_elementwise(
        "mov.u32 $0, %smid;", "=r,r", [tl.program_id(0)], dtype=tl.int32, is_pure=False, pack=1
    )
    noise = where.to(tl.float32)
    for _ in range(ROUNDS):
        noise = noise * 0.999 + 1.0
    tl.store(where_ptr + tl.program_id(0), where)
    tl.store(noise_ptr + tl.program_id(0), noise)  # so that the arithmetic is not left out


def start_probe(stream: Any, programs: int) -> Tensor:
    """Launch `programs` programs on `stream` and return where each will have run, once the stream is synchronized."""
    with torch.cuda.stream(stream):
        where = torch.empty(programs, dtype=torch.int32, device=stream.device)
        noise = torch.empty(programs, dtype=torch.float32, device=stream.device)
        _probe[(programs,)](where, noise, _ROUNDS, num_warps=1, **LAUNCH_OPTIONS)
    return where
