"""One iteration on one device: a batch of chunks in, the logits of the tokens that come out."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from collections.abc import Sequence as Listed
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from paperlab.serving.engine.attention import PagedAttention
from paperlab.serving.engine.batch import FlatBatch, flatten
from paperlab.serving.engine.memory import KvStore
from paperlab.serving.request import Request, Sequence
from paperlab.serving.work import Chunk
from paperlab.transformer.model import Attend, Decoder

if TYPE_CHECKING:
    from paperlab.serving.engine.graphs import DecodeGraphs

Backend = Literal["torch", "triton"]


class Runner:
    """Runs a `Decoder` over batches of chunks whose keys and values lie in the blocks of a `KvStore`.

    It keeps no state between iterations but captured graphs, so several lanes may call it at the same time for
    different sequences.
    """

    def __init__(self, decoder: Decoder, backend: Backend | None = None, graphs: bool | None = None) -> None:
        """`backend` of attention and `graphs` default to Triton with graphs on CUDA (torch for float64), or torch."""
        weight = decoder.embed_tokens.weight
        compiled = weight.is_cuda and weight.dtype != torch.float64
        self.decoder = decoder
        self.backend: Backend = backend or ("triton" if compiled else "torch")
        self._graphs: DecodeGraphs | None = None
        if (weight.is_cuda and self.backend == "triton") if graphs is None else graphs:
            from paperlab.serving.engine.graphs import DecodeGraphs

            self._graphs = DecodeGraphs(self._forward, decoder.shape.max_positions)

    @torch.inference_mode()
    def run(self, chunks: Listed[Chunk], tokens: Mapping[int, list[int]], store: KvStore) -> tuple[list[int], Tensor]:
        """Compute `chunks`; return the ids of the requests whose next token comes out, and their logits (ids, V)."""
        batch = flatten(chunks, tokens, store)
        emitting = [batch.chunks[index].sequence.request.request_id for index in batch.emitting]
        return emitting, self.forward(batch, store)

    @torch.inference_mode()
    def forward(self, batch: FlatBatch, store: KvStore) -> Tensor:
        """Compute a batch that is laid out already; return the logits of the chunks that leave nothing pending."""
        rows = batch.last_rows
        if self._graphs is not None and self._graphs.fits(batch):
            logits = self._graphs.run(batch, store)
            return logits if len(rows) == len(logits) else logits[rows]
        return self._forward(batch.ids_1N, batch.positions_1N, self._attention(batch, store), rows)

    def warm_up(self, store: KvStore, sequences: int) -> None:
        """Capture the graphs for decode batches of up to `sequences` on the current stream; the store must be idle."""
        if self._graphs is None:
            return
        from paperlab.serving.engine.graphs import BUCKETS

        for size in BUCKETS[: bisect_left(BUCKETS, sequences) + 1]:
            chunks = [Chunk(Sequence(Request(index, 0.0, 1, 1), blocks=[0]), 1) for index in range(size)]
            self.run(chunks, {index: [0] for index in range(size)}, store)

    def _attention(self, batch: FlatBatch, store: KvStore) -> Attend:
        if self.backend == "torch":
            return PagedAttention(store, batch)
        from paperlab.serving.engine.triton_attention import TritonAttention

        shape = self.decoder.shape
        return TritonAttention.of(store, batch, shape.heads // shape.kv_heads)

    def _forward(self, ids_1N: Tensor, positions_1N: Tensor, attend: Attend, rows: Listed[int] | None = None) -> Tensor:
        """Return the logits of `rows`, or of all."""
        model = self.decoder
        x_1NH, rotary = model.embed_tokens(ids_1N), model.rotary(positions_1N)
        for layer, block in enumerate(model.layers):
            x_1NH = block(x_1NH, rotary, layer, attend)
        if rows is not None and len(rows) < x_1NH.shape[1]:  # only these pass the head, often the widest matrix
            x_1NH = x_1NH[:, rows]
        return model.head(x_1NH)[0]
