"""Tensor-parallel boundaries as tape nodes: entering and leaving a group, and the vocabulary-parallel loss.

Megatron-LM's conjugate pair f and g, written against a small `Group` so that one device, a torch.distributed group
and a symbolic trace run the same model code.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class Group(Protocol):
    """Tensor-parallel ranks. `all_reduce` works in place over "sum" or "max" and returns its argument."""

    @property
    def size(self) -> int:
        """Number of ranks; a symbol while tracing."""
        ...

    @property
    def rank(self) -> int:
        """This rank's number in the group."""
        ...

    def all_reduce(self, x: Tensor, op: str = "sum") -> Tensor:
        """Reduce `x` over the ranks, in place."""
        ...


class Alone:
    """A group of one device."""

    size = 1
    rank = 0

    def all_reduce(self, x: Tensor, op: str = "sum") -> Tensor:
        """Return `x` as it is."""
        return x


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.group.all_reduce(grad.contiguous()), None


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.mark_dirty(x)
        return group.all_reduce(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def enter(x: Tensor, group: Group) -> Tensor:
    """Return `x`, whose gradient is summed over the group (Megatron's f)."""
    return _Enter.apply(x, group)


def leave(x: Tensor, group: Group) -> Tensor:
    """Return the sum of the ranks' partial `x`, in place; its gradient passes unchanged (Megatron's g)."""
    return _Leave.apply(x, group)


def local_labels(labels: Tensor, rows: int, group: Group) -> tuple[Tensor, Tensor]:
    """Return ids relative to this rank's `rows` of the vocabulary, 0 where they lie outside, and where that is."""
    local = labels - group.rank * rows
    outside = (local < 0) | (local >= rows)
    return local.masked_fill(outside, 0), outside


class _CrossEntropy(torch.autograd.Function):
    """Keeps one buffer of probabilities, which backward turns into the gradient in place."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, group: Group) -> Tensor:
        largest = group.all_reduce(logits.amax(-1, keepdim=True), "max")
        shifted = logits - largest
        local, outside = local_labels(labels, logits.shape[-1], group)
        target = shifted.gather(-1, local.unsqueeze(-1)).squeeze(-1).float().masked_fill_(outside, 0)
        group.all_reduce(target)
        probabilities = shifted.exp_()
        total = group.all_reduce(probabilities.sum(-1, dtype=torch.float32))
        probabilities.div_(total.unsqueeze(-1))
        ctx.save_for_backward(probabilities, local, outside)
        return total.log_().sub_(target).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        gradient, local, outside = ctx.saved_tensors
        hit = (~outside).to(gradient.dtype).neg_().unsqueeze(-1)
        gradient.scatter_add_(-1, local.unsqueeze(-1), hit)
        return gradient.mul_((grad / local.numel()).to(gradient.dtype)), None, None


def cross_entropy(logits: Tensor, labels: Tensor, group: Group) -> Tensor:
    """Return the mean loss of logits whose last dimension is this rank's part of the vocabulary.

    Backward may run once, as it overwrites what it saved (Megatron-LM's memory behavior).
    """
    return _CrossEntropy.apply(logits, labels, group)
