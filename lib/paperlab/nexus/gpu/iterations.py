"""Single iterations: partitions, decoding with graphs, kinds of batches, shares, contention (Figs. 4 to 6).

Every function returns the rows of one cell. None of this has run on a GPU yet.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch

from paperlab.lab import timing
from paperlab.lab.gpu_run import FAILED
from paperlab.nexus.gpu.bench import Batch, Bench, Rig
from paperlab.nexus.gpu.kernel_times import kernel_seconds
from paperlab.serving.cost import ModelCost
from paperlab.serving.engine.green_contexts import (
    PartitionError,
    check_disjoint,
    layouts,
    nearest_layout,
    shared_partition,
)
from paperlab.serving.engine.runner import Runner

GREEN, UNPARTITIONED = "green contexts", "unpartitioned"


def multiprocessors(bench: Bench) -> int:
    """Return the device's multiprocessors, 0 on a CPU."""
    return torch.cuda.get_device_properties(bench.on).multi_processor_count if bench.device == "cuda" else 0


def known_layouts(bench: Bench) -> tuple[int, ...]:
    """Return the sizes that the first lane's group can have, none on a CPU."""
    if bench.device != "cuda":
        return ()
    properties = torch.cuda.get_device_properties(bench.on)
    return layouts(properties.multi_processor_count, f"{properties.major}.{properties.minor}")


def partitions(bench: Bench) -> pd.DataFrame:
    """Return where a %smid kernel ran on both lanes at each layout, and on two ordinary streams as a control."""
    if bench.device != "cuda":
        row = {"arm": "whole device", "partition": UNPARTITIONED, "status": "a CPU has no multiprocessors to divide"}
        return pd.DataFrame([row]).assign(**bench.columns)
    rows = [_control(bench), *(_partition(bench, count) for count in known_layouts(bench))]
    return pd.DataFrame(rows).assign(sms=multiprocessors(bench), **bench.columns)


def _partition(bench: Bench, count: int) -> dict[str, Any]:
    row = {"arm": f"{count} SMs first", "asked_first": count, "partition": UNPARTITIONED}
    try:
        made = shared_partition(count, bench.on)
        seen = check_disjoint(made)
    except PartitionError as error:
        return row | {"status": f"{FAILED}: {error}"}
    granted = dict(zip(("granted_first", "granted_second"), made.counts, strict=True))
    return row | granted | {"partition": GREEN, "status": "ok"} | _seen(*seen)


def _control(bench: Bench) -> dict[str, Any]:
    """Run the probe on two ordinary streams: it must see them share multiprocessors, or it could see nothing."""
    from paperlab.serving.engine.probe import start_probe

    streams = [torch.cuda.Stream(bench.on) for _ in range(2)]
    started = [start_probe(stream, 16 * multiprocessors(bench)) for stream in streams]
    bench.synchronize()
    seen = [frozenset(where.tolist()) for where in started]
    return {"arm": "two ordinary streams", "partition": UNPARTITIONED, "status": "ok"} | _seen(*seen)


def _seen(first: frozenset[int], second: frozenset[int]) -> dict[str, Any]:
    names = (" ".join(map(str, sorted(ids))) for ids in (first, second))
    ids = dict(zip(("ids_first", "ids_second"), names, strict=True))
    return {"seen_first": len(first), "seen_second": len(second), "seen_by_both": len(first & second)} | ids


def decode(bench: Bench, sequences: int) -> pd.DataFrame:
    """Return decode latencies with and without graphs, and the fraction of the bound by weights and stored tokens.

    `iteration_s` is what the engine waits for, `device_s` the launches alone, back to back.
    """
    rig = bench.rig()
    batch = bench.decode_batch(rig, sequences)
    moved = sum(demand.moved_bytes for demand in ModelCost(bench.scope.model, bench.dtype_name).demands(batch.shape))
    ceiling = timing.roofline(bench.device, bench.dtype_name)
    bound_s = moved / ceiling.bandwidth_Bps if ceiling else np.nan
    arms = {"eager": Runner(rig.decoder, graphs=False)}
    if bench.device == "cuda":
        arms["CUDA graphs"] = rig.runner
    rows = []
    for arm, runner in arms.items():
        iteration_s, device_s = bench.iteration_s(runner, rig, batch), _median(bench, runner, rig, batch)
        times = {"iteration_s": iteration_s, "device_s": device_s, "bound_s": bound_s, "moved_bytes": moved}
        fractions = {"fraction": bound_s / iteration_s, "device_fraction": bound_s / device_s}
        rows.append({"arm": arm, "sequences": sequences, **times, **fractions})
    return _rows(bench, rows, context=bench.scope.decode_context)


def kinds(bench: Bench) -> pd.DataFrame:
    """Return the latency of decode-only, prefill-only and mixed iterations (Fig. 4a)."""
    rig = bench.rig()
    rows = []
    for kind, batch in _motivation(bench, rig).items():
        latency = {"iteration_s": bench.iteration_s(rig.runner, rig, batch)}
        rows.append({"kind": kind, "tokens": batch.shape.tokens, **latency})
    return _rows(bench, rows, sequences=bench.scope.motivation_batch)


def kernels(bench: Bench) -> pd.DataFrame:
    """Return the seconds of each kind of iteration by class of kernel (Fig. 4b)."""
    rig = bench.rig()
    rows: list[dict[str, Any]] = []
    for kind, batch in _motivation(bench, rig).items():
        found = kernel_seconds(lambda batch=batch: rig.runner.forward(batch.flat, rig.store), bench.device)  # type: ignore[misc]
        rows += [{"kind": kind, "kernels": name, "seconds": seconds} for name, seconds in found.items()]
    return _rows(bench, rows, sequences=bench.scope.motivation_batch)


def _motivation(bench: Bench, rig: Rig) -> dict[str, Batch]:
    return {
        "decode": bench.decode_batch(rig, bench.scope.motivation_batch),
        "prefill": bench.prefill_batch(rig, bench.scope.token_budget),
        "mixed": bench.mixed_batch(rig),
    }


def shares(bench: Bench, count: int | None) -> pd.DataFrame:
    """Return latencies alone (Fig. 5): prefill on the first `count` multiprocessors, decode on the rest.

    None: each on the whole device. `projections` are the linear layers around attention, of a chunk.

    Raises:
        PartitionError: the device cannot be divided so.
    """
    rig, total = bench.rig(), multiprocessors(bench)
    streams, granted = ((None, None), (total, total)) if count is None else _divide(bench, count)
    batches = {"prefill": bench.prefill_batch(rig, bench.scope.token_budget)}
    batches["decode"] = bench.decode_batch(rig, bench.scope.motivation_batch)
    bench.synchronize()
    rows = []
    for place, phase in enumerate(batches):
        runner = Runner(rig.decoder)  # graphs of its own, dropped with it
        with bench.on_stream(streams[place]):
            times = {phase: _median(bench, runner, rig, batches[phase])}
            if phase == "prefill":
                times["projections"] = _projections_s(bench, rig)
        share = granted[place] / total if count is not None else 1.0
        rows += [{"phase": name, "sms": granted[place], "share": share, "device_s": s} for name, s in times.items()]
    return _rows(bench, rows, partition="none" if count is None else GREEN)


def _divide(bench: Bench, count: int) -> tuple[tuple[Any, Any], tuple[int, int]]:
    made = shared_partition(count, bench.on)
    return made.streams, made.counts


def _projections_s(bench: Bench, rig: Rig) -> float:
    """Return the seconds of all layers' query, key, value and output projections of a full chunk (Fig. 5b)."""
    shape = rig.decoder.shape
    size = (bench.scope.token_budget, shape.hidden)
    x_NH = torch.randn(size, dtype=bench.dtype, device=bench.on)
    y_NQ = torch.randn(size[0], shape.q_width, dtype=bench.dtype, device=bench.on)

    @torch.inference_mode()
    def project() -> None:
        for block in rig.decoder.layers:
            attention: Any = block.self_attn
            for linear in (attention.q_proj, attention.k_proj, attention.v_proj):
                linear(x_NH)
            attention.o_proj(y_NQ)

    return float(np.median(bench.device_s(project)))


def contention(bench: Bench, stored: int | None) -> pd.DataFrame:
    """Return decode's latency on its half while the other half prefills a chunk after `stored` tokens (Fig. 6a).

    None: with the other half idle. Where the device cannot be divided the row says `unpartitioned`.
    """
    rig, streams, partition, granted = bench.rig(), (None, None), UNPARTITIONED, (0, 0)
    if bench.device == "cuda":
        middle = nearest_layout(known_layouts(bench), multiprocessors(bench), 0.5)
        try:
            (streams, granted), partition = _divide(bench, middle), GREEN
        except PartitionError as error:
            print(f"contention: {UNPARTITIONED}: {error}", flush=True)
            streams = tuple(torch.cuda.Stream(bench.on) for _ in range(2))  # type: ignore[assignment]
    decoding = bench.decode_batch(rig, bench.scope.motivation_batch, first=1)
    bench.synchronize()  # what was made on this stream is read on others
    runner = Runner(rig.decoder)
    with bench.on_stream(streams[1]):
        bench.device_s(lambda: runner.forward(decoding.flat, rig.store))  # graphs are captured while nobody else runs
    with _beside(bench, rig, streams[0], stored) as done, bench.on_stream(streams[1]):
        times = timing.timed(lambda: runner.forward(decoding.flat, rig.store), 3 * bench.scope.repeats, bench.device)
    row = {"stored_tokens": stored, "device_s": float(np.median(times)), "p95_s": float(np.quantile(times, 0.95))}
    lanes = {"prefill_sms": granted[0], "decode_sms": granted[1], "prefill_chunks": len(done)}
    return _rows(bench, [row | lanes], partition=partition)


@contextmanager
def _beside(bench: Bench, rig: Rig, stream: Any, stored: int | None) -> Iterator[list[int]]:
    """Prefill the same chunk over and over from another thread; yields a list that grows with every chunk done."""
    done: list[int] = []
    if stored is None:
        yield done
        return
    batch, runner = bench.prefill_batch(rig, stored), Runner(rig.decoder)
    bench.synchronize()
    started, ending, failures = threading.Event(), threading.Event(), list[Exception]()

    def prefill() -> None:
        try:
            with bench.on_stream(stream):
                while not ending.is_set():
                    runner.forward(batch.flat, rig.store)
                    if stream is not None:
                        stream.synchronize()
                    done.append(stored)
                    started.set()
        except Exception as error:
            failures.append(error)
            started.set()

    worker = threading.Thread(target=prefill, name="prefill")
    worker.start()
    try:
        started.wait()
        yield done
    finally:
        ending.set()
        worker.join()
    if failures:  # what was measured had no neighbor
        raise failures[0]


def _median(bench: Bench, runner: Runner, rig: Rig, batch: Batch) -> float:
    return float(np.median(bench.device_s(lambda: runner.forward(batch.flat, rig.store))))


def _rows(bench: Bench, rows: list[dict[str, Any]], **columns: Any) -> pd.DataFrame:
    return pd.DataFrame(rows).assign(model=bench.scope.model.name, **columns, **bench.columns)
