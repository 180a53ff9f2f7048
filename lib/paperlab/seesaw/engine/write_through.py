"""Prefill that leaves its keys and values on the host: layer by layer, behind the layer's attention and MLP (§5.2)."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from paperlab.seesaw.engine.messages import Span
from paperlab.seesaw.engine.tiers import row_slots, shared_heads
from paperlab.seesaw.engine.transfers import EmulatedLink, Transfers
from paperlab.seesaw.layout import Shard
from paperlab.transformer.model import causal_attention

Copies = Literal["overlapped", "blocking", "none"]


class LayerCopy(NamedTuple):
    """One layer of a micro-batch on its way to `target_BG`'s `blocks`; without a layer, the micro-batch's end."""

    job: int
    layer: int
    slab: Callable[[], Tensor] | None
    target_B2GSD: Tensor | None
    blocks: list[int]
    nbytes: int


class Writer:
    """Brings layers to the host's store, on a thread of its own or, `blocking`, in the caller's.

    What is under way is bounded: `push` waits while more than `limit_bytes` of keys and values are. `written` hears of
    each micro-batch whose last layer has arrived, with one span per layer.
    """

    def __init__(
        self,
        transfers: Transfers,
        link: EmulatedLink,
        copies: Copies,
        limit_bytes: int,
        written: Callable[[int, list[Span], int], None],
        failed: Callable[[BaseException], None],
        rank: int,
    ) -> None:
        self.transfers, self.copies, self.rank = transfers, copies, rank
        self._link, self._limit_bytes, self._written, self._failed = link, limit_bytes, written, failed
        self._queue: queue.SimpleQueue[LayerCopy | None] = queue.SimpleQueue()
        self._room, self._under_way_bytes = threading.Condition(), 0
        self._spans: list[Span] = []
        self._thread = threading.Thread(target=self._serve, name="write-through", daemon=True)
        if copies == "overlapped":
            self._thread.start()

    def push(self, item: LayerCopy) -> None:
        """Send a layer on its way."""
        if self.copies == "blocking":
            self._copy(item)
            return
        with self._room:
            self._room.wait_for(lambda: self._under_way_bytes + item.nbytes <= max(self._limit_bytes, item.nbytes))
            self._under_way_bytes += item.nbytes
        self._queue.put(item)

    def end(self, job: int) -> None:
        """Say that a micro-batch has sent all its layers."""
        item = LayerCopy(job, -1, None, None, [], 0)
        if self.copies == "overlapped":
            self._queue.put(item)
        else:
            self._copy(item)

    def close(self) -> None:
        """End the thread after what it holds."""
        if self.copies == "overlapped":
            self._queue.put(None)
            self._thread.join()

    def _serve(self) -> None:
        try:
            with torch.inference_mode():
                while (item := self._queue.get()) is not None:
                    self._copy(item)
                    with self._room:
                        self._under_way_bytes -= item.nbytes
                        self._room.notify()
        except BaseException as error:
            self._failed(error)

    def _copy(self, item: LayerCopy) -> None:
        if item.slab is None or item.target_B2GSD is None:
            spans, self._spans = self._spans, []
            self._written(item.job, spans, sum(span.moved_bytes for span in spans))
            return
        begin_s = time.perf_counter()
        item.target_B2GSD.index_copy_(0, torch.tensor(item.blocks), item.slab()[:, 0])
        self._link.pay(item.nbytes, begin_s)
        end_s = time.perf_counter()
        span = Span(self.rank, "out", "swap-out", begin_s, end_s, item.job, item.layer, moved_bytes=item.nbytes)
        self._spans.append(span)


class WriteThrough:
    """What stands behind `attend` while whole prompts run: sends the layer's keys and values, then mixes them.

    Of ranks that hold the same head, each writes every `copies`-th block, so that they share the work.
    """

    def __init__(
        self,
        writer: Writer,
        part_BL2GSD: Tensor,
        job: int,
        lengths: tuple[int, ...],
        starts: tuple[int, ...],
        tables: list[list[int]],
        shard: Shard,
        device: torch.device,
    ) -> None:
        """`starts` are the sequences' first rows, `tables` their host blocks."""
        place, copies = shared_heads(shard)
        self._first_layer = shard.layers.start
        block_size = part_BL2GSD.shape[-2]
        self._spans = [slice(start, start + length) for start, length in zip(starts, lengths, strict=True)]
        self._slots_MS = row_slots(list(starts), list(lengths), block_size, device)[place::copies]
        self._blocks = [block for table in tables for block in table][place::copies]
        self._writer, self._part, self._job = writer, part_BL2GSD, job
        self.marks_s: list[float] = []  # when each layer's keys and values were there

    def __call__(self, layer: int, q_1NAD: Tensor, k_1NGD: Tensor, v_1NGD: Tensor) -> Tensor:
        """Return the mixed values of one layer, 1 N A D."""
        self.marks_s.append(time.perf_counter())
        if self._blocks and self._writer.copies != "none":
            target = self._part[:, layer]
            nbytes = len(self._blocks) * target[0].nbytes
            slab = self._writer.transfers.rows_out(k_1NGD, v_1NGD, self._slots_MS)
            self._writer.push(LayerCopy(self._job, self._first_layer + layer, slab, target, self._blocks, nbytes))
        mixed = [causal_attention(layer, *(x[:, rows] for x in (q_1NAD, k_1NGD, v_1NGD))) for rows in self._spans]
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)
