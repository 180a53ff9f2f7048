"""Whole systems on the real engine: capacity, then systems against rates scaled to it (Figs. 9, 13).

All run on the same weights, with a pool of as many tokens as the paper's L20 has. None of this has run on a GPU yet.
"""

from __future__ import annotations

import pandas as pd

from paperlab.nexus.gpu.bench import BLOCK, Bench
from paperlab.nexus.gpu.iterations import UNPARTITIONED, known_layouts, multiprocessors
from paperlab.nexus.gpu.scope import MONOLITHIC, Served
from paperlab.nexus.studies.serving_study import DEVICE
from paperlab.serving import LLM, Limits, deployment, make_policy, workload
from paperlab.serving.engine.green_contexts import PartitionError, shared_partition
from paperlab.serving.engine.streams import Sharing

CAPACITY_SEED = 1000  # of the requests that measure capacity; none of the runs' own seeds


def capacity(bench: Bench, served: Served) -> pd.DataFrame:
    """Return the requests per second of the first baseline when all arrive at once: what rates are scaled to.

    The run's end, when few are left, is part of it, so it is a little below what a long run sustains.
    """
    count = bench.scope.capacity_requests
    work = workload(served.scenario.lengths, requests=count, seed=CAPACITY_SEED, arrivals="at_once")
    engine = engine_of(bench, served, MONOLITHIC[0])
    work = work.scaled(tokens=bench.scope.length_factor)
    engine.serve(work, bench.scope.limit_s)  # compiles kernels for the shapes that occur
    log = engine.serve(work, bench.scope.limit_s)
    return log.summary().assign(scenario=served.scenario.label)


def point(bench: Bench, served: Served, load: float, system: str, seed: int) -> pd.DataFrame:
    """Return a system's metrics at `load` times the capacity; empty until that is known.

    `unfinished` counts what was left at the time limit. Column `partition` says whether lanes had multiprocessors of
    their own (`green contexts`), had not (`unpartitioned`), or do not share the device (`none`).
    """
    known = bench.read("capacity")
    if known.empty:
        return known
    known = known[(known.scenario == served.scenario.label) & (known.device == bench.columns["device"])]
    if known.empty:
        return known
    scope, rate_per_s = bench.scope, load * float(known.requests_per_s.iloc[-1])
    count = max(4, round(rate_per_s * scope.window_s))
    work = workload(served.scenario.lengths, rate_per_s, count, seed).scaled(tokens=scope.length_factor)
    log = engine_of(bench, served, system).serve(work, scope.limit_s)
    return log.summary().assign(scenario=served.scenario.label, load=load, requests=count, limit_s=scope.limit_s)


def engine_of(bench: Bench, served: Served, system: str) -> LLM:
    """Return the engine of `system`, its decode graphs captured; all of one workload share weights and pool."""
    engines = bench.hold(served.scenario.label, dict)
    if system not in engines:
        policy = make_policy(system, limits=Limits(token_budget=bench.scope.token_budget))
        if engines:
            made = next(iter(engines.values())).with_policy(policy)
        else:
            tokens = served.kv_tokens or deployment(served.model, DEVICE).kv_blocks * BLOCK
            options = {"kv_blocks": tokens // BLOCK, "block_size": BLOCK, "dtype": bench.dtype, "device": bench.on}
            made = LLM(served.model, policy, **options, sharing=sharing(bench))  # type: ignore[arg-type]
        _warm_up(bench, made)
        engines[system] = made
    return engines[system]


def sharing(bench: Bench) -> Sharing:
    """Return `green` if every layout can be made and checked, else `unpartitioned`, and say so."""
    try:
        for count in known_layouts(bench):
            shared_partition(count, bench.on)
    except PartitionError as error:
        print(f"serving: {UNPARTITIONED}: {error}", flush=True)
        return "unpartitioned"
    return "green"


def _warm_up(bench: Bench, engine: LLM) -> None:
    """Capture the graphs of the lane that decodes, at every share that it can have."""
    lane, *others = [lane.name for lane in engine.policy.lanes if lane.kind == "compute"][::-1]
    total = multiprocessors(bench)
    shares = [1 - count / total for count in known_layouts(bench)] if others else []
    for share in (1.0, *shares):
        engine.warm_up(lane, share, bench.scope.graphs_up_to)
