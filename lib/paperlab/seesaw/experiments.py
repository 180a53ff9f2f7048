"""One function per table and figure of the paper: each takes a `Config` and returns a tidy table with its evidence."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import pandas as pd

from paperlab.seesaw.config import Config
from paperlab.seesaw.studies import analysis, end_to_end, mechanism, sweeps
from paperlab.serving.events import EventLog

SIMULATED, ANALYTIC, CPU = "simulated", "analytic", "measured-cpu"
POLICY_REQUESTS = 110  # of the small runs behind Figs. 2 and 6


def _of_seeds(config: Config, study: Callable[[int], pd.DataFrame]) -> pd.DataFrame:
    """Return a study's tables for the requests of each seed, with a column `seed`."""
    return pd.concat([study(seed).assign(seed=seed) for seed in config.seeds], ignore_index=True)


def table_1(config: Config) -> pd.DataFrame:
    """GPU specifications: the paper's beside those of `data/hardware`."""
    return analysis.specifications().assign(evidence=ANALYTIC)


def table_1_here(config: Config) -> pd.DataFrame:
    """The same for this machine's processor, measured."""
    return analysis.this_machines_row().assign(evidence=CPU)


def table_2(config: Config) -> pd.DataFrame:
    """The paper's symbols and where each lives here."""
    columns = ["symbol", "meaning", "name_here"]
    return pd.DataFrame(analysis.NOTATION, columns=columns).assign(evidence=ANALYTIC)


def table_3(config: Config) -> pd.DataFrame:
    """Run-time components of one layer as formulas, with LLaMA2-70B on A10s as an example (b = 32, s = 2048, TP 4)."""
    return analysis.formulas().assign(evidence=ANALYTIC)


def figure_1(config: Config) -> pd.DataFrame:
    """Breakdown of a 13B model's prefill and decode on 8 L4s by layout (16 prompts of 1,024 tokens, our choice)."""
    return analysis.breakdown().assign(evidence=ANALYTIC)


def figure_2(config: Config) -> pd.DataFrame:
    """Sequences on host and GPUs over time under the three policies: 34B on 4 A10s, 10 GiB of host memory."""
    logs = _policy_runs(config.seeds[0])
    tables = [mechanism.occupancy(log).assign(policy=name) for name, log in logs.items()]
    return pd.concat(tables, ignore_index=True).assign(evidence=SIMULATED)


def table_policies(config: Config) -> pd.DataFrame:
    """Makespan, transitions and decode batches of those runs."""
    table = _of_seeds(config, lambda seed: mechanism.policy_table(_policy_runs(seed)))
    return table.assign(evidence=SIMULATED)


@lru_cache(maxsize=3)  # two figures and a table show the same runs
def _policy_runs(seed: int) -> dict[str, EventLog]:
    return mechanism.policies(POLICY_REQUESTS, seed)


def figure_3(config: Config) -> pd.DataFrame:
    """What two GPUs do with two micro-batches in T2 and in P2, prefill and decode."""
    return mechanism.effect_of_parallelism().assign(evidence=ANALYTIC)


def figure_4(config: Config) -> pd.DataFrame:
    """Disaggregating LLaMA2-70B on 8 A100-40GB into 4 and 4, for four workloads and two interconnects."""
    return analysis.disaggregation().assign(evidence=ANALYTIC)


def figure_5(config: Config) -> pd.DataFrame:
    """What two GPUs hold of a two-layer model in P2 and T2."""
    return mechanism.shard_map().assign(evidence=ANALYTIC)


def figure_6(config: Config) -> pd.DataFrame:
    """Occupancy of both tiers and the phase in a run of the transition-minimizing policy."""
    return mechanism.occupancy(_policy_runs(config.seeds[0])["seesaw"]).assign(evidence=SIMULATED)


def figure_7(config: Config) -> pd.DataFrame:
    """Bytes of one prompt's cache that each GPU writes in P4 and reads in T4."""
    return mechanism.store_traffic().assign(evidence=ANALYTIC)


def figure_8(config: Config) -> pd.DataFrame:
    """What stages, host links and the prefetcher did around a re-sharding."""
    return mechanism.timeline(config.seeds[0]).assign(evidence=SIMULATED)


def table_overlap(config: Config) -> pd.DataFrame:
    """How much of the swap-out ends after the computation that should hide it."""
    return mechanism.hidden_copies(config.seeds[0]).assign(evidence=SIMULATED)


def figure_9(config: Config) -> pd.DataFrame:
    """Density of prompt and output lengths of both workloads."""
    return analysis.densities(4000, config.seeds[0]).assign(evidence=ANALYTIC)


def figure_10(config: Config) -> pd.DataFrame:
    """The best static layout and the best pair in each cell: devices x workloads x models."""
    cells = end_to_end.cells(config.devices, config.requests, config.seeds, config.simulate)
    return end_to_end.with_labels(end_to_end.table(cells, config.workers)).assign(evidence=SIMULATED)


def table_speedups(config: Config, cells: pd.DataFrame) -> pd.DataFrame:
    """Geometric mean (and that of each seed's cells alone, from least to largest) of `figure_10`'s speed-ups."""
    return end_to_end.speedups(cells).assign(evidence=SIMULATED)


def table_sensitivity(config: Config) -> pd.DataFrame:
    """Forecast speed-ups of the same cells under one changed assumption at a time; the first seed's requests."""
    cells = end_to_end.cells(config.devices, config.requests, config.seeds[:1], config.simulate)
    return end_to_end.sensitivity(cells, config.workers).assign(evidence=SIMULATED)


def figure_11(config: Config) -> pd.DataFrame:
    """LLaMA2-70B on 8 A100s over PCIe and over NVLink, beside the paper's eight bars."""
    table = end_to_end.interconnects(config.requests, config.seeds, config.simulate, config.workers)
    return table.assign(evidence=SIMULATED)


def figure_12(config: Config) -> pd.DataFrame:
    """Makespan by phase of four schedules: CodeLLaMA-34B on 4 A10s, arXiv."""
    table = _of_seeds(config, lambda seed: sweeps.run_times(config.arxiv_requests, seed))
    return table.assign(evidence=SIMULATED)


def table_12(config: Config) -> pd.DataFrame:
    """Makespan of every static layout and chunk size in that setting."""
    table = _of_seeds(config, lambda seed: sweeps.static_makespans(config.arxiv_requests, seed))
    return table.assign(evidence=SIMULATED)


def figure_13(config: Config) -> pd.DataFrame:
    """Throughput against output over input: 70B on 8 A10s, prompts of 3,000 tokens."""
    return sweeps.by_ratio(config.ratios, config.ratio_requests, config.workers).assign(evidence=SIMULATED)


def figure_14(config: Config) -> pd.DataFrame:
    """Throughput against the speed of all-reduces: CodeLLaMA-34B on 8 A10s, arXiv."""
    table = _of_seeds(
        config, lambda seed: sweeps.by_link(config.link_factors, config.link_requests, seed, config.workers)
    )
    return table.assign(evidence=SIMULATED)


def figure_15(config: Config) -> pd.DataFrame:
    """A decode step's time per sequence and the batch that fits, against DP: LLaMA2-13B on 8 L4s."""
    return analysis.replicas().assign(evidence=ANALYTIC)


def exhibit_policies(config: Config) -> pd.DataFrame:
    """Policies x host memory at paper scale: the ablation that the paper does not print."""
    table = _of_seeds(
        config, lambda seed: sweeps.ablation(config.host_GiB, config.policy_requests, seed, config.workers)
    )
    return table.assign(evidence=SIMULATED)


def table_calibration(config: Config) -> pd.DataFrame:
    """Efficiencies fitted to one model's published layer times, and the error on the other's."""
    return analysis.fits().assign(evidence=ANALYTIC)


def exhibit_calibration(config: Config) -> pd.DataFrame:
    """Every published layer time beside the prediction."""
    return analysis.layer_predictions().assign(evidence=ANALYTIC)


def table_all_reduce(config: Config) -> pd.DataFrame:
    """All-reduce rates: fitted to published measurements, and those that the nodes derive from them."""
    return analysis.all_reduce_rates().assign(evidence=ANALYTIC)
