"""The two tiers of keys and values: the ranks' common store on the host, heads over tokens (HND), and packing for it.

The host's store is the re-sharding operator (§4.2, Fig. 7): ranks write their part of the layout they prefill in, and
read their part of the one they decode in. With heads outside of tokens a tensor-parallel part of a block is one run.

Legend: B blocks of the store, M blocks moved, L layers, G key/value heads, S tokens per block, D head size, T tokens.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from paperlab.seesaw.layout import Shard
from paperlab.serving.engine.memory import KvStore, block_bytes
from paperlab.transformer import ModelShape


class HostStore:
    """The host's blocks, (blocks, layers, 2, kv_heads, block_size, head_dim), over memory that all ranks map."""

    def __init__(self, model: ModelShape, block_size: int, dtype: torch.dtype, buffer: Tensor) -> None:
        """View `buffer` (bytes) as whole blocks of the model."""
        size = (model.layers, 2, model.kv_heads, block_size, model.head_dim)
        whole = buffer.nbytes // block_bytes(model, block_size, dtype)
        self.blocks_BL2GSD = buffer.view(dtype)[: whole * torch.Size(size).numel()].view(whole, *size)

    def part(self, shard: Shard) -> Tensor:
        """Return the view, B L 2 G S D, of what a rank writes and reads."""
        layers, heads = shard.layers, shard.kv_heads
        return self.blocks_BL2GSD[:, layers.start : layers.stop, :, heads.start : heads.stop]


def device_store(shard: Shard, blocks: int, block_size: int, dtype: torch.dtype, device: torch.device) -> KvStore:
    """Return the paged memory of a rank's layers and heads."""
    own = replace(shard.model, layers=len(shard.layers), heads=len(shard.query_heads), kv_heads=len(shard.kv_heads))
    return KvStore(own, blocks, block_size, dtype, device)


def shared_heads(shard: Shard) -> tuple[int, int]:
    """Return this rank's place among those that hold the same key/value heads, and how many they are."""
    copies = max(1, shard.layout.tp // shard.model.kv_heads)
    return shard.tp_rank % copies, copies


def block_slots(blocks: list[int], block_size: int, device: torch.device) -> Tensor:
    """Return the places, M S, of the tokens of paged `blocks`."""
    first_M1 = torch.tensor(blocks, device=device)[:, None] * block_size
    return first_M1 + torch.arange(block_size, device=device)


def row_slots(starts: list[int], lengths: list[int], block_size: int, device: torch.device) -> Tensor:
    """Return the rows, M S, of a batch that fill each block when sequences begin at `starts`; -1 past a sequence's end.

    A sequence of `length` tokens takes as many blocks as it needs, the last one filled in part.
    """
    parts = []
    for start, length in zip(starts, lengths, strict=True):
        blocks = -(-length // block_size)
        rows = torch.arange(blocks * block_size)
        parts.append(torch.where(rows < length, rows + start, -1).view(blocks, block_size))
    return torch.cat(parts).to(device)


def pack(keys_LTGD: Tensor, values_LTGD: Tensor, slots_MS: Tensor) -> Tensor:
    """Return the tokens at `slots_MS` as one slab, M L 2 G S D; what stands at negative slots is arbitrary."""
    (L, _, G, D), (M, S) = keys_LTGD.shape, slots_MS.shape
    if keys_LTGD.is_cuda:
        from paperlab.seesaw.engine.kernels import move

        packed = keys_LTGD.new_empty((M, L, 2, G, S, D))
        move(keys_LTGD, values_LTGD, slots_MS, packed, pack=True)
        return packed
    slots = slots_MS.flatten().clamp(min=0)
    packed = keys_LTGD.new_empty((M, L, 2, G, S, D))
    for index, source in enumerate((keys_LTGD, values_LTGD)):
        taken_LMSGD = source.index_select(1, slots).unflatten(1, (M, S))
        packed[:, :, index] = taken_LMSGD.permute(1, 0, 3, 2, 4)
    return packed


def unpack(packed_ML2GSD: Tensor, keys_LTGD: Tensor, values_LTGD: Tensor, slots_MS: Tensor) -> None:
    """Write a slab to the tokens at `slots_MS`, which must not be negative."""
    if keys_LTGD.is_cuda:
        from paperlab.seesaw.engine.kernels import move

        move(keys_LTGD, values_LTGD, slots_MS, packed_ML2GSD, pack=False)
        return
    slots = slots_MS.flatten()
    for index, target in enumerate((keys_LTGD, values_LTGD)):
        taken_LMSGD = packed_ML2GSD[:, :, index].permute(1, 0, 3, 2, 4)
        target.index_copy_(1, slots, taken_LMSGD.flatten(1, 2))


def tokens_of(store: KvStore) -> tuple[Tensor, Tensor]:
    """Return keys and values of a store as L T G D."""
    return store.keys.flatten(1, 2), store.values.flatten(1, 2)
