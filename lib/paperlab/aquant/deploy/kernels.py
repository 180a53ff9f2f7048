"""Triton kernels of the quantizer: element by element, and fused with im2col, each in three forms.

Forms: "nearest" (no border), "function" (the polynomial border, unbounded or clipped, in the arithmetic of
`ActivationQuantizer`), "thresholds" (comparisons with a table, whatever the border was; a binary search, so b
comparisons for b bits). Codes and dequantized values equal torch's to the bit: additions and multiplications are not
fused, the division is rounded correctly, and the sum with 1.5·2^23 rounds to even as `torch.round` does. A border
bounded by a hyperbolic tangent deploys as thresholds, since no two libraries agree on its last bit.

Triton is imported with this module, which nothing imports but what launches kernels: it does not exist on macOS. On
CPU tensors the kernels run in Triton's interpreter, which TRITON_INTERPRET=1 selects before triton is imported.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from paperlab.aquant.deploy.thresholds import table_of
from paperlab.aquant.layers import QuantConv2d
from paperlab.aquant.quantizer import ActivationQuantizer

FORMS = ("nearest", "function", "thresholds")
LAUNCH_OPTIONS = {"enable_fp_fusion": False}
launches: Counter[str] = Counter()
"""How often each kernel was launched in this process, by form."""


@triton.jit
def _code(  # type: ignore[no-untyped-def]
    x, row, table_ptr, scale, low, high, inside,
    FORM: tl.constexpr, BITS: tl.constexpr, DEGREE: tl.constexpr, CLIPPED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Return the level of `x`; its table holds coefficients (degree + 1, ROWS) or thresholds (ROWS, 2^b - 1)."""
    if FORM == "thresholds":
        count = tl.zeros_like(x).to(tl.int32)
        for step in tl.static_range(BITS):
            tried = count + (1 << (BITS - 1 - step))
            threshold = tl.load(table_ptr + row * ((1 << BITS) - 1) + tried - 1, mask=inside, other=0.0)
            count = tl.where(x >= threshold, tried, count)
        level = count.to(tl.float32) + low
    else:
        u = tl.div_rn(x, scale)
        if FORM == "function":
            t = tl.div_rn(tl.minimum(tl.maximum(u, low), high), tl.zeros_like(u) + (high - low))
            offset = tl.load(table_ptr + DEGREE * ROWS + row, mask=inside, other=0.0)
            for step in tl.static_range(DEGREE):
                offset = offset * t + tl.load(table_ptr + (DEGREE - 1 - step) * ROWS + row, mask=inside, other=0.0)
            if CLIPPED:
                offset = tl.minimum(tl.maximum(offset, -0.5), 0.5)
            u = u - offset
        level = (tl.minimum(tl.maximum(u, low), high) + 12582912.0) - 12582912.0
    return level


@triton.jit
def _elements(  # type: ignore[no-untyped-def]
    x_ptr, out_ptr, table_ptr, scale_ptr, low, high, numel, pixels, channels,
    FORM: tl.constexpr, BITS: tl.constexpr, DEGREE: tl.constexpr, CLIPPED: tl.constexpr, ROWS: tl.constexpr,
    CODES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offset < numel
    x = tl.load(x_ptr + offset, mask=inside, other=0.0)
    row = (offset // pixels) % channels
    if ROWS == 1:
        row = row * 0
    scale = tl.zeros_like(x) + tl.load(scale_ptr)
    level = _code(x, row, table_ptr, scale, low, high, inside, FORM, BITS, DEGREE, CLIPPED, ROWS)
    if CODES:
        tl.store(out_ptr + offset, (level - low).to(tl.uint8), mask=inside)
    else:
        tl.store(out_ptr + offset, level * scale, mask=inside)


@triton.jit
def _patches(  # type: ignore[no-untyped-def]
    x_ptr, out_ptr, table_ptr, scale_ptr, low, high,
    C, H, W, out_H, out_W, pad_h, pad_w,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    FORM: tl.constexpr, BITS: tl.constexpr, DEGREE: tl.constexpr, CLIPPED: tl.constexpr, ROWS: tl.constexpr,
    CODES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: a block of output pixels of one image, channel and kernel position, (N·C·KH·KW, blocks)."""
    line = tl.program_id(0).to(tl.int64)
    position = line % (KH * KW)
    channel = (line // (KH * KW)) % C
    image = line // (KH * KW * C)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    valid = pixel < out_H * out_W
    y = (pixel // out_W) * SH - pad_h + (position // KW) * DH
    x_at = (pixel % out_W) * SW - pad_w + (position % KW) * DW
    inside = valid & (y >= 0) & (y < H) & (x_at >= 0) & (x_at < W)
    x = tl.load(x_ptr + (image * C + channel) * H * W + y * W + x_at, mask=inside, other=0.0)
    row = tl.zeros_like(x).to(tl.int64)
    if ROWS > 1:
        row = row + channel * (KH * KW) + position
    scale = tl.zeros_like(x) + tl.load(scale_ptr)
    level = _code(x, row, table_ptr, scale, low, high, inside, FORM, BITS, DEGREE, CLIPPED, ROWS)
    level = tl.where(inside, level, 0.0)  # padding is zero, whatever its border
    out = out_ptr + line * out_H * out_W + pixel
    if CODES:
        tl.store(out, (level - low).to(tl.uint8), mask=valid)
    else:
        tl.store(out, level * scale, mask=valid)


@dataclass(frozen=True)
class Prepared:
    """A quantizer as a kernel takes it: its form, its table on the device, its range."""

    form: str
    bits: int
    table: Tensor
    rows: int
    scale: Tensor
    low: float
    high: float
    degree: int = 0
    clipped: bool = False

    @property
    def constants(self) -> dict[str, Any]:
        """The compile-time arguments."""
        return {"FORM": self.form, "BITS": self.bits, "DEGREE": self.degree, "CLIPPED": self.clipped, "ROWS": self.rows}


def prepare_quantizer(quantizer: ActivationQuantizer, form: str | None = None) -> Prepared:
    """Return `quantizer` ready for kernels; its own form by default: nearest, or thresholds where it has a border.

    Raises:
        ValueError: an unknown form, "function" for a border bounded by a sigmoid or fused, "nearest" for any border, or
            "thresholds" for a border that is not monotone.
    """
    border = quantizer.border
    form = form or ("nearest" if border is None else "thresholds")
    scale = quantizer.scale.detach().reshape(1)
    span = (float(quantizer.low), float(quantizer.high))
    if form == "thresholds":
        staircase = torch.from_numpy(table_of(quantizer).staircase().copy()).to(scale.device)
        return Prepared(form, quantizer.bits, staircase, len(staircase), scale, *span)
    if form == "nearest" and border is None:
        return Prepared(form, quantizer.bits, scale, 1, scale, *span)
    if form == "function" and border is not None and border.spec.bound != "sigmoid" and border.spec.fusion == "none":
        coefficients = border.coefficients.detach().contiguous()
        degree, clipped = border.spec.degree, border.spec.bound == "clip"
        return Prepared(form, quantizer.bits, coefficients, coefficients.shape[1], scale, *span, degree, clipped)
    what = (
        "no border" if border is None else f"a border with bound {border.spec.bound!r}, fusion {border.spec.fusion!r}"
    )
    raise ValueError(f"form {form!r} does not fit {what}; use one of {', '.join(FORMS)} that does, or None")


def quantize(x: Tensor, prepared: Prepared, codes: bool = True, block: int | None = None) -> Tensor:
    """Return codes (uint8) or quantized values (float32) of activations (N, C, ...), float32, by one kernel."""
    _check(x)
    x = x.contiguous()
    channels = x.shape[1] if x.dim() > 1 else 1
    if prepared.rows not in (1, channels):
        raise ValueError(f"x has {channels} channels; the quantizer has {prepared.rows} rows")
    out = torch.empty_like(x, dtype=torch.uint8 if codes else torch.float32)
    if x.numel():
        block = block or _default_block(x)
        pixels = x[0, 0].numel() if x.dim() > 1 else 1
        with torch.cuda.device_of(x):
            _elements[(triton.cdiv(x.numel(), block),)](
                x, out, prepared.table, prepared.scale, prepared.low, prepared.high, x.numel(), pixels, channels,
                **prepared.constants, CODES=codes, BLOCK=block, **LAUNCH_OPTIONS,
            )  # fmt: skip
        launches[f"elements, {prepared.form}"] += 1
    return out


def quantize_patches(x: Tensor, conv: QuantConv2d, prepared: Prepared, codes: bool = True) -> Tensor:
    """Return the quantized patches (N, C·k², L) that a convolution multiplies, unfolded and rounded by one kernel.

    x: (N, C, H, W) float32. With C·k² rows every kernel position has its own border; padding gets level 0.
    """
    _check(x)
    x = x.contiguous()
    images, channels, height, width = x.shape
    (kh, kw), size = conv.kernel_size, conv.output_size(x)
    lines = channels * kh * kw
    if prepared.rows not in (1, lines):
        raise ValueError(f"patches have {lines} rows; the quantizer has {prepared.rows}")
    pixels = size[0] * size[1]
    out = torch.empty(images, lines, pixels, dtype=torch.uint8 if codes else torch.float32, device=x.device)
    block = min(_default_block(x), triton.next_power_of_2(pixels))
    with torch.cuda.device_of(x):
        _patches[(images * lines, triton.cdiv(pixels, block))](
            x, out, prepared.table, prepared.scale, prepared.low, prepared.high,
            channels, height, width, *size, *conv.padding,
            KH=kh, KW=kw, SH=conv.stride[0], SW=conv.stride[1], DH=conv.dilation[0], DW=conv.dilation[1],
            **prepared.constants, CODES=codes, BLOCK=block, **LAUNCH_OPTIONS,
        )  # fmt: skip
    launches[f"patches, {prepared.form}"] += 1
    return out


def interpreted() -> bool:
    """Return whether kernels run in Triton's interpreter rather than compiled."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _check(x: Tensor) -> None:
    if x.dtype != torch.float32:
        raise TypeError(f"the kernels take float32, got {x.dtype}")
    if not x.is_cuda and not interpreted():
        raise RuntimeError(
            "the kernels need a CUDA tensor; for CPU tensors set TRITON_INTERPRET=1 before triton is imported"
        )


def _default_block(x: Tensor) -> int:
    return 1024 if x.is_cuda else 1 << 14  # the interpreter pays per program, not per element
