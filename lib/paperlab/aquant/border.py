"""The border: where between two integers an activation is rounded up, as a function of the activation (§2 of the idea).

Nearest rounding has the border ½ everywhere. Here it is `B = ½ + offset(u)` with `u = x / scale` and a polynomial
`o(t) = a0 + a1 t + a2 t²` of the normalized activation `t = u / (2^b - 1)`, inside the represented range; beyond it the
border stays what it is at the end of the range. Zero coefficients give the offset 0.0, and `u - 0.0` is `u`: nearest
rounding to the bit, ties included. The paper's own parameterization could not be read; this is a family of candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

GRANULARITIES = ("tensor", "channel", "kernel_pos")
BOUNDS = ("none", "clip", "sigmoid")
FUSIONS = ("none", "kernel_mean", "kernel_weighted", "channel_context")
GRADIENTS = ("detach", "full")


@dataclass(frozen=True)
class BorderSpec:
    """Which border: its degree, what shares coefficients, whether it stays inside a cell, and what it looks at.

    `bound` keeps the border between 0 and 1, so that the result is literally a rounding: "sigmoid" smoothly (slope 1 at
    zero), "clip" hard; "none" frees the thresholds, and a value can move by more than one level. `gradient` says
    whether the loss may flow to the activation through its border.
    """

    degree: int = 2
    granularity: str = "channel"
    bound: str = "sigmoid"
    fusion: str = "none"
    gradient: str = "detach"

    def __post_init__(self) -> None:
        if self.degree not in (0, 1, 2):
            raise ValueError(f"border degree is {self.degree!r}; use 0, 1 or 2")
        for name, choices in {
            "granularity": GRANULARITIES, "bound": BOUNDS, "fusion": FUSIONS, "gradient": GRADIENTS,
        }.items():  # fmt: skip
            if getattr(self, name) not in choices:
                raise ValueError(f"border {name} is {getattr(self, name)!r}; use one of {', '.join(choices)}")
        if self.fusion.startswith("kernel") and self.granularity != "kernel_pos":
            raise ValueError(f"border fusion {self.fusion!r} needs granularity 'kernel_pos', not {self.granularity!r}")


class Border(nn.Module):
    """The border's coefficients for one quantized tensor, all zero at first.

    Args:
        spec: the variant.
        channels: C, the size of dimension 1 of the activations.
        positions: k² kernel positions; above 1 only with granularity "kernel_pos", where dimension 1 has C·k² entries.
        groups: of the consuming convolution, for `channel_context`.
    """

    low: Tensor
    high: Tensor

    def __init__(self, spec: BorderSpec, channels: int, positions: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.spec, self.channels, self.positions, self.groups = spec, channels, positions, groups
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(1.0))
        entries = 1 if spec.granularity == "tensor" else channels * positions
        self.coefficients = _zeros(spec.degree + 1, entries)
        if spec.fusion == "kernel_weighted":
            self.position_logits = _zeros(channels, positions)
        if spec.fusion == "channel_context":
            self.context_gain = _zeros(entries)

    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Take the represented range in units of the scale: -zero_point and 2^b - 1 - zero_point."""
        self.low.copy_(low)
        self.high.copy_(high)

    def offset(self, u: Tensor) -> Tensor:
        """Return B - ½ for activations `u` in units of the scale, shape (N, C·k², ...), the same shape out."""
        t = u.clamp(float(self.low), float(self.high)) / (self.high - self.low)
        shape = (1, -1) + (1,) * (u.dim() - 2)
        terms = self.coefficients.unbind()
        value = terms[-1].reshape(shape)
        for term in terms[-2::-1]:
            value = value * t + term.reshape(shape)
        if self.spec.fusion == "channel_context":
            value = value + self.context_gain.reshape(shape) * self._context(t)
        value = self._bounded(value).expand_as(u)
        return self._fused(value) if self.spec.fusion.startswith("kernel") else value

    def _bounded(self, value: Tensor) -> Tensor:
        if self.spec.bound == "sigmoid":
            return torch.tanh(2 * value) / 2
        return value.clamp(-0.5, 0.5) if self.spec.bound == "clip" else value

    def _context(self, t: Tensor) -> Tensor:
        """Return the mean over the channels of the same group at each pixel."""
        grouped = t.unflatten(1, (self.groups, -1))
        return grouped.mean(2, keepdim=True).expand_as(grouped).flatten(1, 2)

    def _fused(self, value: Tensor) -> Tensor:
        """Replace the borders of a k×k patch by their mean, weighted or not."""
        patches = value.unflatten(1, (self.channels, self.positions))
        if self.spec.fusion == "kernel_mean":
            mean = patches.mean(2, keepdim=True)
        else:
            weights = self.position_logits.softmax(1).reshape(1, self.channels, self.positions, 1)
            mean = (patches * weights).sum(2, keepdim=True)
        return mean.expand_as(patches).flatten(1, 2)


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(*shape), requires_grad=False)  # a learning loop asks for gradients
