"""A batch of chunks as flat tensors: made once per iteration, read by every layer.

Legend: N tokens of the batch, S chunks, M blocks of the longest table, G key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paperlab.serving.engine.memory import KvStore
from paperlab.serving.work import Chunk


@dataclass(frozen=True)
class FlatBatch:
    """Chunks one after the other: the `singles` of one token each first, then the longer ones.

    A chunk of one token is decoding, or the last token of a prompt: to the model they are the same.
    """

    chunks: tuple[Chunk, ...]  # in the order of the rows
    singles: int
    ids_1N: Tensor
    positions_1N: Tensor
    slots_N: Tensor  # where each token's keys and values go
    starts: tuple[int, ...]  # S + 1: first row of each chunk, and N
    lengths: tuple[int, ...]  # S: stored and new tokens
    tables_SM: Tensor  # block ids, padded with the scratch block
    lengths_S: Tensor

    @property
    def emitting(self) -> list[int]:
        """Indices of the chunks whose next token comes out: those that leave nothing pending."""
        return [i for i, (sequence, tokens) in enumerate(self.chunks) if tokens == sequence.pending]

    @property
    def last_rows(self) -> list[int]:
        """The row of the last token of each chunk that emits."""
        return [self.starts[i + 1] - 1 for i in self.emitting]


def flatten(chunks: Sequence[Chunk], tokens: Mapping[int, list[int]], store: KvStore) -> FlatBatch:
    """Lay `chunks` out for one pass over `store`; `tokens` holds each request's known token ids."""
    ordered = sorted(chunks, key=lambda chunk: chunk.tokens > 1)
    ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    starts, lengths, size = [0], [], store.block_size
    width = max(-(-(sequence.computed + count) // size) for sequence, count in ordered)
    tables = []
    for sequence, count in ordered:
        first, blocks = sequence.computed, sequence.blocks
        span = range(first, first + count)
        ids += tokens[sequence.request.request_id][first : first + count]
        positions += span
        slots += [blocks[position // size] * size + position % size for position in span]
        starts.append(starts[-1] + count)
        lengths.append(first + count)
        # A sequence may own more blocks than it fills so far: those after the last token are not read.
        row = blocks[:width]
        tables.append(row + [store.scratch] * (width - len(row)))
    device = store.device
    return FlatBatch(
        chunks=tuple(ordered),
        singles=sum(chunk.tokens == 1 for chunk in ordered),
        ids_1N=torch.tensor([ids], device=device),
        positions_1N=torch.tensor([positions], device=device),
        slots_N=torch.tensor(slots, device=device),
        starts=tuple(starts),
        lengths=tuple(lengths),
        tables_SM=torch.tensor(tables, device=device),
        lengths_S=torch.tensor(lengths, device=device),
    )
