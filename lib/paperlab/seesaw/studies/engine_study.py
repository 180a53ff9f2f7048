"""What the real engine shows on this machine: phases and their parts, reloads, bytes, and schedulers.

Each function takes a pool of ranks, so that a notebook starts processes once, and returns a tidy table. Times are of
this machine's cores, one per rank: orders and ratios carry over to GPUs, seconds do not. Further options go to the
engine, such as the rates of emulated links; every row says them (0: not emulated).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from paperlab.seesaw.engine import RankPool, ReshardingEngine
from paperlab.seesaw.engine.trace import Trace
from paperlab.seesaw.layout import replica_layouts
from paperlab.serving import EventLog, Limits, Workload
from paperlab.transformer import ModelShape, kv_bytes_per_token

SMALL = ModelShape(
    name="small", layers=8, hidden=256, heads=8, kv_heads=2, ffn=704, vocab=2048, max_positions=1024,
    mlp="gated", norm="rmsnorm", position="rope",
)  # fmt: skip
LIMITS = Limits(token_budget=256, max_sequences=64)


class Way(NamedTuple):
    """How a workload is served: two layouts and a scheduler; a static scheduler has one layout, twice."""

    prefill: str
    decode: str
    policy: str = "seesaw"

    @property
    def label(self) -> str:
        """The layouts, and the scheduler where it is static."""
        layouts = self.prefill if self.prefill == self.decode else f"{self.prefill}→{self.decode}"
        return f"{layouts}, {self.policy.removeprefix('static-')}" if self.policy.startswith("static") else layouts


def pairs(ranks: int, model: ModelShape = SMALL) -> list[Way]:
    """Return every (prefill, decode) of one replica on `ranks` ranks, under the paper's scheduler."""
    names = [str(layout) for layout in replica_layouts(model, ranks)]
    return [Way(*names) for names in product(names, names)]


def tier_bytes(work: Workload, share: float, model: ModelShape = SMALL) -> int:
    """Return a tier that holds `share` of the keys and values of a workload's prompts, and its longest request."""
    prompts = sum(request.prompt_tokens for request in work.requests)
    longest = max(request.prompt_tokens + request.output_tokens for request in work.requests)
    return int(max(share * prompts, longest + 16)) * kv_bytes_per_token(model, "fp32")


def phase_times(
    pool: RankPool, work: Workload, ways: Sequence[Way], repeats: int = 3, host_share: float = 0.5, **options: Any
) -> pd.DataFrame:
    """Serve `work` in each way `repeats` times, in turns (the measured kin of Fig. 12).

    Returns:
        One row per run: way, repeat, makespan_s, prefill_s, decode_s, mixed_s, load_s and other_s, transitions,
        decode_batch (mean sequences per decode step), requests_per_s.
    """
    rows = []
    for repeat, way, trace in _runs(pool, work, ways, repeats, host_share, options):
        phases = trace.phases().assign(seconds=lambda t: t.end_s - t.start_s).groupby("kind").seconds.sum()
        row: dict[str, Any] = {"way": way.label, "repeat": repeat, "makespan_s": trace.log.end_s}
        row |= {f"{kind}_s": phases.get(kind, 0.0) for kind in ("prefill", "decode", "mixed", "load")}
        row |= {"other_s": max(0.0, trace.log.end_s - phases.sum()), "transitions": len(trace.log.switches)}
        row |= {"decode_batch": decode_batch(trace.log), "requests_per_s": len(work.requests) / trace.log.end_s}
        rows.append(row | about(trace))
    return pd.DataFrame(rows)


def breakdown(pool: RankPool, work: Workload, layouts: Sequence[str], repeats: int = 3, **options: Any) -> pd.DataFrame:
    """Return where the ranks' time goes with one layout for both phases (the measured kin of Fig. 1).

    Returns:
        One row per layout, phase and repeat, seconds summed over the ranks: compute_s (without collectives), network_s
        (within all-reduces, waiting for slower ranks included), wait_s (for the stage before), and forwards.
    """
    rows = []
    for repeat, way, trace in _runs(pool, work, [Way(name, name) for name in layouts], repeats, 2.0, options):
        table = trace.table().assign(seconds=lambda t: t.end_s - t.start_s)
        kinds = table[table.kind.isin(["prefill", "decode"])].drop_duplicates(["job"]).set_index("job").kind
        for phase in ("prefill", "decode"):
            own = table[table.kind == phase]
            waits = table[(table.kind == "wait") & table.job.map(kinds).eq(phase)]
            network_s = float(own.network_s.sum())
            row = {"layout": way.label, "phase": phase, "repeat": repeat, "compute_s": own.seconds.sum() - network_s}
            row |= {"network_s": network_s, "wait_s": waits.seconds.sum(), "forwards": own.job.nunique()}
            rows.append(row | about(trace))
    return pd.DataFrame(rows)


def reloads(
    pool: RankPool, work: Workload, ways: Sequence[Way], host_share: float = 0.25, **options: Any
) -> pd.DataFrame:
    """Return one row per re-sharding and rank: way, rank, weight_bytes, seconds, bandwidth_Bps."""
    rows = []
    for _, way, trace in _runs(pool, work, ways, 1, host_share, options):
        for span in (span for span in trace.spans if span.kind == "load"):
            seconds = span.end_s - span.start_s
            row = {"way": way.label, "rank": span.rank, "weight_bytes": span.moved_bytes, "seconds": seconds}
            rows.append(row | {"bandwidth_Bps": span.moved_bytes / seconds} | about(trace))
    return pd.DataFrame(rows)


def moved_bytes(
    pool: RankPool, work: Workload, ways: Sequence[Way], host_share: float = 0.5, **options: Any
) -> pd.DataFrame:
    """Return `Trace.counts` in each way: forwards, collectives, messages, bytes of tiers and weights, by rank."""
    found = []
    for _, way, trace in _runs(pool, work, ways, 1, host_share, options):
        table = trace.counts()
        for name, value in {"way": way.label, **about(trace)}.items():
            table[name] = value
        found.append(table)
    return pd.concat(found, ignore_index=True)


def schedulers(
    pool: RankPool,
    work: Workload,
    ways: Sequence[Way],
    host_shares: Sequence[float],
    device_share: float = 0.4,
    repeats: int = 1,
    **options: Any,
) -> pd.DataFrame:
    """Return makespan, transitions and mean decode batch by scheduler and size of the host's tier (Fig. 2's kin).

    The devices' tier holds `device_share` of the prompts, so that a batch cannot simply be everything.
    """
    rows = []
    options = {"device_kv_bytes": tier_bytes(work, device_share, options.get("model", SMALL))} | options
    for share in host_shares:
        for repeat, way, trace in _runs(pool, work, ways, repeats, share, options):
            row = {"policy": way.policy, "host_share": share, "repeat": repeat, "makespan_s": trace.log.end_s}
            row |= {"transitions": len(trace.log.switches), "decode_batch": decode_batch(trace.log)}
            rows.append(row | about(trace))
    return pd.DataFrame(rows)


def decode_batch(log: EventLog) -> float:
    """Return the mean number of sequences in a decode step; 0 where there was none."""
    sizes = [step.shape.decode_tokens for step in log.steps if step.shape.kind == "decode"]
    return float(np.mean(sizes)) if sizes else 0.0


def serve(
    pool: RankPool, work: Workload, way: Way, host_share: float, model: ModelShape = SMALL, **options: Any
) -> Trace:
    """Serve a workload once and return the trace; `options` replace the studies' own."""
    chosen: dict[str, Any] = {"limits": LIMITS, "host_kv_bytes": tier_bytes(work, host_share, model)}
    chosen |= {"prefetch_in_prefill": False, "policy": way.policy} | options
    with ReshardingEngine(model, way.prefill, way.decode, pool=pool, **chosen) as engine:
        engine.serve(work)
        return engine.trace()


def about(trace: Trace) -> dict[str, Any]:
    """Return the columns that every measured row carries."""
    known = trace.log.about
    links = {name: known[name] or 0.0 for name in ("host_link_Bps", "peer_bus_Bps")}
    return {name: known[name] for name in ("evidence", "device", "ranks")} | links


def _runs(
    pool: RankPool, work: Workload, ways: Sequence[Way], repeats: int, host_share: float, options: dict[str, Any]
) -> Iterator[tuple[int, Way, Trace]]:
    """Yield repeat, way and trace; ways take turns, and a first round warms up."""
    for repeat, way in product(range(-1, repeats), ways):
        trace = serve(pool, work, way, host_share, **options)
        if repeat >= 0:
            yield repeat, way, trace
