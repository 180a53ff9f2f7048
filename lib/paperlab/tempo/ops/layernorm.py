"""In-place LayerNorm: backward from the output, so that the input and the mean need not be kept.

Kept are y, one fp32 1/sigma per row and the parameters; y costs nothing where the next Linear keeps it anyway.
Recovering x-hat = (y - beta) / gamma amplifies the rounding of y by |beta / gamma|. Channels where that passes
`max_error`, and channels with gamma = 0, keep their x-hat instead: M * e bytes each, counted in `fallbacks`.
Shapes: M rows, N channels, K of them kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from paperlab.tempo.ops.dispatch import autocast_dtype, no_autocast, promoted_dtype, row_backend
from paperlab.tempo.ops.kernels import Backend
from paperlab.tempo.ops.lost_channels import lost_channels, lost_channels_of_all


class Kept(NamedTuple):
    """What LayerNorm keeps for backward, apart from its parameters."""

    y_MN: Tensor
    rstd_M1: Tensor
    lost: tuple[Tensor, Tensor] | None  # the indices of lost channels, and their x-hat of shape (M, K)


def backward_from_output(
    dy_MN: Tensor, kept: Kept, weight: Tensor | None, bias: Tensor | None, dx_dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute (dx, dgamma, dbeta) from the output alone, the latter two in the dtype of rstd.

    c2 = mean(dy * (y - beta)) needs no division, dgamma one per channel after the reduction.
    """
    y_MN, rstd_M1, lost = kept
    dtype = rstd_M1.dtype
    dy = dy_MN.to(dtype)
    gamma = torch.ones(dy.shape[1], dtype=dtype, device=dy.device) if weight is None else weight.to(dtype)
    scaled = y_MN.to(dtype) if bias is None else y_MN.to(dtype) - bias.to(dtype)
    if lost is not None:
        channels, xhat_MK = lost[0], lost[1].to(dtype)
        scaled = scaled.index_copy(1, channels, gamma[channels] * xhat_MK)
    product = dy * scaled
    c2_M1, dgamma = product.mean(1, keepdim=True), product.sum(0) / gamma
    del product  # so that no more than two buffers of y's size live at a time
    xhat = scaled / gamma
    del scaled
    if lost is not None:
        xhat.index_copy_(1, channels, xhat_MK)
        dgamma[channels] = (dy[:, channels] * xhat_MK).sum(0)
    dx = dy * gamma
    dx.sub_(dx.mean(1, keepdim=True)).sub_(xhat.mul_(c2_M1)).mul_(rstd_M1)
    return dx.to(dx_dtype), dgamma, dy.sum(0)


class _Settings(NamedTuple):
    eps: float
    in_dtype: torch.dtype  # the framework's own LayerNorm runs in this dtype
    out_dtype: torch.dtype
    backend: Backend


def _normalize(
    x_MN: Tensor, weight: Tensor | None, bias: Tensor | None, settings: _Settings
) -> tuple[Tensor, Tensor, Tensor]:
    """Give the framework's output, the mean and 1/sigma; only a *cast* output may come from Triton."""
    eps, in_dtype, out_dtype, backend = settings
    if backend == "triton" and out_dtype != in_dtype:
        from paperlab.tempo.ops.kernels import layernorm as kernels

        return kernels.forward(x_MN, weight, bias, eps, out_dtype)
    if in_dtype != x_MN.dtype:  # autocast
        x_MN = x_MN.to(in_dtype)
        weight, bias = (t if t is None else t.to(in_dtype) for t in (weight, bias))
    y_MN, mean_M1, rstd_M1 = torch.native_layer_norm(x_MN, x_MN.shape[1:], weight, bias, eps)
    stats = torch.promote_types(in_dtype, torch.float32)
    if rstd_M1.dtype != stats:  # the CPU kernel rounds its statistics to bf16
        mean_M1 = x_MN.to(stats).mean(1, keepdim=True)
        rstd_M1 = ((x_MN - mean_M1).square().mean(1, keepdim=True) + eps).rsqrt()
    return y_MN.to(out_dtype), mean_M1, rstd_M1


class _LayerNormFromOutput(torch.autograd.Function):
    """Keep y, 1/sigma and the parameters; compute the gradients from them."""

    @staticmethod
    def forward(
        ctx: Any,
        x_MN: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        lost: Tensor | None,
        settings: _Settings,
    ) -> Tensor:
        y_MN, mean_M1, rstd_M1 = _normalize(x_MN, weight, bias, settings)
        xhat_MK = None
        if lost is not None:
            xhat_MK = ((x_MN[:, lost].to(mean_M1.dtype) - mean_M1) * rstd_M1).to(y_MN.dtype)
        ctx.save_for_backward(y_MN, rstd_M1, lost, xhat_MK, weight, bias)
        ctx.x_dtype, ctx.backend = x_MN.dtype, settings.backend
        return y_MN

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_MN: Tensor) -> tuple[Tensor | None, ...]:
        y_MN, rstd_M1, lost, xhat_MK, weight, bias = ctx.saved_tensors
        kept = Kept(y_MN, rstd_M1, None if lost is None else (lost, xhat_MK))
        compute = backward_from_output
        if ctx.backend == "triton":
            from paperlab.tempo.ops.kernels import layernorm as kernels

            compute = kernels.backward
        dx_MN, dgamma, dbeta = compute(dy_MN, kept, weight, bias, ctx.x_dtype)
        dweight = dgamma.to(weight.dtype) if ctx.needs_input_grad[1] else None
        dbias = dbeta.to(bias.dtype) if ctx.needs_input_grad[2] else None
        return dx_MN, dweight, dbias, None, None


def _layer_norm(
    x: Tensor,
    shape: tuple[int, ...],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    out_dtype: torch.dtype | None,
    find_lost: Callable[[torch.dtype], Tensor | None],
    backend: Backend | None,
) -> Tensor:
    """Flatten to rows and channels and apply the Function, outside of autocast as every cast is explicit."""
    if tuple(x.shape[x.dim() - len(shape) :]) != shape:
        raise ValueError(f"x has shape {tuple(x.shape)}: its trailing dims should be {shape}")
    device = x.device.type
    in_dtype = promoted_dtype(x)
    settings = _Settings(eps, in_dtype, out_dtype or in_dtype, row_backend(x, prod(shape), backend))
    needs_grad = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))
    lost = find_lost(settings.out_dtype) if needs_grad else None
    x_MN = x.reshape(prod(x.shape[: x.dim() - len(shape)]), prod(shape))
    weight_N, bias_N = (t if t is None else t.reshape(-1) for t in (weight, bias))
    with no_autocast(device):
        return _LayerNormFromOutput.apply(x_MN, weight_N, bias_N, lost, settings).view(x.shape)


def inplace_layer_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float = 1e-5,
    *,
    normalized_shape: Sequence[int] | None = None,
    out_dtype: torch.dtype | None = None,
    max_error: float | None = None,
    backend: Backend | None = None,
) -> Tensor:
    """Normalize the trailing dims of `x`, keeping the output for backward.

    Shapes: x (..., *normalized_shape), weight and bias normalized_shape or None; without a weight the shape must
    be given, or is the last dim. The result equals `F.layer_norm` bit for bit, then cast to `out_dtype` if one is
    given; the Triton backend computes a *cast* result itself, to one unit in the last place.
    Under autocast the framework's fp32 output is followed, and as the next Linear keeps its own low-precision
    copy nothing is saved; with `out_dtype` the low-precision tensor is made once and kept by both.
    `lost_channels` tells which channels keep their x-hat. Raises RuntimeError on double backward, and when y or a
    parameter has been changed before backward.
    """
    shape = tuple(weight.shape if weight is not None else normalized_shape or x.shape[-1:])
    find_lost = partial(lost_channels, weight, bias, max_error=max_error)
    return _layer_norm(x, shape, weight, bias, eps, out_dtype, find_lost, backend)


class InplaceLayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` that keeps its output instead of its input; same parameters and state dict.

    low_precision_output: under autocast, return the autocast dtype instead of fp32. Each value equals the
    framework's output, cast; what differs is a residual sum that reads this output: it sees the rounded value and
    is itself rounded to the low precision, where the framework would add in fp32.
    max_error, backend: as in `inplace_layer_norm`. `fallbacks` counts the channels whose x-hat is kept; they are
    found anew when the parameters' version counters move, which writing through `.data` does not do.
    `peers`, the LayerNorms of the same model, are then looked through together, so that a device is waited for once
    per optimizer step instead of once per LayerNorm.
    """

    low_precision_output: bool = True
    max_error: float | None = None
    backend: Backend | None = None
    peers: tuple[InplaceLayerNorm, ...] = ()
    _found: tuple[tuple[Any, ...], Tensor | None] = ((), None)

    @classmethod
    def from_module(
        cls,
        module: nn.LayerNorm,
        *,
        low_precision_output: bool = True,
        max_error: float | None = None,
        backend: Backend | None = None,
    ) -> Self:
        """Make the in-place twin of `module`: the very same Parameters, hooks and mode."""
        if type(module).forward is not nn.LayerNorm.forward:
            raise TypeError(f"{type(module).__name__} has a forward of its own: pass a plain nn.LayerNorm")
        twin = cls.__new__(cls)
        twin.__dict__.update(module.__dict__)
        twin.low_precision_output, twin.max_error, twin.backend = low_precision_output, max_error, backend
        return twin

    @property
    def fallbacks(self) -> int:
        """Count the channels whose x-hat was kept at the last forward with gradients."""
        lost = self._found[1]
        return 0 if lost is None else lost.numel()

    def _key(self, dtype: torch.dtype) -> tuple[Any, ...]:
        parameters = [p for p in (self.weight, self.bias) if p is not None]
        return (dtype, self.max_error, *((p._version, p.data_ptr()) for p in parameters))

    def _shares_check(self, other: InplaceLayerNorm, dtype: torch.dtype) -> bool:
        """Whether `other` is stale too and asks the same question, of parameters on the same device."""
        if self.weight is None or other.weight is None or other.weight.device != self.weight.device:
            return False
        before = other._found[0]
        stale = before != other._key(dtype) and before[:1] in ((), (dtype,))
        return stale and other.max_error == self.max_error

    @torch.compiler.disable
    def _find_lost(self, dtype: torch.dtype) -> Tensor | None:
        """Look up the lost channels; after an optimizer step the first to ask refreshes all `peers`, at one wait."""
        if self._found[0] != self._key(dtype):
            norms = [self, *(peer for peer in self.peers if peer is not self and self._shares_check(peer, dtype))]
            found = lost_channels_of_all([(norm.weight, norm.bias) for norm in norms], dtype, self.max_error)
            for norm, lost in zip(norms, found, strict=True):
                norm._found = (norm._key(dtype), lost)
        return self._found[1]

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the trailing dims of `x`; under autocast emit the low precision if so set."""
        emits = self.low_precision_output and x.dtype != torch.float64  # which autocast leaves alone
        out_dtype = autocast_dtype(x.device.type) if emits else None
        shape = tuple(self.normalized_shape)
        return _layer_norm(x, shape, self.weight, self.bias, self.eps, out_dtype, self._find_lost, self.backend)
