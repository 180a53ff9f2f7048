"""The Triton kernels behind `attend`: one launch per layer for decoding, one for the longer chunks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from paperlab.serving.engine.batch import FlatBatch
from paperlab.serving.engine.kernels import Tiles, chunk_tiles, decode_tiles, key_parts, paged_attention
from paperlab.serving.engine.memory import KvStore


class TritonAttention:
    """As `attention.PagedAttention`, by kernels; the tensors given here are read anew at each call, so graphs can."""

    def __init__(
        self,
        store: KvStore,
        slots_N: Tensor,
        tables_SM: Tensor,
        lengths_S: Tensor,
        starts_S1: Tensor,
        tiles: Iterable[Tiles],
    ) -> None:
        self.store, self.slots_N, self.tiles = store, slots_N, tuple(tiles)
        self._tensors = (tables_SM, lengths_S, starts_S1)

    @classmethod
    def of(cls, store: KvStore, batch: FlatBatch, group: int) -> TritonAttention:
        """Return the attention of a batch; `group` is the number of query heads per key/value head."""
        counts = [after - before for before, after in zip(batch.starts, batch.starts[1:], strict=False)]
        tiles = []
        if batch.singles:
            tiles.append(decode_tiles(batch.singles, default_parts(batch.singles, store), store.device))
        if batch.singles < len(counts):
            tiles.append(chunk_tiles(counts[batch.singles :], batch.singles, group, store.device))
        starts_S1 = torch.tensor(batch.starts, device=store.device)
        return cls(store, batch.slots_N, batch.tables_SM, batch.lengths_S, starts_S1, tiles)

    def __call__(self, layer: int, q_1NAD: Tensor, k_1NGD: Tensor, v_1NGD: Tensor) -> Tensor:
        """Return the mixed values of one layer, 1 N A D."""
        self.store.write(layer, self.slots_N, k_1NGD[0], v_1NGD[0])
        q_NAD = q_1NAD[0].contiguous()
        out_NAD = torch.empty_like(q_NAD)
        for tiles in self.tiles:
            paged_attention(q_NAD, self.store.keys[layer], self.store.values[layer], *self._tensors, tiles, out_NAD)
        return out_NAD[None]


def default_parts(sequences: int, store: KvStore) -> int:
    """Return the parts of the keys for `sequences` decoding ones on the store's device."""
    if store.device.type != "cuda":
        return 1
    multiprocessors = torch.cuda.get_device_properties(store.device).multi_processor_count
    return key_parts(sequences, store.keys.shape[3], multiprocessors)
