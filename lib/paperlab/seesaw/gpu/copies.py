"""Bytes between a GPU and the host: behind prefill (Fig. 8), of weights (§4.1), of keys and values by layout (§5.2)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from paperlab.seesaw.engine.shard_model import ShardModel
from paperlab.seesaw.engine.shared import SharedBuffer
from paperlab.seesaw.engine.tiers import HostStore
from paperlab.seesaw.engine.transfers import EmulatedLink, transfers
from paperlab.seesaw.engine.weights import copy_directly, copy_staged
from paperlab.seesaw.engine.write_through import Copies, Writer, WriteThrough
from paperlab.seesaw.gpu.bench import Bench
from paperlab.seesaw.layout import Layout
from paperlab.serving.engine.memory import block_bytes

BLOCK = 16
WARM_UP = 1


def overlap(bench: Bench, tokens: int) -> pd.DataFrame:
    """Prefill prompts of `tokens` one after the other: without copies, with copies behind, waiting for each copy.

    Nothing is emulated. Rows: copies, repeat, prefill_s (until the computation is done), total_s (until the last layer
    has arrived in shared memory), kv_bytes, and ratio of total_s to the same round's `none`.
    """
    scope = bench.scope
    model = bench.shard_model(scope.overlap_model, scope.overlap_layers, Layout())
    blocks = -(-tokens // BLOCK)
    size = block_bytes(model.shard.model, BLOCK, bench.dtype)
    buffer = SharedBuffer(scope.batches * blocks * size)
    host = HostStore(model.shard.model, BLOCK, bench.dtype, buffer.tensor).part(model.shard)
    rows: list[dict[str, Any]] = []
    for repeat in range(-WARM_UP, scope.repeats):
        for copies in ("none", "overlapped", "blocking"):
            prefill_s, total_s = _prefill(bench, model, host, tokens, copies)
            row = {"tokens": tokens, "copies": copies, "repeat": repeat, "prefill_s": prefill_s, "total_s": total_s}
            rows.append(row | {"kv_bytes": scope.batches * blocks * size * (copies != "none")})
    buffer.close()
    table = bench.table([row for row in rows if row["repeat"] >= 0])
    alone = table[table.copies == "none"].set_index("repeat").total_s
    return table.assign(ratio=table.total_s / table.repeat.map(alone))


def _prefill(bench: Bench, model: ShardModel, host: Tensor, tokens: int, copies: Copies) -> tuple[float, float]:
    scope, arrived = bench.scope, threading.Semaphore(0)
    failures: list[BaseException] = []

    def failed(error: BaseException) -> None:
        failures.append(error)
        arrived.release()

    limit = 2 * tokens * model.shard.kv_token_bytes(bench.dtype_name)
    writer = Writer(
        transfers(bench.on), EmulatedLink(), copies, limit, lambda job, spans, nbytes: arrived.release(), failed, 0
    )
    ids, positions = (torch.arange(tokens, device=bench.on)[None] for _ in range(2))
    blocks = -(-tokens // BLOCK)
    bench.synchronize()
    begin_s = time.perf_counter()
    with torch.inference_mode():
        for job in range(scope.batches):
            table = list(range(job * blocks, (job + 1) * blocks))
            attend = WriteThrough(writer, host, job, (tokens,), (0,), [table], model.shard, bench.on)
            model.layers(model.hidden(ids % model.shard.model.vocab), positions, attend)
            writer.end(job)
    bench.synchronize()
    prefill_s = time.perf_counter() - begin_s
    for _ in range(scope.batches):
        arrived.acquire()
    total_s = time.perf_counter() - begin_s
    writer.close()
    if failures:
        raise failures[0]
    return prefill_s, total_s


@contextmanager
def registered(tensor: Tensor) -> Iterator[Tensor]:
    """Pin memory that is mapped already, such as shared memory, for the body (cudaHostRegister)."""
    runtime = torch.cuda.cudart()
    error = int(runtime.cudaHostRegister(tensor.data_ptr(), tensor.nbytes, 0))
    if error:
        raise RuntimeError(f"cudaHostRegister of {tensor.nbytes} bytes failed with {error}")
    try:
        yield tensor
    finally:
        torch.cuda.synchronize()
        runtime.cudaHostUnregister(tensor.data_ptr())


def reload(bench: Bench) -> pd.DataFrame:
    """Load weights from pageable shared memory, through pinned buffers, from pinned memory, from registered shared one.

    Whole rows, as pipeline-parallel shards have, and the columns of a row-parallel matrix at TP 4, which are strided.
    Rows: source, part, weight_bytes, seconds, bandwidth_Bps. On a CPU only the first kind exists.
    """
    buffer = SharedBuffer(bench.scope.reload_bytes)
    width = 4096
    buffer.tensor.fill_(1)  # or the first to read would wait for its pages
    whole = buffer.tensor.view(bench.dtype)
    whole = whole[: len(whole) // width * width].view(-1, width)
    rows = _reload(bench, "pageable shared", whole)
    if bench.device == "cuda":
        rows += _reload(bench, "shared through pinned buffers", whole, copy_staged)
        pinned = torch.empty(whole.shape, dtype=bench.dtype, pin_memory=True)
        rows += _reload(bench, "pinned", pinned)
        del pinned
        with registered(whole):
            rows += _reload(bench, "registered shared", whole)
    buffer.close()
    return bench.table(rows)


def _reload(
    bench: Bench, source: str, host: Tensor, copy: Callable[[list[tuple[Tensor, Tensor]]], int] = copy_directly
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for part, view in (("rows", host), ("columns, TP 4", host[:, : host.shape[1] // 4])):
        target = torch.empty(view.shape, dtype=bench.dtype, device=bench.on)
        seconds = bench.seconds(partial(copy, [(view, target)]))
        row = {"source": source, "part": part, "weight_bytes": target.nbytes, "seconds": seconds}
        rows.append(row | {"bandwidth_Bps": target.nbytes / seconds})
    return rows


def kv_copies(bench: Bench, tp: int) -> pd.DataFrame:
    """Copy one tensor-parallel part of keys and values to the host's store, laid out HND and NHD, in three ways.

    `runs` issues one asynchronous copy per contiguous run into pinned memory; `pitched` issues a single one for all of
    them (cudaMemcpy2DAsync, on a GPU alone); `packed` sends one slab to pinned memory and lets the host put it in
    place. Rows: layout, tp, method, runs, kv_bytes, seconds, bandwidth_Bps.
    """
    model, blocks = bench.scope.copy_model, bench.scope.copy_blocks
    heads, dim = max(1, model.kv_heads // tp), model.head_dim
    pin = bench.device == "cuda"
    rows = []
    for layout, whole, part in (
        ("HND", (blocks, 2, model.kv_heads, BLOCK, dim), (blocks, 2, heads, BLOCK, dim)),
        ("NHD", (blocks, 2, BLOCK, model.kv_heads, dim), (blocks, 2, BLOCK, heads, dim)),
    ):
        store = torch.empty(whole, dtype=bench.dtype, pin_memory=pin)
        slab = torch.randn(part, device=bench.on).to(bench.dtype)
        target = store[:, :, :heads] if layout == "HND" else store[:, :, :, :heads]
        staging = torch.empty(part, dtype=bench.dtype, pin_memory=pin)
        pieces = _runs(slab, target)
        actions = {"runs": partial(_copy_runs, pieces), "packed": partial(_copy_packed, bench, slab, staging, target)}
        if bench.device == "cuda":
            actions["pitched"] = partial(copy_pitched, slab, target, import_module("cuda.bindings.runtime"))
        for method, action in actions.items():
            seconds = bench.seconds(action)
            row = {"layout": layout, "tp": tp, "method": method, "runs": len(pieces), "kv_bytes": slab.nbytes}
            rows.append(row | {"seconds": seconds, "bandwidth_Bps": slab.nbytes / seconds})
    return bench.table(rows)


def _runs(source: Tensor, target: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return pairs of pieces that are contiguous in `target`, as large as it allows."""
    if target.is_contiguous():
        return [(source, target)]
    pairs = zip(source, target, strict=True)
    return [piece for one, other in pairs for piece in _runs(one, other)]


def _copy_runs(pieces: list[tuple[Tensor, Tensor]]) -> None:
    for source, target in pieces:
        target.copy_(source, non_blocking=True)


def copy_pitched(source: Tensor, target: Tensor, runtime: Any) -> None:
    """Copy a contiguous GPU tensor to runs of equal length and distance in pinned memory, in one call.

    `runtime` is `cuda.bindings.runtime`, or what stands in for it in a test.

    Raises:
        ValueError: the runs of `target` do not lie at equal distances.
        RuntimeError: the copy is refused.
    """
    outer = next(axes for axes in range(target.dim()) if target[(0,) * axes].is_contiguous())
    width = target[(0,) * outer].nbytes
    try:
        rows = target.view(target.shape[:outer].numel(), -1)
    except RuntimeError:
        raise ValueError(f"copy_pitched: strides {target.stride()} have no common pitch") from None
    pitch = rows.stride(0) * rows.element_size()
    kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
    stream = torch.cuda.current_stream().cuda_stream if source.is_cuda else 0
    places = rows.data_ptr(), pitch, source.data_ptr(), width, width, len(rows)
    (error,) = runtime.cudaMemcpy2DAsync(*places, kind, stream)
    if int(error):
        raise RuntimeError(f"cudaMemcpy2DAsync of {len(rows)} runs of {width} bytes failed with {error}")


def _copy_packed(bench: Bench, slab: Tensor, staging: Tensor, target: Tensor) -> None:
    staging.copy_(slab, non_blocking=True)
    bench.synchronize()
    target.copy_(staging)
