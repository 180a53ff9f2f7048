"""One rank at work on one model: its weights, its part of the keys and values, and what it does for each order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from paperlab.seesaw.engine.communicators import Communicators, Links
from paperlab.seesaw.engine.messages import ChunkOrder, Forward, Load, Report, Span, Swap
from paperlab.seesaw.engine.shard_model import ShardModel
from paperlab.seesaw.engine.shared import map_shared
from paperlab.seesaw.engine.tiers import HostStore, device_store, shared_heads
from paperlab.seesaw.engine.transfers import EmulatedLink, transfers
from paperlab.seesaw.engine.weights import HostWeights, WeightMemory, host_bytes
from paperlab.seesaw.engine.write_through import Copies, Writer, WriteThrough
from paperlab.seesaw.layout import Layout, Shard
from paperlab.serving.engine.attention import PagedAttention
from paperlab.serving.engine.batch import FlatBatch, flatten
from paperlab.serving.engine.memory import KvStore
from paperlab.serving.request import Request, Sequence
from paperlab.serving.work import Chunk
from paperlab.transformer import ModelShape
from paperlab.transformer.model import Attend

DTYPE_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
DEVICE_SHARE = 0.8  # of a GPU's memory that is free once the weights are there; the rest is for activations


@dataclass(frozen=True)
class Setup:
    """What every rank is told when an engine opens.

    `layouts` are those of one replica, the first of them for prefill, the last one for decode. `device_blocks` 0: as
    many as fit. `kv_paths` are the replicas' host stores.
    """

    model: ModelShape
    layouts: tuple[Layout, ...]
    dtype: torch.dtype
    weights_path: str
    weights_shapes: dict[str, tuple[int, ...]]
    kv_paths: tuple[tuple[str, int], ...]  # and their bytes
    block_size: int
    device_blocks: int
    staging_tokens: int
    copies: Copies
    host_link_Bps: float | None
    peer_bus_Bps: float | None

    def shard(self, layout: Layout, rank: int) -> Shard:
        """Return what a rank of the whole pool holds in a layout."""
        return layout.shard(self.model, rank % layout.replica_ranks)


class Session:
    """What one rank keeps while an engine is open. `report` sends to the driver, from any thread."""

    def __init__(self, setup: Setup, communicators: Communicators, report: Callable[[Report], None]) -> None:
        rank, device = communicators.rank, communicators.device
        self.setup, self.rank, self.device, self._report = setup, rank, device, report
        replica = rank // setup.layouts[0].replica_ranks
        first = replica * setup.layouts[0].replica_ranks
        mapped = map_shared(setup.weights_path, host_bytes(setup.weights_shapes, setup.dtype))
        host = HostWeights(setup.weights_shapes, setup.dtype, mapped)
        self.shards = {str(layout): setup.shard(layout, rank) for layout in setup.layouts}
        self.weights = WeightMemory(self.shards, device, host)
        self.models = {}
        for layout in setup.layouts:
            shard, views = self.shards[str(layout)], self.weights.views[str(layout)]
            links = Links(communicators, layout, shard, first, setup.peer_bus_Bps)
            self.models[str(layout)] = ShardModel(shard, views, links)
        self.loaded = ""
        path, nbytes = setup.kv_paths[replica]
        self.host = HostStore(setup.model, setup.block_size, setup.dtype, map_shared(path, nbytes))
        self.transfers = transfers(device)
        self._links = {direction: EmulatedLink(setup.host_link_Bps) for direction in ("in", "out")}
        prefill = self.shards[str(setup.layouts[0])]
        limit = setup.staging_tokens * prefill.kv_token_bytes(DTYPE_NAMES[setup.dtype])
        self.writer = Writer(self.transfers, self._links["out"], setup.copies, limit, self._written, self.failed, rank)
        self.store: KvStore | None = None

    def reserve(self, blocks: int) -> None:
        """Allocate the rank's part of the device tier; the layout is the one that decodes."""
        self.store = device_store(self._decoding, blocks, self.setup.block_size, self.setup.dtype, self.device)

    def fitting_blocks(self) -> int:
        """Return how many blocks fit on this rank's GPU beside its weights; 0 on a CPU, which does not say."""
        if self.device.type != "cuda":
            return 0
        weights = max(sum(view.nbytes for view in views.values()) for views in self.weights.views.values())
        free = DEVICE_SHARE * (torch.cuda.mem_get_info(self.device)[0] - weights)
        return max(0, int(free // (self.setup.block_size * self._token_bytes(self._decoding))))

    def load(self, order: Load) -> None:
        """Replace the weights by another layout's shard."""
        begin_s = time.perf_counter()
        if self.loaded:
            self.models[self.loaded].links.flush()
        moved = self.weights.load(order.layout)
        self.loaded = order.layout
        self._links["in"].pay(moved, begin_s)
        span = Span(self.rank, "compute", "load", begin_s, time.perf_counter(), order.job, moved_bytes=moved)
        counts = {"loads": 1, "weight_bytes": moved}
        self._report(Report(self.rank, order.job, "loaded", (span,), counts, value=self.weights.peak_bytes))

    def expect(self, order: Forward) -> None:
        """Prepare for a micro-batch that has been ordered while another may still be computed; any thread may."""
        self.models[self.loaded].expect(sum(chunk.tokens for chunk in order.chunks))

    def forward(self, order: Forward) -> None:
        """Run a micro-batch through this stage: take it from the stage before, compute, pass it on."""
        model, store = self.models[self.loaded], self.store
        assert store is not None
        chunks, tokens = restored(order.chunks)
        batch = flatten(chunks, tokens, store)
        asked_s = time.perf_counter()
        x = model.hidden(batch.ids_1N)
        begin_s, network_s = asked_s, model.links.network_s
        spans, counts = [], {"forwards": 1, f"{order.kind}_tokens": batch.starts[-1]}
        if not model.shard.is_first:
            begin_s = time.perf_counter()
            spans.append(Span(self.rank, "compute", "wait", asked_s, begin_s, order.job))
        attend = self._attend(order, batch)
        x = model.layers(x, batch.positions_1N, attend)
        emitted = self._out(model, x, batch)
        self._synchronize()
        network_s = model.links.network_s - network_s
        span = Span(self.rank, "compute", order.kind, begin_s, time.perf_counter(), order.job)
        spans.append(span._replace(tokens=batch.starts[-1], network_s=network_s))
        if isinstance(attend, WriteThrough):
            self.writer.end(order.job)
            spans += self._layer_spans(order.job, model, attend, spans[-1].end_s)
        self._report(
            Report(
                self.rank,
                order.job,
                "compute",
                tuple(spans),
                model.links.drain() | counts,
                emitted,
                value=self.weights.peak_bytes,
            )
        )

    def swap_in(self, order: Swap) -> None:
        """Bring a sequence's blocks from the host's store to the device."""
        assert self.store is not None
        begin_s = time.perf_counter()
        part = self.host.part(self._decoding)
        self.transfers.blocks_in(part, order.host_blocks, self.store, order.device_blocks)
        nbytes = len(order.host_blocks) * part[0].nbytes
        self._links["in"].pay(nbytes, begin_s)
        self._copied(order.job, "in", begin_s, nbytes)

    def swap_out(self, order: Swap) -> None:
        """Bring a resident sequence's blocks back to the host's store; ranks with the same heads share the work."""
        assert self.store is not None
        begin_s = time.perf_counter()
        part = self.host.part(self._decoding)
        place, copies = shared_heads(self._decoding)
        blocks, nbytes = order.host_blocks[place::copies], 0
        if blocks:
            slab = self.transfers.blocks_out(self.store, order.device_blocks[place::copies])
            part.index_copy_(0, torch.tensor(blocks), slab)
            nbytes = len(blocks) * part[0].nbytes
        self._links["out"].pay(nbytes, begin_s)
        self._copied(order.job, "out", begin_s, nbytes)

    def failed(self, error: BaseException) -> None:
        """Tell the driver what went wrong on this rank."""
        self._report(Report(self.rank, -1, "failed", error=f"{type(error).__name__}: {error}"))

    def close(self) -> None:
        """End the session's thread; memory goes with the object."""
        for model in self.models.values():
            model.links.flush()
        self.writer.close()

    @property
    def _decoding(self) -> Shard:
        return self.shards[str(self.setup.layouts[-1])]

    def _token_bytes(self, shard: Shard) -> int:
        return shard.kv_token_bytes(DTYPE_NAMES[self.setup.dtype])

    def _attend(self, order: Forward, batch: FlatBatch) -> Attend:
        assert self.store is not None
        shard = self.models[self.loaded].shard
        if order.write_through:
            tables = [chunk.sequence.blocks for chunk in batch.chunks]
            part, starts = self.host.part(shard), batch.starts[:-1]
            return WriteThrough(self.writer, part, order.job, batch.lengths, starts, tables, shard, self.device)
        assert shard == self._decoding, "what stays on the device is laid out for decoding"
        if self.device.type != "cuda":
            return PagedAttention(self.store, batch)
        from paperlab.serving.engine.triton_attention import TritonAttention

        return TritonAttention.of(self.store, batch, len(shard.query_heads) // len(shard.kv_heads))

    def _out(self, model: ShardModel, x: Tensor, batch: FlatBatch) -> tuple[tuple[int, int], ...]:
        """Pass on the hidden states, or return the tokens that come out; one rank of the last stage reports them."""
        if not model.shard.is_last:
            model.pass_on(x)
            return ()
        if not batch.emitting:
            return ()
        tokens = model.next_tokens(x, batch.last_rows)
        requests = [batch.chunks[index].sequence.request.request_id for index in batch.emitting]
        return tuple(zip(requests, tokens, strict=True)) if model.shard.tp_rank == 0 else ()

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()

    def _layer_spans(self, job: int, model: ShardModel, attend: WriteThrough, end_s: float) -> Iterator[Span]:
        """Yield when each layer made its keys and values, and what its copy can hide behind; a GPU's clock differs."""
        if self.device.type == "cuda":
            return
        first = model.shard.layers.start
        for layer, (begin_s, made_s) in enumerate(zip(model.marks_s, attend.marks_s, strict=True)):
            after_s = model.marks_s[layer + 1] if layer + 1 < len(model.marks_s) else end_s
            yield Span(self.rank, "layers", "qkv", begin_s, made_s, job, first + layer)
            yield Span(self.rank, "layers", "attention", made_s, after_s, job, first + layer)

    def _written(self, job: int, spans: list[Span], nbytes: int) -> None:
        self._report(Report(self.rank, job, "written", tuple(spans), {"kv_out_bytes": nbytes}))

    def _copied(self, job: int, lane: str, begin_s: float, nbytes: int) -> None:
        span = Span(self.rank, lane, f"swap-{lane}", begin_s, time.perf_counter(), job, moved_bytes=nbytes)
        self._report(Report(self.rank, job, "copied", (span,), {f"kv_{lane}_bytes": nbytes}))


def restored(orders: tuple[ChunkOrder, ...]) -> tuple[list[Chunk], dict[int, list[int]]]:
    """Return chunks and known tokens as the serving core's batches take them; stored tokens are not read again."""
    chunks, tokens = [], {}
    for order in orders:
        request = Request(order.request, 0.0, order.stored + order.tokens + (not order.emits), 1)
        chunks.append(Chunk(Sequence(request, order.stored, blocks=order.blocks), order.tokens))
        tokens[order.request] = [0] * order.stored + order.ids
    return chunks, tokens
