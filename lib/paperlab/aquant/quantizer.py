"""Weights and activations on integer grids: bits, scale, zero point, and which neighbor a value is rounded to.

A grid holds the codes 0 ... 2^b - 1; code q stands for `(q - zero_point) · scale`. Nearest rounding is `torch.round`:
ties go to the even integer.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from paperlab.aquant.border import Border

MIN_BITS, MAX_BITS = 2, 8
STES = ("clip_before_round", "clamp_after_round")
ZETA, GAMMA = 1.1, -0.1  # AdaRound's stretch: the rectified sigmoid reaches 0 and 1
ROUNDINGS = ("float", "nearest", "soft", "hard")


def check_bits(name: str, bits: int) -> int:
    """Return `bits`.

    Raises:
        ValueError: it is not an integer from 2 to 8.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not MIN_BITS <= bits <= MAX_BITS:
        raise ValueError(f"{name} is {bits!r}; use an integer from {MIN_BITS} to {MAX_BITS}")
    return bits


class RoundToGrid(torch.autograd.Function):
    """Levels `round(x / scale - offset)` on a grid, with gradients as if rounding were not there.

    With v = x / scale - offset and "inside" as the straight-through estimator defines it, the gradients of a level are
    1 / scale in x, -(x / scale) / scale in the scale and -1 in the offset inside, and 0 outside.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, offset: Tensor | None, low: float, high: float, clips_first: bool
    ) -> Tensor:
        """Return levels of the shape of `x`; `offset` None is nearest rounding."""
        u = x / scale
        v = u if offset is None else u - offset
        rounded = v.round()
        # Whole numbers are within the grid exactly where they are within half a cell around it.
        ctx.span = (low, high) if clips_first else (low - 0.5, high + 0.5)
        ctx.save_for_backward(u, scale, v if clips_first else rounded)
        return rounded.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, scale and offset."""
        u, scale, judged = ctx.saved_tensors
        # One vectorized pass; comparisons and a mask take five times as long on a CPU.
        of_v = torch.ops.aten.hardtanh_backward(gradient, judged, *ctx.span)
        of_x = of_v / scale if ctx.needs_input_grad[0] else None
        of_scale = -(of_v * u).sum() / scale if ctx.needs_input_grad[1] else None
        return of_x, of_scale, -of_v if ctx.needs_input_grad[2] else None, None, None, None


def coin_flips(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return zeros and ones of equal probability, shaped and laid out as `like`, eight a random byte.

    Drawing each is far slower, and so is taking a byte apart: its eight coins are a row of a table.
    """
    count = like.numel()
    bytes_ = torch.randint(256, (-(-count // 8),), dtype=torch.int32, generator=generator, device=like.device)
    coins = _coins_of_bytes(like.dtype, like.device).index_select(0, bytes_).flatten()[:count]
    return coins.as_strided(like.shape, torch.empty_like(like).stride())


@cache
def _coins_of_bytes(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the bits of every byte, (256, 8)."""
    return ((torch.arange(256)[:, None] >> torch.arange(8)) & 1).to(device, dtype)


class WeightQuantizer(nn.Module):
    """One affine grid per output channel of a weight, rounded to nearest or as AdaRound learns it.

    `rounding` is "float" (the weight passes), "nearest", "soft" (AdaRound while it learns) or "hard" (as learned).
    `scale` and `zero_point` have the shape (C_out, 1, ...) that broadcasts against the weight.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, bits: int, weight: Tensor) -> None:
        super().__init__()
        self.bits, self.rounding = check_bits("weight bits", bits), "nearest"
        shape = (weight.shape[0],) + (1,) * (weight.dim() - 1)
        self.register_buffer("scale", weight.new_full(shape, float("nan")))
        self.register_buffer("zero_point", weight.new_zeros(shape))
        self.up: nn.Parameter | None = None  # V of AdaRound: up where it is not negative

    @property
    def top(self) -> int:
        """The largest code, 2^b - 1."""
        return 2**self.bits - 1

    def set_grid(self, scale: Tensor, zero_point: Tensor) -> None:
        """Take scale and zero point, one value per output channel."""
        self.scale.copy_(scale.reshape(self.scale.shape))
        self.zero_point.copy_(zero_point.reshape(self.scale.shape))

    def start_learning(self, weight: Tensor) -> nn.Parameter:
        """Begin AdaRound: V such that the soft weight is the float weight wherever it is not clipped."""
        fraction = weight / self.scale - (weight / self.scale).floor()
        ratio = (ZETA - GAMMA) / (fraction - GAMMA) - 1
        self.up, self.rounding = nn.Parameter(-torch.log(ratio).detach()), "soft"
        return self.up

    def soft_share(self) -> Tensor:
        """Return h(V) from 0 (down) to 1 (up)."""
        assert self.up is not None
        return (self.up.sigmoid() * (ZETA - GAMMA) + GAMMA).clamp(0, 1)

    def harden(self) -> None:
        """End AdaRound: up where V is not negative."""
        self.rounding = "hard"

    def codes(self, weight: Tensor) -> Tensor:
        """Return the codes of `weight`, its shape; integers from 0 to 2^b - 1, but for "soft" rounding."""
        u = weight / self.scale
        if self.rounding == "nearest":
            levels = u.round()
        else:
            assert self.up is not None
            levels = u.floor() + (self.soft_share() if self.rounding == "soft" else (self.up >= 0).to(u.dtype))
        return (levels + self.zero_point).clamp(0, self.top)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Return the weight that integer `codes` stand for."""
        return (codes.to(self.scale.dtype) - self.zero_point) * self.scale

    def forward(self, weight: Tensor) -> Tensor:
        """Return the quantized weight."""
        return weight if self.rounding == "float" else self.dequantize(self.codes(weight))


class ActivationQuantizer(nn.Module):
    """One affine grid for a whole activation tensor, with a border where the method has one.

    `scale` (a scalar parameter) is a learned step size as in LSQ: with straight-through rounding its gradient is
    `round(u) - u` inside the range and the end of the range outside. `ste` says where the gradient is cut:
    "clip_before_round" passes it for low < v < high, which is the true derivative of the mean output;
    "clamp_after_round" passes it for another half cell at each end, so that a border's gradient comes out too large by
    2^b / (2^b - 1) on inputs that cover both ends. Outputs are the same to the bit.
    """

    scale: nn.Parameter
    zero_point: Tensor

    def __init__(self, bits: int, ste: str = "clip_before_round") -> None:
        super().__init__()
        if ste not in STES:
            raise ValueError(f"ste is {ste!r}; use one of {', '.join(STES)}")
        self.bits, self.ste, self.enabled = check_bits("activation bits", bits), ste, True
        self.scale = nn.Parameter(torch.tensor(float("nan")), requires_grad=False)
        self.register_buffer("zero_point", torch.tensor(0.0))
        self.border: Border | None = None
        self.drop, self.generator = False, None  # QDrop: half of the elements pass unquantized while learning

    generator: torch.Generator | None

    @property
    def top(self) -> int:
        """The largest code, 2^b - 1."""
        return 2**self.bits - 1

    @property
    def low(self) -> Tensor:
        """The least level in units of the scale, -zero_point."""
        return -self.zero_point

    @property
    def high(self) -> Tensor:
        """The greatest level in units of the scale, 2^b - 1 - zero_point."""
        return self.top - self.zero_point

    def set_grid(self, scale: Tensor, zero_point: Tensor) -> None:
        """Take a scalar scale and zero point; the border's range follows from them."""
        self.scale.data.copy_(scale.reshape(()))
        self.zero_point.copy_(zero_point.reshape(()))
        if self.border is not None:
            self.border.set_range(self.low, self.high)

    def levels(self, x: Tensor) -> Tensor:
        """Return the integers `code - zero_point` of `x`, its shape, with straight-through gradients."""
        offset = None if self.border is None else self.border.offset(self._seen_by_border(x))
        clips_first = self.ste == "clip_before_round"
        return RoundToGrid.apply(x, self.scale, offset, float(self.low), float(self.high), clips_first)

    def _seen_by_border(self, x: Tensor) -> Tensor:
        assert self.border is not None
        # Through its scale the border would fight LSQ for the step size, so that path is always cut.
        return (x.detach() if self.border.spec.gradient == "detach" else x) / self.scale.detach()

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of `x` as integers 0 ... 2^b - 1, uint8, its shape."""
        return (self.levels(x) + self.zero_point).to(torch.uint8)

    def forward(self, x: Tensor) -> Tensor:
        """Return the quantized `x`; while QDrop learns, a random share of the elements passes unquantized."""
        if not self.enabled:
            return x
        quantized = self.levels(x) * self.scale
        return torch.lerp(x, quantized, coin_flips(x, self.generator)) if self.drop else quantized
