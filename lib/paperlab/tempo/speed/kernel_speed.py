"""Time of each operator alone, forward and backward, beside a plain copy of the same number of bytes.

GELU, LayerNorm and softmax with dropout are bound by memory traffic, so the yardstick is the time in which the
device copies the least bytes the operator must move: every input read once, every output written once. Before each
run a buffer larger than any cache is written, which on a GPU also gives the host time to launch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperlab.lab import timing
from paperlab.tempo.ops import dropout
from paperlab.tempo.ops.gelu import inplace_gelu
from paperlab.tempo.ops.kernels import Backend, available
from paperlab.tempo.ops.layernorm import InplaceLayerNorm

FLUSH_BYTES = {"cuda": 2**30, "cpu": 2**26}
DROPOUT = 0.1


@dataclass(frozen=True)
class Sizes:
    """Sizes of one encoder layer; the defaults are BERT-Large's at B = 32, S = 512."""

    batch: int = 32
    seq: int = 512
    hidden: int = 1024
    heads: int = 16

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be positive")


@dataclass(frozen=True)
class Case:
    """One operator in one implementation, the tensors it must move once, and what prepares a run."""

    operator: str
    implementation: str
    run: Callable[[], Any]
    moved: tuple[Tensor, ...]
    before: Callable[[], Any] = lambda: None

    @property
    def moved_bytes(self) -> int:
        """Least memory traffic: every tensor read or written once."""
        return sum(tensor.nbytes for tensor in self.moved)


def _backends(device: str) -> tuple[Backend, ...]:
    return ("torch", "triton") if device == "cuda" and available() else ("torch",)


def _both_ways(
    name: str, implementation: str, forward: Callable[[Tensor], Tensor], x: Tensor, kept: tuple[Tensor, ...] = ()
) -> Iterator[Case]:
    """Yield both passes of an operator; `kept` is what it keeps beside its input (torch) or output (Tempo)."""
    x = x.detach().requires_grad_()
    y = forward(x)
    dy = torch.randn_like(y)
    yield Case(f"{name} forward", implementation, lambda: forward(x), (x, y, *kept))
    backward = partial(torch.autograd.grad, y, x, dy, retain_graph=True)
    yield Case(f"{name} backward", implementation, backward, (dy, x if implementation == "torch" else y, *kept, x))


def gelu_cases(x: Tensor) -> Iterator[Case]:
    """GELU; Tempo also writes, and reads again, the side mask of one byte or one bit per element."""
    yield from _both_ways("GELU", "torch", F.gelu, x)
    for backend in _backends(x.device.type):
        for packed, label in ((False, "byte mask"), (True, "bit mask")):
            side = torch.empty(-(-x.numel() // 8) if packed else x.numel(), dtype=torch.uint8, device=x.device)
            forward = partial(inplace_gelu, packed=packed, backend=backend)
            yield from _both_ways("GELU", f"Tempo, {backend}, {label}", forward, x, (side,))


def layernorm_cases(x: Tensor) -> Iterator[Case]:
    """LayerNorm over the last dim; with fp32 input also the output cast to bf16, which autocast makes."""
    norm = nn.LayerNorm(x.shape[-1], device=x.device, dtype=x.dtype)
    norms = {"torch": norm} | {
        f"Tempo, {backend}": InplaceLayerNorm.from_module(norm, backend=backend) for backend in _backends(x.device.type)
    }
    for implementation, module in norms.items():
        yield from _both_ways("LayerNorm", implementation, module, x)
        if x.dtype == torch.float32:
            yield from _both_ways("LayerNorm, cast to bf16", implementation, partial(_under_autocast, module), x)


def _under_autocast(module: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, torch.bfloat16):
        return module(x).to(torch.bfloat16)


def softmax_dropout_cases(scores: Tensor) -> Iterator[Case]:
    """Softmax with dropout; Tempo keeps no dropout output and so has to rebuild it in backward."""

    def plain(z: Tensor) -> Tensor:
        return torch.native_dropout(z.softmax(-1), DROPOUT, True)[0]

    P = scores.softmax(-1)
    Dp, mask, _ = dropout.drop(P, DROPOUT, "byte")
    forward, backward = _both_ways("softmax-dropout", "torch", plain, scores, (mask,))
    yield Case(forward.operator, "torch", forward.run, (*forward.moved, P))
    yield backward
    gradient = torch.randn_like(P)
    buffer = torch.empty_like(P)
    for backend in _backends(scores.device.type):
        operations: Any = dropout
        if backend == "triton":
            from paperlab.tempo.ops.kernels import softmax_dropout as operations
        rebuild = partial(operations.dropped, P, mask, DROPOUT, "byte")
        yield Case("dropout rebuilt", f"Tempo, {backend}", rebuild, (P, mask, Dp))
        slope = partial(operations.scores_gradient, buffer, P, mask, DROPOUT, "byte", P.dtype)
        refill = partial(buffer.copy_, gradient)  # the operator overwrites its gradient
        yield Case("softmax-dropout backward", f"Tempo, {backend}", slope, (buffer, P, mask, P), refill)


def kernel_table(
    sizes: Sizes | None = None, dtype: torch.dtype = torch.float32, repeats: int = 20, device: str | None = None
) -> pd.DataFrame:
    """Time every operator in every implementation that runs here, in `dtype`.

    Columns: operator, implementation, dtype, moved_bytes, time_s (median, with quartiles), copy_s (a plain copy of
    as many bytes, its read and write both counted), over_copy, and the fraction of the datasheet's bandwidth.
    """
    sizes, device = sizes or Sizes(), device or timing.default_device()
    random = partial(torch.randn, dtype=dtype, device=device)
    rows = [
        _row(case, dtype, repeats, device)
        for make, shape in (
            (gelu_cases, (sizes.batch, sizes.seq, 4 * sizes.hidden)),
            (layernorm_cases, (sizes.batch, sizes.seq, sizes.hidden)),
            (softmax_dropout_cases, (sizes.batch, sizes.heads, sizes.seq, sizes.seq)),
        )
        for case in make(random(shape))
    ]
    return pd.DataFrame(rows)


def _row(case: Case, dtype: torch.dtype, repeats: int, device: str) -> dict[str, Any]:
    source = torch.randn(case.moved_bytes // 8, device=device)  # half of the bytes, read once and written once
    target = torch.empty_like(source)
    flush = torch.empty(FLUSH_BYTES[device], dtype=torch.int8, device=device)

    def prepare() -> None:
        case.before()
        flush.zero_()

    def times_s(action: Callable[[], Any]) -> np.ndarray:
        timing.timed(action, 3, device, prepare)  # compiles kernels and fills the allocator's pool
        return np.quantile(timing.timed(action, repeats, device, prepare), [0.25, 0.5, 0.75])

    low_s, time_s, high_s = times_s(case.run)
    copy_s = times_s(lambda: target.copy_(source))[1]
    ceiling = timing.roofline(device, "fp32")
    bound_s = float(ceiling.memory_s(case.moved_bytes)) if ceiling else np.nan
    return {
        "operator": case.operator,
        "implementation": case.implementation,
        "dtype": str(dtype).removeprefix("torch."),
        "moved_bytes": case.moved_bytes,
        "time_s": time_s,
        "time_s_low": low_s,
        "time_s_high": high_s,
        "copy_s": copy_s,
        "over_copy": time_s / copy_s,
        "bound_s": bound_s,
        "fraction_of_bound": bound_s / time_s,
        **timing.machine(device),
    }
