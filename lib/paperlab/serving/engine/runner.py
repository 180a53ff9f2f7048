"""One iteration on one device: a batch of chunks in, the logits of the tokens that come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from paperlab.serving.engine.attention import PagedAttention
from paperlab.serving.engine.batch import FlatBatch, flatten
from paperlab.serving.engine.memory import KvStore
from paperlab.serving.work import Chunk
from paperlab.transformer.model import Attend, Decoder


class Runner:
    """Runs a `Decoder` over batches of chunks whose keys and values lie in the blocks of a `KvStore`.

    It keeps no state between iterations, so several lanes may call it at the same time for different sequences.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk], tokens: Mapping[int, list[int]], store: KvStore) -> tuple[list[int], Tensor]:
        """Compute `chunks` and return the ids of the requests whose next token comes out, and their logits (ids, V)."""
        batch = flatten(chunks, tokens, store)
        emitting = [batch.chunks[index].sequence.request.request_id for index in batch.emitting]
        return emitting, self._forward(batch, PagedAttention(store, batch))

    def _forward(self, batch: FlatBatch, attend: Attend) -> Tensor:
        model, rows = self.decoder, batch.last_rows
        x_1NH, rotary = model.embed_tokens(batch.ids_1N), model.rotary(batch.positions_1N)
        for layer, block in enumerate(model.layers):
            x_1NH = block(x_1NH, rotary, layer, attend)
        if len(rows) < x_1NH.shape[1]:  # only these pass the head, which may be the widest matrix of all
            x_1NH = x_1NH[:, rows]
        return model.head(x_1NH)[0]
