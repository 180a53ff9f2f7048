"""The real engine's exhibits: each takes a `Config` and two ranks, and returns a tidy table with its evidence."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from paperlab.seesaw.config import Config
from paperlab.seesaw.engine import RankPool
from paperlab.seesaw.engine.trace import Trace
from paperlab.seesaw.policies import ReshardDecodeFirst, ReshardPrefillFirst, Seesaw
from paperlab.seesaw.studies import engine_rules, engine_study, overlap_study, prediction_study
from paperlab.seesaw.studies.engine_study import Way, pairs
from paperlab.serving import Workload, fixed, uniform, workload

RING_BPS = 50e6  # emulated: all-reduces of a prompt in T2 take about as long as its computation, as over PCIe (Fig. 1)
ALL = (Way("P2", "P2"), Way("T2", "T2"), Way("P2", "T2"))
RESHARDING = tuple(Way("P2", "T2", policy.name) for policy in (Seesaw, ReshardPrefillFirst, ReshardDecodeFirst))
DEVICE_SHARE = 0.6  # of the prompts' keys and values, so that a batch cannot simply be everything


def load(config: Config, seed: int | None = None) -> Workload:
    """Return what is served: prompts of 64 to 256 tokens, outputs of 4 to 16."""
    lengths = uniform((64, 256), (4, 16), "prompts 64-256, outputs 4-16")
    seed = config.seeds[0] if seed is None else seed
    return workload(lengths, requests=config.engine_requests, seed=seed, arrivals="at_once")


def table_tokens(config: Config, pool: RankPool) -> pd.DataFrame:
    """Greedy tokens of every pair of layouts against Hugging Face's."""
    return engine_rules.against_hugging_face(pool, pairs(pool.ranks))


def example(config: Config, pool: RankPool) -> Trace:
    """One run from P2 to T2 whose host tier holds half of the prompts."""
    return engine_study.serve(pool, load(config), Way("P2", "T2"), 0.5)


def table_groups(config: Config, pool: RankPool) -> pd.DataFrame:
    """Whom each decode step serves, in T2 and in P2: equal requests, all on the devices at once."""
    work = workload(fixed(32, 16), requests=8, arrivals="at_once")
    traces = [engine_study.serve(pool, work, Way(*pair), 1.5) for pair in (("P2", "T2"), ("T2", "P2"))]
    tables = [engine_rules.decode_groups(trace).assign(decode=trace.log.about["layout"][-2:]) for trace in traces]
    return pd.concat(tables, ignore_index=True)


def exhibit_phase_times(config: Config, pool: RankPool) -> pd.DataFrame:
    """Makespan by phase of both static layouts and of re-sharding, over an emulated slow ring (Fig. 12's kin)."""
    ways = (*ALL, Way("T2", "T2", "static-chunked"))
    return _seeds(config, lambda work: engine_study.phase_times(
        pool, work, ways, config.engine_repeats, peer_bus_Bps=RING_BPS))  # fmt: skip


def exhibit_breakdown(config: Config, pool: RankPool) -> pd.DataFrame:
    """Where the ranks' time goes in P2 and in T2 over the same ring (Fig. 1's kin)."""
    return engine_study.breakdown(pool, load(config), ("P2", "T2"), config.engine_repeats, peer_bus_Bps=RING_BPS)


def exhibit_reload(config: Config, pool: RankPool) -> pd.DataFrame:
    """Seconds of a reload and of swapping by the size of the batch, in medians of five runs or more."""
    return engine_rules.reload_against_swap(pool, config.engine_batches, Way("P2", "T2"), config.engine_repeats + 4)


def table_reloads(config: Config, pool: RankPool) -> pd.DataFrame:
    """Bytes and rate of every reload in a run of several cycles."""
    return engine_study.reloads(pool, load(config), (Way("P2", "T2"),))


def table_moved(config: Config, pool: RankPool) -> pd.DataFrame:
    """What each rank sent, reduced, wrote, read and loaded, for every pair of layouts."""
    return engine_study.moved_bytes(pool, load(config), pairs(pool.ranks))


def exhibit_schedulers(config: Config, pool: RankPool) -> pd.DataFrame:
    """Three schedulers by the size of the host's tier (Fig. 2's kin)."""
    return _seeds(config, lambda work: engine_study.schedulers(
        pool, work, RESHARDING, config.engine_host_shares, DEVICE_SHARE, config.engine_repeats))  # fmt: skip


def exhibit_overlap(config: Config, pool: RankPool) -> pd.DataFrame:
    """Prefill without copies, with copies behind it, and waiting for them."""
    tables = [overlap_study.overlap(pool, layout, repeats=config.overlap_repeats) for layout in ("P2", "T2")]
    return pd.concat(tables, ignore_index=True)


def exhibit_prediction(config: Config, pool: RankPool) -> pd.DataFrame:
    """Measured against simulated makespans of runs that the calibration has not seen."""
    sources = prediction_study.UNSEEN[-config.prediction_workloads :]
    return prediction_study.prediction(pool, sources, config.engine_requests, config.prediction_rounds, config.seeds[0])


def _seeds(config: Config, study: Callable[[Workload], pd.DataFrame]) -> pd.DataFrame:
    """Return a study's tables for the workloads of all seeds."""
    return pd.concat([study(load(config, seed)).assign(seed=seed) for seed in config.seeds], ignore_index=True)
