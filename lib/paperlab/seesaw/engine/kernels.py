"""The Triton kernel between paged device memory and a contiguous slab: one launch packs or unpacks any blocks.

Compiled on CUDA, interpreted elsewhere; so far only the interpreter has run it.

Legend: L layers, T tokens of the device's memory, M blocks, S tokens per block, G key/value heads, D head size.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

LAUNCH_OPTIONS = {"enable_fp_fusion": True}  # explicit, since triton 3.9 warns that its default is about to change


def move(keys_LTGD: Tensor, values_LTGD: Tensor, slots_MS: Tensor, packed_ML2GSD: Tensor, *, pack: bool) -> None:
    """Copy the tokens at `slots_MS` from keys and values to `packed_ML2GSD`, or the other way; negative slots are none.

    The device's tokens lie side by side over heads (NHD), the slab's heads over tokens (HND); both must be contiguous
    but for the stride between layers.
    """
    L, _, G, D = keys_LTGD.shape
    M, S = slots_MS.shape
    _move[(M, L, G)](
        keys_LTGD, values_LTGD, packed_ML2GSD, slots_MS, keys_LTGD.stride(0), S, L, G, D=D,
        TOKENS=triton.next_power_of_2(S), WIDTH=triton.next_power_of_2(D), PACK=pack, **LAUNCH_OPTIONS,
    )  # fmt: skip


@triton.jit
def _move(  # type: ignore[no-untyped-def]
    k_ptr, v_ptr, packed_ptr, slots_ptr, layer_stride, S, L, G,
    D: tl.constexpr, TOKENS: tl.constexpr, WIDTH: tl.constexpr, PACK: tl.constexpr,
):  # fmt: skip
    block, layer, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    token = tl.arange(0, TOKENS)
    d = tl.arange(0, WIDTH)
    slot = tl.load(slots_ptr + block * S + token, mask=token < S, other=-1)
    inside = (slot >= 0)[:, None] & (d < D)[None, :]
    at_device = layer.to(tl.int64) * layer_stride + (slot.to(tl.int64) * G + head)[:, None] * D + d[None, :]
    slab = (block.to(tl.int64) * L + layer) * 2 * G * S * D
    at_key = slab + (head * S + token)[:, None] * D + d[None, :]
    at_value = at_key + G * S * D
    if PACK:
        tl.store(packed_ptr + at_key, tl.load(k_ptr + at_device, mask=inside, other=0.0), mask=inside)
        tl.store(packed_ptr + at_value, tl.load(v_ptr + at_device, mask=inside, other=0.0), mask=inside)
    else:
        tl.store(k_ptr + at_device, tl.load(packed_ptr + at_key, mask=inside, other=0.0), mask=inside)
        tl.store(v_ptr + at_device, tl.load(packed_ptr + at_value, mask=inside, other=0.0), mask=inside)
