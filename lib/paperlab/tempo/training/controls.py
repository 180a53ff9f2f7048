"""Control arms: wrong backward passes that a comparison of losses must catch, or it proves nothing.

Each leaves the forward pass exactly as it is and slips one plausible mistake into the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from paperlab.tempo.dropin.baselines import Substitute, use_native_dropout
from paperlab.tempo.dropin.encoder import attention_function, register_attention
from paperlab.tempo.dropin.patch import gelu_form
from paperlab.tempo.studies.published import SignSlippedGELU

CLAMP = 1e-2  # magnitude below which the clamping control replaces gamma, as a guard against division by zero


class _RedrawnDropout(torch.autograd.Function):
    """Dropout whose backward pass draws a new mask instead of using the forward pass's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.p = p
        return torch.native_dropout(x, p, True)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # The generator is put back, so that only this mask is wrong and not every later one.
        with torch.random.fork_rng():
            mask = torch.native_dropout(torch.ones_like(gradient), ctx.p, True)[0]
        return gradient * mask, None


def redrawn_dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`F.dropout` in forward, another mask in backward."""
    return _RedrawnDropout.apply(x, p) if training and p > 0 else x


class _ClampedLayerNorm(torch.autograd.Function):
    """LayerNorm from its output that divides by gamma clamped in magnitude: silently wrong where gamma is small."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        y, _, rstd = torch.native_layer_norm(x, x.shape[-1:], weight, bias, eps)
        ctx.save_for_backward(y, rstd, weight, bias)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        y, rstd, weight, bias = ctx.saved_tensors
        gamma = torch.where(weight < 0, -1.0, 1.0) * weight.abs().clamp(min=CLAMP)
        xhat = (y - bias) / gamma
        scaled = dy * weight
        dx = scaled - scaled.mean(-1, keepdim=True) - xhat * (scaled * xhat).mean(-1, keepdim=True)
        rows = tuple(range(dy.dim() - 1))
        return dx * rstd, (dy * xhat).sum(rows), dy.sum(rows), None


class ClampedLayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` with the clamping backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dim of `x`."""
        return _ClampedLayerNorm.apply(x, self.weight, self.bias, self.eps)


def _slip_sign(model: Any) -> None:
    for name, module in list(model.named_modules()):
        form, _ = gelu_form(module)
        if form is not None:
            model.set_submodule(name, SignSlippedGELU(form))


def _redrawn_attention(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    with Substitute({F.dropout: redrawn_dropout}):
        return attention_function("eager", module)(module, *args, **kwargs)


def _redraw_mask(model: Any) -> None:
    register_attention("redrawn_mask", _redrawn_attention)
    model.set_attn_implementation("redrawn_mask")


def _clamp_gamma(model: Any) -> None:
    for module in model.modules():
        if type(module) is nn.LayerNorm:
            module.__class__ = ClampedLayerNorm


def _with_native_dropout(slip: Callable[[Any], None]) -> Callable[[Any], None]:
    def configure(model: Any) -> None:
        use_native_dropout(model)
        slip(model)

    return configure


CONTROLS: dict[str, Callable[[Any], None]] = {
    "control: sign slip in GELU": _with_native_dropout(_slip_sign),
    "control: new dropout mask in backward": _with_native_dropout(_redraw_mask),
    "control: gamma clamped": _with_native_dropout(_clamp_gamma),
}
