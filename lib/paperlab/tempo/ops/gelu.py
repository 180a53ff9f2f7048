"""In-place GELU: keep the output, which the next layer keeps anyway, instead of the input.

"In-place" is the paper's name for it, not a mutation. The backward pass needs y and the side of the minimum on
which x was: one byte per element, or one bit when packed. A storage is saved only if nobody else keeps x.
"""

from __future__ import annotations

from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from paperlab.tempo.ops import bits
from paperlab.tempo.ops.gelu_fit import (
    FIT_DTYPES,
    Approximate,
    Evaluator,
    check_options,
    derivative,
    side_threshold,
)
from paperlab.tempo.ops.kernels import Backend, pick_backend

_CHUNK = 1 << 17  # elements; bounds the temporaries of the plain torch backward, a multiple of 8


def inplace_gelu(
    x: Tensor,
    approximate: Approximate = "none",
    *,
    evaluator: Evaluator = "fit",
    packed: bool = False,
    backend: Backend | None = None,
) -> Tensor:
    """Return GELU of `x`, bit-identical to `F.gelu`, and keep the output and one side mask for the backward pass.

    x: any shape, strides and floating dtype; autocast leaves it as it is. approximate: "none" (erf) or "tanh".
    evaluator: how backward computes g' from y; see `gelu_fit`.
    packed: a mask of ceil(numel/8) bytes instead of numel bytes.
    backend: "triton" (fit evaluator, up to 32 bits), "torch", or None for triton where it applies on CUDA.

    Where no gradient is recorded nothing is kept. Double backward raises; so does backward after y was mutated.
    Gradients at x = ±inf are NaN, as in torch. With the tanh form torch's own gradients become NaN from
    |x| of about 1e19 on; here they stay 1 and 0. Under `torch.compile` both passes are custom operators: there is
    no graph break, and the compiler cannot choose to keep x instead.
    Raises ValueError for an unknown option, RuntimeError or TypeError for triton where it cannot run.
    """
    check_options(approximate, evaluator)
    backend = _pick_backend(x, evaluator, backend)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return F.gelu(x, approximate=approximate)
    return _InplaceGELU.apply(x, approximate, evaluator, packed, backend)


class InplaceGELU(nn.Module):
    """Drop-in for `nn.GELU` that keeps its output instead of its input; the arguments are `inplace_gelu`'s."""

    def __init__(self, approximate: Approximate = "none", evaluator: Evaluator = "fit", packed: bool = False) -> None:
        super().__init__()
        check_options(approximate, evaluator)
        self.approximate, self.evaluator, self.packed = approximate, evaluator, packed

    def forward(self, x: Tensor) -> Tensor:
        """Return GELU of `x`, same shape and dtype."""
        return inplace_gelu(x, self.approximate, evaluator=self.evaluator, packed=self.packed)

    def extra_repr(self) -> str:
        """Show the options as `nn.GELU` does."""
        return f"approximate={self.approximate!r}, evaluator={self.evaluator!r}, packed={self.packed}"


class _InplaceGELU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, approximate: Approximate, evaluator: Evaluator, packed: bool, backend: Backend
    ) -> Tensor:
        y, side = _forward(x, approximate, packed, backend)
        ctx.save_for_backward(y, side)
        ctx.options = (approximate, evaluator, backend)  # type: ignore[attr-defined]
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor, None, None, None, None]:
        y, side = ctx.saved_tensors  # type: ignore[attr-defined]
        return _backward(dy, y, side, *ctx.options), None, None, None, None  # type: ignore[attr-defined]


@torch.library.custom_op(
    "paperlab_tempo::gelu_forward",
    mutates_args=(),
    schema="(Tensor x, str approximate, bool packed, str backend) -> (Tensor, Tensor)",
)
def _forward(x: Tensor, approximate: Approximate, packed: bool, backend: Backend) -> tuple[Tensor, Tensor]:
    y = F.gelu(x, approximate=approximate)
    if not packed:
        return y, _side(x, approximate)
    if backend == "triton":
        from paperlab.tempo.ops.kernels import gelu as kernels

        return y, kernels.pack_side(x, approximate)
    return y, bits.pack(_side(x, approximate))


@_forward.register_fake
def _(x: Tensor, approximate: Approximate, packed: bool, backend: Backend) -> tuple[Tensor, Tensor]:
    side = _side(x, approximate)
    if packed:
        side = x.new_empty(bits.packed_bytes(x.numel()), dtype=torch.uint8)
    return F.gelu(x, approximate=approximate), side


@torch.library.custom_op(
    "paperlab_tempo::gelu_backward",
    mutates_args=(),
    schema="(Tensor dy, Tensor y, Tensor side, str approximate, str evaluator, str backend) -> Tensor",
)
def _backward(
    dy: Tensor, y: Tensor, side: Tensor, approximate: Approximate, evaluator: Evaluator, backend: Backend
) -> Tensor:
    if backend == "triton":
        from paperlab.tempo.ops.kernels import gelu as kernels

        return kernels.backward(dy, y, side, approximate)
    dx = torch.empty_like(y, memory_format=torch.contiguous_format)
    flat_dx, flat_dy, flat_y, flat_side = dx.view(-1), dy.reshape(-1), y.reshape(-1), side.reshape(-1)
    for start in range(0, y.numel(), _CHUNK):
        part = slice(start, min(start + _CHUNK, y.numel()))
        if side.dtype == torch.uint8:
            byte_part = slice(start // 8, bits.packed_bytes(part.stop))
            branch = bits.unpack(flat_side[byte_part], part.stop - start)
        else:
            branch = flat_side[part]
        flat_dx[part] = flat_dy[part] * derivative(flat_y[part], branch, approximate, evaluator)
    return dx


@_backward.register_fake
def _(dy: Tensor, y: Tensor, side: Tensor, approximate: Approximate, evaluator: Evaluator, backend: Backend) -> Tensor:
    return torch.empty_like(y, memory_format=torch.contiguous_format)


@_backward.register_autograd
def _(ctx: FunctionCtx, _: Tensor) -> NoReturn:
    # once_differentiable would stay silent where dy itself needs no gradient, and the cause be lost
    raise RuntimeError("in-place GELU can be differentiated only once; use F.gelu where second derivatives are needed")


def _side(x: Tensor, approximate: Approximate) -> Tensor:
    return x >= side_threshold(x.dtype, approximate)


def _pick_backend(x: Tensor, evaluator: Evaluator, backend: Backend | None) -> Backend:
    picked = pick_backend(x, backend)
    if picked == "triton" and not (evaluator == "fit" and x.dtype in FIT_DTYPES):
        if backend == "triton":
            raise TypeError(
                "backend='triton' evaluates the fit on float32, float16 or bfloat16, "
                f"got evaluator={evaluator!r} on {x.dtype}; use backend='torch'"
            )
        return "torch"
    return picked
