"""The Triton kernels against plain torch over the same scattered blocks, compiled on CUDA, interpreted elsewhere."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from paperlab.serving.engine.attention import PagedAttention
from paperlab.serving.engine.batch import flatten
from paperlab.serving.engine.kernels import chunk_tiles, decode_tiles, key_parts
from paperlab.serving.engine.memory import KvStore
from paperlab.serving.engine.triton_attention import TritonAttention
from paperlab.serving.request import Request, Sequence
from paperlab.serving.work import Chunk
from paperlab.transformer import ModelShape

ROUNDING = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}


def filled_store(heads, kv_heads, head_dim, block_size, device, dtype=torch.float32, blocks=200):
    shape = ModelShape(
        name="t", layers=2, hidden=8, heads=heads, kv_heads=kv_heads, head_dim=head_dim, ffn=8, vocab=9,
        max_positions=512, mlp="gated", norm="rmsnorm", position="rope",
    )  # fmt: skip
    store = KvStore(shape, blocks, block_size, dtype, device)
    store.keys.normal_()
    store.values.normal_()
    return store


def batch_of(store, pairs):
    """Return a batch of (stored, new) token counts whose blocks are scattered over the store."""
    free = torch.randperm(store.scratch).tolist()
    chunks, tokens = [], {}
    for index, (stored, new) in enumerate(pairs):
        sequence = Sequence(Request(index, 0.0, stored + new, 5), computed=stored)
        sequence.blocks = [free.pop() for _ in range(-(-(stored + new) // store.block_size))]
        tokens[index] = [1] * (stored + new)
        chunks.append(Chunk(sequence, new))
    return flatten(chunks, tokens, store)


def both(store, batch, heads, parts=1):
    N, kv_heads, head_dim = batch.slots_N.shape[0], *store.keys.shape[3:]
    q, k, v = (
        torch.randn(1, N, n, head_dim, device=store.device, dtype=store.keys.dtype) for n in (heads, kv_heads, kv_heads)
    )
    kernel = TritonAttention.of(store, batch, heads // kv_heads)
    if parts > 1:
        kernel.tiles = tuple(tiles._replace(parts=parts) if tiles.queries == 1 else tiles for tiles in kernel.tiles)
    return kernel(1, q, k, v), PagedAttention(store, batch)(1, q, k, v)


@pytest.mark.parametrize("block_size", [1, 7, 16])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 2), (5, 1), (16, 2)])
def test_mixed_batches(device, block_size, heads, kv_heads):
    store = filled_store(heads, kv_heads, 16, block_size, device)
    batch = batch_of(store, [(20, 1), (0, 13), (0, 1), (9, 21), (70, 1)])
    ours, reference = both(store, batch, heads)
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head_dim", [5, 16, 24, 33, 80])
@pytest.mark.parametrize("dtype", ROUNDING)
def test_head_sizes_and_dtypes(device, head_dim, dtype):
    if dtype is torch.bfloat16 and device.type == "cpu":
        pytest.skip("Triton's interpreter multiplies the bits of bf16")
    store = filled_store(4, 2, head_dim, 7, device, dtype)
    ours, reference = both(store, batch_of(store, [(30, 1), (3, 9)]), 4)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.float(), reference.float(), rtol=ROUNDING[dtype], atol=ROUNDING[dtype])


@pytest.mark.parametrize("parts", [2, 4, 16])
def test_keys_in_parts_some_of_them_empty(device, parts):
    store = filled_store(4, 2, 16, 7, device)
    batch = batch_of(store, [(0, 1), (63, 1), (64, 1), (300, 1), (5, 8)])
    ours, reference = both(store, batch, 4, parts)
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)


def test_the_reference_by_definition(device):
    """What both are compared with: softmax over the keys up to a query's own, looked up one by one."""
    store = filled_store(4, 2, 8, 7, device)
    batch = batch_of(store, [(20, 1), (9, 4)])
    q, k, v = (torch.randn(1, 5, n, 8, device=device) for n in (4, 2, 2))
    found = PagedAttention(store, batch)(0, q, k, v)
    for index, (sequence, count) in enumerate(batch.chunks):
        for offset in range(count):
            row, last = batch.starts[index] + offset, sequence.computed + offset
            slots = [(sequence.blocks[t // 7], t % 7) for t in range(last + 1)]
            keys = torch.stack([store.keys[0][slot] for slot in slots]).repeat_interleave(2, dim=1)
            values = torch.stack([store.values[0][slot] for slot in slots]).repeat_interleave(2, dim=1)
            weights = (torch.einsum("ad,tad->at", q[0, row], keys) / 8**0.5).softmax(-1)
            torch.testing.assert_close(found[0, row], torch.einsum("at,tad->ad", weights, values))


def test_what_an_earlier_sequence_left_behind_reaches_nobody(device):
    """A model that overflows leaves NaN in its blocks, which the next owner fills from the front."""
    store = filled_store(4, 2, 16, 7, device)
    batch = batch_of(store, [(20, 1), (0, 1), (3, 1), (9, 4)])
    seen = torch.zeros(store.keys.shape[1:3], dtype=torch.bool, device=device)
    for sequence, count in batch.chunks:
        for t in range(sequence.computed + count):
            seen[sequence.blocks[t // 7], t % 7] = True
    for cache in (store.keys, store.values):
        cache[:, ~seen] = float("nan")
    torch.manual_seed(1)
    found = both(store, batch, 4)
    torch.manual_seed(1)
    for cache in (store.keys, store.values):
        cache[:, ~seen] = 0.0
    for ours, clean in zip(found, both(store, batch, 4), strict=True):
        torch.testing.assert_close(ours, clean, rtol=0, atol=0)


def test_tiles_cover_every_query_once(device):
    tiles = chunk_tiles([70, 1, 64], 2, 2, device)
    covered = [
        (int(sequence), query)
        for sequence, first in zip(tiles.sequence_T, tiles.first_T, strict=True)
        for query in range(int(first), min(int(first) + tiles.queries, [70, 1, 64][int(sequence) - 2]))
    ]
    assert sorted(covered) == [(2 + i, query) for i, count in enumerate([70, 1, 64]) for query in range(count)]
    assert decode_tiles(3, 4, device).sequence_T.tolist() == [0, 1, 2]


@pytest.mark.parametrize("sequences", [1, 3, 16, 64, 500])
def test_parts_fill_the_device_and_are_powers_of_two(sequences):
    parts = key_parts(sequences, 2, 132)
    assert parts & (parts - 1) == 0
    assert parts == 1 or parts * sequences * 2 <= 2 * 132
    assert parts in (1, 32) or 2 * parts * sequences * 2 > 2 * 132


_COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from paperlab.serving.engine import kernels, probe

def build(kernel, warps=4, **arguments):
    names = kernel.arg_names
    signature = {n: arguments[n] if isinstance(arguments[n], str) else "constexpr" for n in names}
    constants = {(i,): arguments[n] for i, n in enumerate(names) if signature[n] == "constexpr"}
    source = ASTSource(kernel, signature=signature, constexprs=constants)
    options = kernels.LAUNCH_OPTIONS | {"num_warps": warps}
    built = compile(source, target=GPUTarget("cuda", CAPABILITY, 32), options=options)
    assert built.asm["cubin"] and "f64" not in built.asm["ptx"]
    assert built.metadata.shared <= SHARED, built.metadata.shared
    return built.asm["ptx"]

integers = dict.fromkeys(("tables_ptr", "lengths_ptr", "starts_ptr"), "*i64")
integers |= dict.fromkeys(("sequence_ptr", "first_ptr"), "*i32")
integers |= dict.fromkeys(("table_stride", "block_size", "N", "A", "G"), "i32")
for dtype, size in (("*bf16", 2), ("*fp16", 2), ("*fp32", 4)):
    tensors = dict.fromkeys(("q_ptr", "k_ptr", "v_ptr", "out_ptr"), dtype)
    for R, queries, rows, parts in ((8, 1, 16, 32), (4, 1, 16, 1), (8, 8, 64, 1), (1, 64, 64, 1)):
        partial = dict.fromkeys(("part_ptr", "weight_ptr"), "*fp32" if parts > 1 else dtype)
        build(kernels._attend, **tensors, **partial, **integers, scale="fp32", R=R, D=128, QUERIES=queries, ROWS=rows,
              WIDTH=128, KEYS=kernels.step_keys(size), PARTS=parts)
    build(kernels._join, part_ptr="*fp32", weight_ptr="*fp32", out_ptr=dtype, N="i32", A="i32", D=128, WIDTH=128,
          PARTS=32)
assert "%smid" in build(probe._probe, 1, where_ptr="*i32", noise_ptr="*fp32", ROUNDS="i32")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("capability", "shared_bytes"), [(80, 166_912), (89, 101_376), (90, 232_448)])
def test_kernels_compile_for_cuda_without_a_device(capability, shared_bytes, tmp_path, monkeypatch):
    """The interpreter forgives what the compiler does not, and knows no limit of shared memory."""
    pytest.importorskip("triton.backends.nvidia")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    code = f"CAPABILITY, SHARED = {capability}, {shared_bytes}\n{_COMPILE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
