"""Paged attention in Triton: queries against keys and values in scattered blocks, for decoding and for chunks.

A program takes a tile of queries of one sequence, all R query heads of one key/value head with them, and a part of the
keys (flash decoding): a single long sequence then still fills a device. Storage is fp32, fp16 or bf16, sums are fp32.
Compiled on CUDA, interpreted elsewhere; so far only the interpreter has run them.

Legend: N tokens of the batch, S sequences, A query heads, G key/value heads, R = A / G, D head size, P parts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

LAUNCH_OPTIONS = {"enable_fp_fusion": True}  # explicit, since triton 3.9 warns that its default is about to change
_TILE_ROWS = 64  # rows (queries times R) of a tile of a longer chunk


class Tiles(NamedTuple):
    """Which queries a launch covers: tile t holds `queries` of sequence `sequence_T[t]` from its `first_T[t]` on."""

    sequence_T: Tensor
    first_T: Tensor
    queries: int
    parts: int  # of the keys; a power of two


def decode_tiles(sequences: int, parts: int, device: torch.device) -> Tiles:
    """Return one tile for each of the first `sequences` sequences, which have one query each."""
    first = torch.zeros(sequences, dtype=torch.int32, device=device)
    return Tiles(torch.arange(sequences, dtype=torch.int32, device=device), first, 1, parts)


def chunk_tiles(counts: list[int], skipped: int, group: int, device: torch.device) -> Tiles:
    """Return tiles over sequences with `counts` queries each, which come after `skipped` others; R is `group`."""
    queries = max(1, _TILE_ROWS // group)
    pairs = [(skipped + i, first) for i, count in enumerate(counts) for first in range(0, count, queries)]
    sequence, first = torch.tensor(pairs, dtype=torch.int32, device=device).unbind(1)
    return Tiles(sequence.contiguous(), first.contiguous(), queries, 1)


def key_parts(sequences: int, kv_heads: int, multiprocessors: int) -> int:
    """Return into how many parts decoding cuts the keys, so that about two programs fall to a multiprocessor."""
    wanted = 2 * multiprocessors // (sequences * kv_heads)
    return 1 << (min(wanted, 32).bit_length() - 1) if wanted > 1 else 1


def step_keys(element_size: int) -> int:
    """Return the keys in one step of the inner loop; more of 4 bytes exceed the shared memory of an L20."""
    return 128 // element_size


def paged_attention(
    q_NAD: Tensor,
    keys: Tensor,
    values: Tensor,
    tables_SM: Tensor,
    lengths_S: Tensor,
    starts_S1: Tensor,
    tiles: Tiles,
    out_NAD: Tensor,
) -> None:
    """Write the mixed values of the queries in `tiles` to `out_NAD`.

    Args:
        q_NAD: queries, the sequences' one after the other.
        keys: one layer's blocks, (blocks, block size, G, D), contiguous; `values` likewise.
        values: see `keys`.
        tables_SM: block ids of each sequence.
        lengths_S: stored and new tokens; a query sees the keys up to its own.
        starts_S1: first query of each sequence, and N.
        tiles: the queries to take.
        out_NAD: result.
    """
    (N, A, D), (_, block_size, G, _) = q_NAD.shape, keys.shape
    R, parts = A // G, tiles.parts
    rows = max(16, triton.next_power_of_2(tiles.queries * R))
    width = max(16, triton.next_power_of_2(D))
    if parts == 1:
        part_PNAD, weight_PNA = out_NAD, out_NAD  # never touched
    else:
        part_PNAD = torch.empty(parts, N, A, D, dtype=torch.float32, device=q_NAD.device)
        weight_PNA = torch.empty(parts, N, A, dtype=torch.float32, device=q_NAD.device)
    _attend[(len(tiles.sequence_T), G, parts)](
        q_NAD, keys, values, out_NAD, part_PNAD, weight_PNA, tables_SM, lengths_S, starts_S1,
        tiles.sequence_T, tiles.first_T, D**-0.5, tables_SM.stride(0), block_size, N, A, G, R=R, D=D,
        QUERIES=tiles.queries, ROWS=rows, WIDTH=width, KEYS=step_keys(keys.element_size()), PARTS=parts,
        **LAUNCH_OPTIONS,
    )  # fmt: skip
    if parts > 1:
        queries = len(tiles.sequence_T)  # a part is only ever cut for tiles of one query, which come first
        _join[(queries, A)](part_PNAD, weight_PNA, out_NAD, N, A, D=D, WIDTH=width, PARTS=parts, **LAUNCH_OPTIONS)


@triton.jit
def _add_keys(scores, v, highest, total, mixed):  # type: ignore[no-untyped-def]
    """One step of the online softmax: rescale what is there to the new highest score and add these keys."""
    peak = tl.maximum(highest, tl.max(scores, 1))
    base = tl.where(peak == float("-inf"), 0.0, peak)  # a row may see none of these keys
    power = tl.exp(scores - base[:, None])
    kept = tl.exp(highest - base)
    mixed = mixed * kept[:, None] + tl.dot(power.to(v.dtype), v, input_precision="ieee")
    return peak, total * kept + tl.sum(power, 1), mixed


@triton.jit
def _attend(  # type: ignore[no-untyped-def]
    q_ptr, k_ptr, v_ptr, out_ptr, part_ptr, weight_ptr, tables_ptr, lengths_ptr, starts_ptr, sequence_ptr, first_ptr,
    scale, table_stride, block_size, N, A, G,
    R: tl.constexpr, D: tl.constexpr, QUERIES: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
    KEYS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    group, part = tl.program_id(1), tl.program_id(2)
    sequence = tl.load(sequence_ptr + tl.program_id(0))
    first = tl.load(first_ptr + tl.program_id(0))
    start = tl.load(starts_ptr + sequence)
    count = tl.load(starts_ptr + sequence + 1) - start
    stored = tl.load(lengths_ptr + sequence) - count
    row = tl.arange(0, ROWS)
    query = first + row // R
    inside_row = (row < QUERIES * R) & (query < count)
    d = tl.arange(0, WIDTH)
    head_row = (start + query).to(tl.int64) * A + group * R + row % R
    at_q = head_row[:, None] * D + d[None, :]
    inside = inside_row[:, None] & (d < D)[None, :]
    q = tl.load(q_ptr + at_q, mask=inside, other=0.0)

    visible = stored + tl.minimum(first + QUERIES, count)
    size = tl.cdiv(tl.cdiv(visible, KEYS), PARTS) * KEYS
    begin = part * size
    end = tl.minimum(begin + size, visible)
    highest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, WIDTH), tl.float32)
    for base in range(begin, end, KEYS):
        key = base + tl.arange(0, KEYS)
        block = tl.load(tables_ptr + sequence.to(tl.int64) * table_stride + key // block_size, mask=key < end, other=0)
        slot = block.to(tl.int64) * block_size + key % block_size
        at_k = (slot * G + group)[:, None] * D + d[None, :]
        inside_k = (key < end)[:, None] & (d < D)[None, :]
        k = tl.load(k_ptr + at_k, mask=inside_k, other=0.0)
        v = tl.load(v_ptr + at_k, mask=inside_k, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        seen = (key[None, :] <= stored + query[:, None]) & (key < end)[None, :]
        scores = tl.where(seen, scores, float("-inf"))
        highest, total, mixed = _add_keys(scores, v, highest, total, mixed)
    total = tl.where(total == 0.0, 1.0, total)  # a row that saw no keys has weight exp(-inf)
    mixed = mixed / total[:, None]
    if PARTS == 1:
        tl.store(out_ptr + at_q, mixed.to(out_ptr.dtype.element_ty), mask=inside)
    else:
        at_part = part.to(tl.int64) * N * A
        tl.store(part_ptr + at_part * D + at_q, mixed, mask=inside)
        # log of the sum of powers: the part's weight
        tl.store(weight_ptr + at_part + head_row, highest + tl.log(total), mask=inside_row)


@triton.jit
def _join(  # type: ignore[no-untyped-def]
    part_ptr, weight_ptr, out_ptr, N, A, D: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * A + tl.program_id(1)
    part = tl.arange(0, PARTS).to(tl.int64) * N * A + row
    weight = tl.load(weight_ptr + part)
    weight = tl.exp(weight - tl.max(weight, 0))
    d = tl.arange(0, WIDTH)
    mixed = tl.load(part_ptr + part[:, None] * D + d[None, :], mask=(d < D)[None, :], other=0.0)
    joined = tl.sum(mixed * weight[:, None], 0) / tl.sum(weight, 0)
    tl.store(out_ptr + row * D + d, joined.to(out_ptr.dtype.element_ty), mask=d < D)
