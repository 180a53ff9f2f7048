"""The schedule as it ran: spans of every lane of every rank, and how much of the copies lies beside compute."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from paperlab.mist.cost.pipeline import simulate
from paperlab.mist.plan import Plan
from paperlab.mist.runtime.build import Options
from paperlab.mist.runtime.lanes import make_lanes
from paperlab.mist.runtime.pool import RankPool
from paperlab.mist.runtime.trace import Trace, spans_table
from paperlab.mist.studies.run_plans import execute, make_plan, ranks, small_models

_TRACED = 6  # iterations, of which the first has no optimizer step
_PHASES = ("forward", "backward")


def traced_plan(hidden: int = 128, seq_len: int = 128) -> Plan:
    """Return a plan of two stages whose schedule shows every lane but the reductions: half of everything offloaded."""
    spec = small_models(hidden=hidden, seq_len=seq_len, layers=6, vocab=512)["gpt"]
    return make_plan(
        spec, 2, checkpointed=1, weight_offload=0.5, grad_offload=0.5, optimizer_offload=0.5, activation_offload=0.5
    )


def traced_schedule(plan: Plan | None = None, pool: RankPool | None = None) -> pd.DataFrame:
    """Run some iterations of a plan and return the fastest one's spans, by rank and lane, times from 0 (seconds).

    Columns: rank, lane, label, iteration, module, microbatch, start_s, stop_s.
    """
    plan = traced_plan() if plan is None else plan
    with ranks(plan.cluster.gpus, pool) as running:
        results = execute(running, plan, _TRACED, Options(account=False))
    taken_s = [max(result.iteration_s[index] for result in results) for index in range(1, _TRACED)]
    fastest = 1 + int(np.argmin(taken_s))
    return spans_table([span for result in results for span in result.spans if span.iteration == fastest])


def pipeline_table(spans: pd.DataFrame) -> pd.DataFrame:
    """Return every pass of a traced two-rank pipeline, as measured and as the event simulation orders such passes.

    The simulation is given each stage's median forward and backward time, and how much longer its first forward took,
    which has the optimizer step in it. Columns: source, stage, micro_batch, phase, start_s, end_s.
    """
    own = spans[spans.lane == "compute"].assign(phase=lambda x: x.label.replace("recompute", "backward"))
    passes = own.groupby(["rank", "microbatch", "phase"], as_index=False).agg(
        start_s=("start_s", "min"), end_s=("stop_s", "max")
    )
    passes = passes.rename(columns={"rank": "stage", "microbatch": "micro_batch"})
    lengths = passes.assign(length_s=passes.end_s - passes.start_s).set_index(["phase", "stage"]).length_s
    forward, backward = ([float(x) for x in lengths[name].groupby("stage").median()] for name in _PHASES)
    first = passes[(passes.phase == "forward") & (passes.micro_batch == 0)].sort_values("stage")
    extra = (first.end_s - first.start_s - forward).clip(lower=0.0).tolist()
    work = simulate(forward, backward, extra, [0.0] * len(forward), int(passes.micro_batch.max()) + 1)
    simulated = pd.DataFrame([asdict(item) for item in work])
    passes[["start_s", "end_s"]] -= passes.start_s.min()
    both = [passes.assign(source="measured"), simulated.assign(source="simulated")]
    return pd.concat(both, ignore_index=True)[["source", "stage", "micro_batch", "phase", "start_s", "end_s"]]


def hidden_fraction(spans: pd.DataFrame) -> pd.DataFrame:
    """Return, per rank and side lane, the seconds of work and the fraction beside the rank's compute spans."""
    rows = []
    for rank, own in spans.groupby("rank"):
        starts, stops = _times(own[own.lane == "compute"])
        for lane, side in own[~own.lane.isin(["compute", "pipeline"])].groupby("lane"):
            start, stop = _times(side)
            shared = np.minimum(stop[:, None], stops) - np.maximum(start[:, None], starts)
            busy_s = float((stop - start).sum())
            rows.append((rank, lane, busy_s, float(shared.clip(min=0).sum()) / busy_s if busy_s else 0.0))
    return pd.DataFrame(rows, columns=["rank", "lane", "busy_s", "hidden_fraction"])


def _times(spans: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return spans.start_s.to_numpy(float), spans.stop_s.to_numpy(float)


def overlap_table(repeats: int = 7, megabytes: int = 64) -> pd.DataFrame:
    """Time a product loop and a copy loop of equal length alone, and together on two lanes with and without overlap.

    One rank, one compute thread. Columns: repeat, compute_s, copy_s, overlapped_s, serial_s, ratio (overlapped over the
    sum of both alone). On a machine with one free core the ratio cannot fall below 1.
    """
    source = torch.ones(megabytes * 2**18)
    target, x = torch.empty_like(source), torch.randn(512, 512)

    def compute(count: int) -> None:
        for _ in range(count):
            torch.mm(x, x)

    def copy(count: int) -> None:
        for _ in range(count):
            target.copy_(source)

    copies = 8
    copy(1)
    compute(8)
    products = max(1, round(8 * _seconds(lambda: copy(copies)) / _seconds(lambda: compute(8))))
    rows = []
    for repeat in range(repeats):
        alone = _seconds(lambda: compute(products)), _seconds(lambda: copy(copies))
        both = [_together(lambda: compute(products), lambda: copy(copies), overlap) for overlap in (True, False)]
        rows.append((repeat, *alone, *both, both[0] / sum(alone)))
    return pd.DataFrame(rows, columns=["repeat", "compute_s", "copy_s", "overlapped_s", "serial_s", "ratio"])


def _seconds(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def _together(compute: Callable[[], None], copy: Callable[[], None], overlap: bool) -> float:
    cpu = torch.device("cpu")
    lanes = make_lanes(Trace(0, cpu, enabled=False), cpu, overlap)

    def both() -> None:
        ticket = lanes["swap-in"].submit("copy", copy)
        compute()
        ticket.wait()

    seconds = _seconds(both)
    for lane in lanes.values():
        lane.close()
    return seconds


def overlap_effect(pool: RankPool | None = None, repeats: int = 5) -> pd.DataFrame:
    """Time one rank's iteration of a plan that offloads everything with overlap and without, alternating.

    Columns: overlap, iteration_s (median), spread_s (largest less smallest).
    """
    spec = small_models(hidden=256, seq_len=128, layers=4, vocab=512)["gpt"]
    plan = make_plan(spec, accumulation=2, weight_offload=1, grad_offload=1, optimizer_offload=1, activation_offload=1)
    times: dict[bool, list[float]] = {True: [], False: []}
    with ranks(1, pool) as running:
        for _ in range(repeats):
            for overlap in times:
                options = Options(account=False, trace=False, overlap=overlap)
                times[overlap] += execute(running, plan, 2, options)[0].iteration_s[1:]
    rows = [(key, statistics.median(values), max(values) - min(values)) for key, values in times.items()]
    return pd.DataFrame(rows, columns=["overlap", "iteration_s", "spread_s"])
