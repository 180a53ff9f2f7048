"""Fused operators of the training blocks, each one node of the tape, so that traces and runs keep the same tensors.

A fused GPU kernel keeps no intermediates; written as a chain of torch operators it would. These custom operators
run on any device, have shape rules for traces without data, and save only what their fused counterparts save.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


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


@torch.library.custom_op("mist::rotate", mutates_args=())
def rotate(x: Tensor, position_dim: int, theta: float, backward: bool) -> Tensor:
    """Turn each pair (x_i, x_{i+D/2}) of the last dimension by its position's angle, or back by it."""
    half = x.shape[-1] // 2
    frequency = theta ** -(torch.arange(half, device=x.device, dtype=torch.float32) / half)
    position = torch.arange(x.shape[position_dim], device=x.device, dtype=torch.float32)
    angle = torch.outer(position, frequency)
    shape = [1] * x.dim()
    shape[position_dim], shape[-1] = angle.shape
    cos, sin = angle.cos().view(shape), angle.sin().view(shape) * (-1 if backward else 1)
    first, second = x.float().chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1).to(x.dtype)


@rotate.register_fake
def _(x: Tensor, position_dim: int, theta: float, backward: bool) -> Tensor:
    return x.new_empty(x.shape)


def _save_rotation(ctx: Any, inputs: Any, output: Any) -> None:
    _, ctx.position_dim, ctx.theta, ctx.back = inputs


def _rotate_back(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    return rotate(grad, ctx.position_dim, ctx.theta, not ctx.back), None, None, None


rotate.register_autograd(_rotate_back, setup_context=_save_rotation)
