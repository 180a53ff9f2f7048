"""What the real engine shows on this machine: phases and their parts, reloads, bytes, and schedulers.

Each function takes a pool of ranks, so that a notebook starts processes once, and returns a tidy table. Times are of
this machine's cores, one per rank: orders and ratios carry over to GPUs, seconds do not. Where links are emulated, the
rows say at which rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from paperlab.seesaw.engine import RankPool, ReshardingEngine
from paperlab.seesaw.engine.trace import Trace
from paperlab.seesaw.layout import replica_layouts
from paperlab.serving import Limits, Workload
from paperlab.transformer import ModelShape, kv_bytes_per_token

SMALL = ModelShape(
    name="small", layers=8, hidden=256, heads=8, kv_heads=2, ffn=704, vocab=2048, max_positions=1024,
    mlp="gated", norm="rmsnorm", position="rope",
)  # fmt: skip
LIMITS = Limits(token_budget=256, max_sequences=64)
Pair = tuple[str, str]


def pairs(ranks: int, model: ModelShape = SMALL) -> list[Pair]:
    """Return every (prefill, decode) of one replica on `ranks` ranks."""
    names = [str(layout) for layout in replica_layouts(model, ranks)]
    return list(product(names, names))


def host_bytes(work: Workload, share: float, model: ModelShape = SMALL) -> int:
    """Return a host tier that holds `share` of the keys and values of a workload's prompts, and its longest request."""
    prompts = sum(request.prompt_tokens for request in work.requests)
    longest = max(request.prompt_tokens + request.output_tokens for request in work.requests)
    return int(max(share * prompts, longest + 16)) * kv_bytes_per_token(model, "fp32")


def phase_times(
    pool: RankPool, work: Workload, layouts: Sequence[Pair], repeats: int = 3, host_share: float = 0.5
) -> pd.DataFrame:
    """Serve `work` under each pair `repeats` times, in turns.

    Returns:
        One row per run: layout, repeat, makespan_s, prefill_s, decode_s, mixed_s, load_s and other_s, transitions,
        decode_batch (mean sequences per decode step), requests_per_s.
    """
    rows = []
    for repeat, (layout, trace) in _runs(pool, work, layouts, repeats, host_share):
        phases = trace.phases().assign(seconds=lambda t: t.end_s - t.start_s).groupby("kind").seconds.sum()
        sizes = [step.shape.decode_tokens for step in trace.log.steps if step.shape.decode_tokens]
        makespan_s = trace.log.end_s
        row = {"layout": layout, "repeat": repeat, "makespan_s": makespan_s}
        row |= {f"{kind}_s": phases.get(kind, 0.0) for kind in ("prefill", "decode", "mixed", "load")}
        row["other_s"] = makespan_s - phases.sum()
        row |= {"transitions": len(trace.log.switches), "decode_batch": float(np.mean(sizes)) if sizes else 0.0}
        rows.append(row | {"requests_per_s": len(work.requests) / makespan_s} | about(trace))
    return pd.DataFrame(rows)


def breakdown(pool: RankPool, work: Workload, layouts: Sequence[str], repeats: int = 3) -> pd.DataFrame:
    """Return where the ranks' time goes under one layout for both phases (the measured kin of Fig. 1).

    Returns:
        One row per layout, phase and repeat, seconds summed over the ranks: compute_s (without collectives), network_s
        (within collectives, waiting for slower ranks included), wait_s (for the stage before), and forwards.
    """
    rows = []
    for repeat, (layout, trace) in _runs(pool, work, [(name, name) for name in layouts], repeats, 2.0):
        table = trace.table().assign(seconds=lambda t: t.end_s - t.start_s)
        kinds = table[table.kind.isin(["prefill", "decode"])].drop_duplicates(["job"]).set_index("job").kind
        for phase in ("prefill", "decode"):
            own = table[table.kind == phase]
            waits = table[(table.kind == "wait") & table.job.map(kinds).eq(phase)]
            network_s = float(own.network_s.sum())
            row = {"layout": layout, "phase": phase, "repeat": repeat, "compute_s": own.seconds.sum() - network_s}
            row |= {"network_s": network_s, "wait_s": waits.seconds.sum(), "forwards": own.job.nunique()}
            rows.append(row | about(trace))
    return pd.DataFrame(rows)


def reloads(pool: RankPool, layouts: Sequence[Pair], work: Workload, host_share: float = 0.25) -> pd.DataFrame:
    """Return one row per re-sharding and rank: layouts, bytes of weights, seconds, bytes per second."""
    rows = []
    for _, (layout, trace) in _runs(pool, work, layouts, 1, host_share):
        for span in (span for span in trace.spans if span.kind == "load"):
            seconds = span.end_s - span.start_s
            row = {"layout": layout, "rank": span.rank, "weight_bytes": span.moved_bytes, "seconds": seconds}
            rows.append(row | {"bandwidth_Bps": span.moved_bytes / seconds} | about(trace))
    return pd.DataFrame(rows)


def moved_bytes(pool: RankPool, layouts: Sequence[Pair], work: Workload, host_share: float = 0.5) -> pd.DataFrame:
    """Return the ranks' counts under each pair: forwards, collectives, messages, bytes of tiers and weights."""
    found = []
    for _, (layout, trace) in _runs(pool, work, layouts, 1, host_share):
        table = trace.counts()
        table["layout"] = layout
        for name, value in about(trace).items():
            table[name] = value
        found.append(table)
    return pd.concat(found, ignore_index=True)


def schedulers(
    pool: RankPool,
    work: Workload,
    pair: Pair,
    names: Sequence[str],
    host_shares: Sequence[float],
    device_share: float = 0.4,
    repeats: int = 1,
) -> pd.DataFrame:
    """Return makespan, transitions and mean decode batch of each re-sharding scheduler and size of the host tier.

    The devices' tier holds `device_share` of the prompts, so that a batch cannot simply be everything.
    """
    rows = []
    device = host_bytes(work, device_share)
    for share, repeat, name in product(host_shares, range(repeats), names):
        with _engine(pool, pair, work, share, policy=name, device_kv_bytes=device) as engine:
            log = engine.serve(work)
        sizes = [step.shape.decode_tokens for step in log.steps if step.shape.decode_tokens]
        row = {"policy": name, "host_share": share, "repeat": repeat, "makespan_s": log.end_s}
        row |= {"transitions": len(log.switches), "decode_batch": float(np.mean(sizes)) if sizes else 0.0}
        rows.append(row | about(engine.trace()))
    return pd.DataFrame(rows)


def _runs(
    pool: RankPool, work: Workload, layouts: Sequence[Pair], repeats: int, host_share: float
) -> Iterator[tuple[int, tuple[str, Trace]]]:
    """Yield repeat, layout and trace; pairs take turns, and a first run of each warms up."""
    for repeat in range(-1, repeats):
        for pair in layouts:
            with _engine(pool, pair, work, host_share) as engine:
                engine.serve(work)
                if repeat >= 0:
                    yield repeat, (str(engine.log.about["layout"]), engine.trace())


def _engine(
    pool: RankPool, pair: Pair, work: Workload, host_share: float, model: ModelShape = SMALL, **options: Any
) -> ReshardingEngine:
    tier = host_bytes(work, host_share, model)
    chosen: dict[str, Any] = {"limits": LIMITS, "host_kv_bytes": tier, "prefetch_in_prefill": False} | options
    return ReshardingEngine(model, *pair, pool=pool, **chosen)


def about(trace: Trace) -> dict[str, Any]:
    """Return the columns that every measured row carries."""
    return {name: trace.log.about[name] for name in ("evidence", "device", "ranks")}
