"""Decoding captured in CUDA graphs: one launch in place of some hundred per iteration. It has not run on a GPU yet."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from paperlab.serving.engine.batch import FlatBatch
from paperlab.serving.engine.kernels import decode_tiles
from paperlab.serving.engine.memory import KvStore
from paperlab.serving.engine.triton_attention import TritonAttention, default_parts
from paperlab.transformer.model import Attend

Forward = Callable[[Tensor, Tensor, Attend], Tensor]  # ids, positions, attend -> logits of all rows
BUCKETS = (1, 2, 4, 8, *range(16, 257, 16))
_capturing = threading.Lock()


@dataclass(frozen=True)
class _Captured:
    """A graph and the tensors that it reads (a batch padded to the bucket) and writes.

    The graph knows its tensors by address only: `attend` keeps those alive that nothing else refers to.
    """

    graph: Any
    attend: TritonAttention
    ids_1B: Tensor
    positions_1B: Tensor
    slots_B: Tensor
    tables_BM: Tensor
    lengths_B: Tensor
    logits_BV: Tensor

    def fill(self, batch: FlatBatch, scratch: int, block_size: int) -> None:
        """Copy a batch in; the rows above it read and write the scratch block."""
        rows, width = batch.tables_SM.shape
        self.ids_1B[:, :rows] = batch.ids_1N
        self.positions_1B[:, :rows] = batch.positions_1N
        self.slots_B.fill_(scratch * block_size)
        self.slots_B[:rows] = batch.slots_N
        self.tables_BM[rows:, 0] = scratch
        self.tables_BM[:rows, :width] = batch.tables_SM
        self.lengths_B.fill_(1)
        self.lengths_B[:rows] = batch.lengths_S


class DecodeGraphs:
    """Graphs by stream, pool and batch size rounded up to a bucket, each captured when it is first needed.

    A captured kernel keeps the multiprocessors of the stream it was captured on, so every layout needs its own;
    the key is the current stream, which is different for each layout and lane.
    """

    def __init__(self, forward: Forward, max_tokens: int) -> None:
        """`forward` must issue the same kernels at each call; `max_tokens` is the longest sequence."""
        self._forward, self._max_tokens = forward, max_tokens
        self._graphs: dict[tuple[int, int, int], _Captured] = {}
        self._memory: dict[int, Any] = {}  # graphs of one stream never run at once, so they share their memory

    def fits(self, batch: FlatBatch) -> bool:
        """Whether the batch only decodes and is no larger than the largest bucket."""
        return len(batch.lengths) == batch.singles <= BUCKETS[-1]

    def run(self, batch: FlatBatch, store: KvStore) -> Tensor:
        """Return the logits of all rows; they are overwritten by the next run on this stream."""
        bucket = BUCKETS[bisect_left(BUCKETS, batch.singles)]
        stream = torch.cuda.current_stream(store.device)
        key = (stream.cuda_stream, id(store), bucket)
        if key not in self._graphs:
            with _capturing:
                self._graphs[key] = self._capture(bucket, store, stream)
        captured = self._graphs[key]
        captured.fill(batch, store.scratch, store.block_size)
        captured.graph.replay()
        return captured.logits_BV[: batch.singles]

    def _capture(self, bucket: int, store: KvStore, stream: Any) -> _Captured:
        device, longest = store.device, min(self._max_tokens, store.scratch * store.block_size)
        width = -(-longest // store.block_size)
        ids, positions = (torch.zeros(1, bucket, dtype=torch.int64, device=device) for _ in range(2))
        slots = torch.full((bucket,), store.scratch * store.block_size, device=device)
        tables = torch.full((bucket, width), store.scratch, device=device)
        lengths = torch.ones(bucket, dtype=torch.int64, device=device)
        starts, tiles = (
            torch.arange(bucket + 1, device=device),
            decode_tiles(bucket, default_parts(bucket, store), device),
        )
        attend = TritonAttention(store, slots, tables, lengths, starts, [tiles])
        for _ in range(2):  # compiles kernels and sets up cuBLAS, which cannot be captured
            self._forward(ids, positions, attend)
        stream.synchronize()
        pool = self._memory.setdefault(stream.cuda_stream, torch.cuda.graph_pool_handle())
        graph = torch.cuda.CUDAGraph()
        # Another lane's thread may allocate meanwhile: only this thread's calls are watched.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            logits = self._forward(ids, positions, attend)
        return _Captured(graph, attend, ids, positions, slots, tables, lengths, logits)
