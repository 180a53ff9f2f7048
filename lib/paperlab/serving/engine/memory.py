"""The tensors behind a `BlockPool`: keys and values of all layers, addressed by block id."""

from __future__ import annotations

import torch
from torch import Tensor

from paperlab.transformer import ModelShape

KV = tuple[int, int, int, int, int]  # layers, blocks, block size, key/value heads, head size


class KvStore:
    """Keys and values of one pool, each (layers, blocks + 1, block_size, kv_heads, head_dim).

    The last block is nobody's: padding reads from it and padded rows write to it, so that no kernel needs to know
    which rows are padding. It starts as zeros, since a masked value still has to be a number.
    """

    def __init__(
        self, shape: ModelShape, blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        size: KV = (shape.layers, blocks + 1, block_size, shape.kv_heads, shape.head_dim)
        self.block_size, self.scratch, self.device = block_size, blocks, device
        self.keys = torch.zeros(size, dtype=dtype, device=device)
        self.values = torch.zeros(size, dtype=dtype, device=device)

    def write(self, layer: int, slots_N: Tensor, k_NGD: Tensor, v_NGD: Tensor) -> None:
        """Store one layer's keys and values of N tokens; a slot is block · block_size + offset."""
        self.keys[layer].flatten(0, 1).index_copy_(0, slots_N, k_NGD)
        self.values[layer].flatten(0, 1).index_copy_(0, slots_N, v_NGD)

    def gather(self, layer: int, blocks_M: Tensor) -> tuple[Tensor, Tensor]:
        """Return copies of one layer's keys and values in M blocks, each M · block_size, kv_heads, head_dim."""
        keys = self.keys[layer].index_select(0, blocks_M)
        return keys.flatten(0, 1), self.values[layer].index_select(0, blocks_M).flatten(0, 1)

    def copy_from(self, other: KvStore, source: list[int], target: list[int]) -> None:
        """Copy the blocks `source` of `other`, all layers, to the blocks `target` of this store."""
        if not source:
            return
        taken = torch.tensor(source, device=other.device)
        given = torch.tensor(target, device=self.device)
        self.keys.index_copy_(1, given, other.keys.index_select(1, taken).to(self.device))
        self.values.index_copy_(1, given, other.values.index_select(1, taken).to(self.device))


def block_bytes(shape: ModelShape, block_size: int, dtype: torch.dtype) -> int:
    """Return the bytes of one block: keys and values of all layers."""
    return 2 * shape.layers * block_size * shape.kv_width * dtype.itemsize
