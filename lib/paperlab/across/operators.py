"""Tempo's in-place LayerNorm as one node of the tape, as its fused GPU kernels are, with shape rules for traces.

Tempo's own module runs the same two steps as a chain of torch operators on the CPU; a trace of that chain would count
intermediates that no fused kernel keeps. Its in-place GELU is one operator already.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from paperlab.tempo.ops.layernorm import Kept, backward_from_output


@torch.library.custom_op("paperlab_across::tempo_layer_norm", mutates_args=())
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return LayerNorm of `x` (... N) over its last dimension, and 1/sigma of its M rows as M 1 in fp32.

    The backward pass keeps the output, 1/sigma and the parameters, and not `x`.
    """
    y, _, rstd = torch.native_layer_norm(x, x.shape[-1:], weight, bias, eps)
    if rstd.dtype != torch.float32 and x.dtype != torch.float64:  # the CPU's kernel rounds them to the type of x
        wide = x.float()
        rstd = ((wide - wide.mean(-1, keepdim=True)).square().mean(-1, keepdim=True) + eps).rsqrt()
    return y, rstd.reshape(-1, 1)


@layer_norm.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    rows = x.numel() // x.shape[-1]
    return torch.empty_like(x), x.new_empty((rows, 1), dtype=torch.promote_types(x.dtype, torch.float32))


@torch.library.custom_op("paperlab_across::tempo_layer_norm_backward", mutates_args=())
def layer_norm_backward(
    dy: Tensor, y: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias from the output alone: Tempo's own steps."""
    width = y.shape[-1]
    kept = Kept(y.reshape(-1, width), rstd, None)
    dx, dweight, dbias = backward_from_output(dy.reshape(-1, width), kept, weight, bias, y.dtype)
    return dx.view(y.shape), dweight.to(weight.dtype), dbias.to(bias.dtype)


@layer_norm_backward.register_fake
def _(dy: Tensor, y: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(y), torch.empty_like(weight), torch.empty_like(bias)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    _, weight, bias, _ = inputs
    ctx.save_for_backward(*output, weight, bias)


def _backward(ctx: Any, dy: Tensor, _: Any) -> tuple[Tensor, Tensor, Tensor, None]:
    return (*layer_norm_backward(dy, *ctx.saved_tensors), None)


layer_norm.register_autograd(_backward, setup_context=_keep)
