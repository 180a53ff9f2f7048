"""Attention over keys and values that lie in scattered blocks, in plain torch: the reference, and the CPU's path.

Legend: N tokens of the batch, A query heads, G key/value heads, R = A / G, D head size, B chunks of one token, T
tokens of the longest of them rounded up to whole blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from paperlab.serving.engine.batch import FlatBatch
from paperlab.serving.engine.memory import KvStore
from paperlab.transformer.model import causal_attention


class PagedAttention:
    """What stands behind `attend` for one pass: stores the new keys and values, then mixes what the blocks hold.

    Chunks of one token go through one batched product per layer, longer chunks one by one. Whatever does not depend
    on the layer is prepared here, once.
    """

    def __init__(self, store: KvStore, batch: FlatBatch) -> None:
        self.store, self.batch = store, batch
        singles, size = batch.singles, store.block_size
        if singles:
            width = -(-max(batch.lengths[:singles]) // size)
            self._blocks = batch.tables_SM[:singles, :width].flatten()
            inside_BT = torch.arange(width * size, device=store.device) < batch.lengths_S[:singles, None]
            self._inside_B11T = inside_BT[:, None, None]
        self._chunks = []
        for index in range(singles, len(batch.lengths)):
            length = batch.lengths[index]
            rows = slice(batch.starts[index], batch.starts[index + 1])
            self._chunks.append((rows, batch.tables_SM[index, : -(-length // size)], length))

    def __call__(self, layer: int, q_1NAD: Tensor, k_1NGD: Tensor, v_1NGD: Tensor) -> Tensor:
        """Return the mixed values of one layer, 1 N A D."""
        self.store.write(layer, self.batch.slots_N, k_1NGD[0], v_1NGD[0])
        singles, mixed = self.batch.singles, []
        if singles:
            mixed.append(self._decode(layer, q_1NAD[0, :singles])[None])
        for rows, blocks, length in self._chunks:
            k_TGD, v_TGD = self.store.gather(layer, blocks)
            mixed.append(causal_attention(layer, q_1NAD[:, rows], k_TGD[None, :length], v_TGD[None, :length]))
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)

    def _decode(self, layer: int, q_BAD: Tensor) -> Tensor:
        B, A, D = q_BAD.shape
        k_TGD, v_TGD = self.store.gather(layer, self._blocks)
        k_BGTD, v_BGTD = (x.unflatten(0, (B, -1)).transpose(1, 2) for x in (k_TGD, v_TGD))
        # The R query heads of a group take the place of R queries, so no key is repeated.
        q_BGRD = q_BAD.unflatten(1, (k_BGTD.shape[1], -1))
        mixed = F.scaled_dot_product_attention(q_BGRD, k_BGTD, v_BGTD, self._inside_B11T)
        if not mixed.isfinite().all():  # behind a sequence's end may lie NaN of an earlier one, which no mask stops
            outside_B1T1 = ~self._inside_B11T.transpose(2, 3)
            k_BGTD, v_BGTD = (x.masked_fill(outside_B1T1, 0) for x in (k_BGTD, v_BGTD))
            mixed = F.scaled_dot_product_attention(q_BGRD, k_BGTD, v_BGTD, self._inside_B11T)
        return mixed.reshape(B, A, D)
