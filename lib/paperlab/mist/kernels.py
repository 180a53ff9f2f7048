"""Fused operators of the training blocks, each one node of the tape, so that traces and runs keep the same tensors.

A fused GPU kernel keeps no intermediates; written as a chain of torch operators it would. These custom operators
run on any device, have shape rules for traces without data, and save only what their fused counterparts save.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.library.custom_op("mist::causal_softmax", mutates_args=())
def causal_softmax(scores: Tensor) -> Tensor:
    """Return the softmax of N S T `scores` over T, where query i sees the keys up to T − S + i."""
    queries, keys = scores.shape[-2:]
    hidden = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).triu(1 + keys - queries)
    return scores.masked_fill(hidden, -math.inf).softmax(-1)


@causal_softmax.register_fake
def _(scores: Tensor) -> Tensor:
    return torch.empty_like(scores)


@torch.library.custom_op("mist::causal_softmax_backward", mutates_args=())
def causal_softmax_backward(grad: Tensor, probabilities: Tensor) -> Tensor:
    """Return the gradient of the scores; where the mask hid a score its probability is 0, and so is this."""
    return torch.ops.aten._softmax_backward_data(grad, probabilities, -1, probabilities.dtype)


@causal_softmax_backward.register_fake
def _(grad: Tensor, probabilities: Tensor) -> Tensor:
    return torch.empty_like(probabilities)


def _save_probabilities(ctx: Any, inputs: Any, output: Tensor) -> None:
    ctx.save_for_backward(output)


causal_softmax.register_autograd(
    lambda ctx, grad: causal_softmax_backward(grad, ctx.saved_tensors[0]), setup_context=_save_probabilities
)


@torch.library.custom_op("mist::rms_norm", mutates_args=())
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return x / rms(x) · weight over the last dimension, and 1 / rms(x) in fp32."""
    wide = x.float()
    rstd = (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
    return (wide * rstd).to(x.dtype) * weight, rstd


@rms_norm.register_fake
def _(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)


@torch.library.custom_op("mist::rms_norm_backward", mutates_args=())
def rms_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and weight."""
    normalized = x.float() * rstd
    inner = grad.float() * weight
    d_x = rstd * (inner - normalized * (inner * normalized).mean(-1, keepdim=True))
    d_weight = (grad.float() * normalized).flatten(0, -2).sum(0)
    return d_x.to(x.dtype), d_weight.to(weight.dtype)


@rms_norm_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight)


def _save_norm(ctx: Any, inputs: Any, output: Any) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight, output[1])


def _norm_backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, Tensor, None]:
    d_x, d_weight = rms_norm_backward(grad, *ctx.saved_tensors)
    return d_x, d_weight, None


rms_norm.register_autograd(_norm_backward, setup_context=_save_norm)


@torch.library.custom_op("mist::swiglu", mutates_args=())
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) · up, of which only the two inputs are kept."""
    return F.silu(gate).mul_(up)


@swiglu.register_fake
def _(gate: Tensor, up: Tensor) -> Tensor:
    return torch.empty_like(gate)


@torch.library.custom_op("mist::swiglu_backward", mutates_args=())
def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of gate and up."""
    share = torch.sigmoid(gate)
    silu = gate * share
    return grad * up * share * (1 + gate - silu), grad * silu


@swiglu_backward.register_fake
def _(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(gate), torch.empty_like(up)


swiglu.register_autograd(
    lambda ctx, grad: swiglu_backward(grad, *ctx.saved_tensors),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


@torch.library.custom_op("mist::rotate_", mutates_args=("x",))
def rotate_(x: Tensor, position_dim: int, theta: float, back: bool) -> None:
    """Turn each pair (x_i, x_{i+D/2}) of the last dimension by its position's angle, or back by it, in place."""
    half = x.shape[-1] // 2
    frequency = theta ** -(torch.arange(half, device=x.device, dtype=torch.float32) / half)
    position = torch.arange(x.shape[position_dim], device=x.device, dtype=torch.float32)
    angle = torch.outer(position, frequency)
    shape = [1] * x.dim()
    shape[position_dim], shape[-1] = angle.shape
    cos, sin = angle.cos().view(shape), angle.sin().view(shape) * (-1 if back else 1)
    first, second = x.to(torch.promote_types(x.dtype, torch.float32)).chunk(2, -1)
    x.copy_(torch.cat((first * cos - second * sin, second * cos + first * sin), -1))


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int, position_dim: int, theta: float) -> Tensor:
        ctx.arguments = count, position_dim, theta
        ctx.mark_dirty(x)
        rotate_(x.narrow(-2, 0, count), position_dim, theta, False)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        count, position_dim, theta = ctx.arguments
        rotate_(grad.narrow(-2, 0, count), position_dim, theta, True)
        return grad, None, None, None


def rotate(x: Tensor, count: int, position_dim: int, theta: float) -> Tensor:
    """Apply rotary positions to the first `count` heads of x (… heads D), in place; so is its gradient's way back."""
    return _Rotate.apply(x, count, position_dim, theta)
