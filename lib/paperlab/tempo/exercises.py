"""Checkers of the exercises in `40_tempo_idea`: each compares a reader's function with an independent oracle."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from paperlab.lab.exercises import expect
from paperlab.tempo.memory.accounting import LayerShape, retained_bytes


def _close(found: Tensor, right: Tensor) -> bool:
    return torch.allclose(found, right, rtol=1e-9, atol=1e-9)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def check_attention_bytes(attention_bytes: Callable[[int, int, int], int]) -> None:
    """Check `attention_bytes(batch, heads, seq_len)`: what a plain fp32 layer keeps of its attention map."""
    for batch, heads, seq in ((1, 1, 8), (2, 4, 16), (3, 16, 512)):
        shape = LayerShape(batch, seq, 64 * heads, heads)
        others = 66 * shape.bsh + 16 * shape.rows  # what does not belong to the attention map
        right, given = retained_bytes(shape) - others, attention_bytes(batch, heads, seq)
        expect(given % (batch * heads * seq**2) == 0, "count in units of B·A·S²: every tensor has one value per pair")
        expect(given >= right, "three tensors are kept: P, the dropped P (4 bytes each) and the mask (1 byte)")
        expect(given <= right, "modern torch keeps no input of softmax, and a mask has 1 byte per element, not 4")


def check_invert_gelu(invert: Callable[[Tensor], Tensor]) -> None:
    """Check `invert(y)`: the x right of the minimum with GELU(x) = y."""
    x = torch.linspace(-0.7, 6, 200, dtype=torch.float64)
    found = invert(F.gelu(x))
    expect(found.shape == x.shape, "return one x for each y")
    expect(bool((found >= -0.7518).all()), "stay right of the minimum: below x* = -0.7518 lies the other branch")
    expect(
        torch.allclose(found, x, rtol=0, atol=1e-6),
        f"off by up to {(found - x).abs().max():.1e}; 60 bisections of [-0.7518, 10] reach 1e-6",
    )


def check_layernorm_backward(backward: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
    """Check `backward(dy, y, rstd, gamma, beta)`: the gradient of LayerNorm's input from its output."""
    x, dy = _random(6, 8).requires_grad_(), _random(6, 8)
    gamma, beta = 1 + 0.3 * _random(8), _random(8)
    y = F.layer_norm(x, (8,), gamma, beta)
    rstd = (x.var(-1, correction=0, keepdim=True) + 1e-5).rsqrt()
    (right,) = torch.autograd.grad(y, x, dy)
    with torch.no_grad():
        found = backward(dy, y, rstd, gamma, beta)
    expect(found.shape == right.shape, f"dx has the shape of x, {tuple(right.shape)}, not {tuple(found.shape)}")
    expect(not torch.allclose(found, dy * gamma * rstd), "two means over the channels have to be subtracted")
    expect(_close(found, right), "x-hat is (y - beta) / gamma, and the means are of gamma * dy")


def check_attention_backward(backward: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """Check `backward(d_out, probabilities, mask, value, p)`: gradients of scores and V without the dropped P."""
    scores, value, d_out = _random(5, 7).requires_grad_(), _random(7, 3).requires_grad_(), _random(5, 3)
    mask, p = _random(5, 7) > -0.5, 0.25
    probabilities = scores.softmax(-1)
    out = (probabilities * mask / (1 - p)) @ value
    right_scores, right_value = torch.autograd.grad(out, (scores, value), d_out)
    with torch.no_grad():
        d_scores, d_value = backward(d_out, probabilities, mask, value, p)
    expect(_close(d_value, right_value), "dV = dropped Pᵀ · dO; did you scale by 1 / (1 - p)?")
    expect(
        _close(d_scores, right_scores),
        "softmax's gradient is P * (dP - row sum of dP * P), where dP went back through mask and scale first",
    )
