"""One function per table and figure of the paper: each takes a `Config` and returns a tidy table with its evidence."""

from __future__ import annotations

from functools import lru_cache

import pandas as pd

from paperlab.nexus.config import Config
from paperlab.nexus.studies import (
    consistency,
    contention_study,
    engine_study,
    inversion,
    offline_study,
    operators_study,
    saturation_study,
    schematics,
    serving_study,
    sweeps,
    switching,
)
from paperlab.nexus.studies.serving_study import ARXIV, LARGE, LDC, MIXED
from paperlab.serving import EventLog, workload
from paperlab.serving.engine.prediction import prediction_study, unseen_traces

SIMULATED, ANALYTIC, CPU = "simulated", "analytic", "measured-cpu"
ENGINE_RATE = 8.0  # requests per second of the small model
MOTIVATION_RATE = 2.5  # requests per second of the motivation experiments (§3)


def table_1(config: Config) -> pd.DataFrame:
    """Lengths of the generated workloads beside the paper's Table 1, with relative errors."""
    names = ("ldc", "arxiv", "sharegpt", "mixed")
    drawn = [workload(name, 1.0, config.statistics_requests, config.seeds[0]).statistics() for name in names]
    return pd.concat(drawn, ignore_index=True).assign(evidence=SIMULATED)


def figure_1(config: Config) -> pd.DataFrame:
    """Lanes of the three designs of Fig. 1 on their devices, as the policies declare them."""
    return schematics.system_lanes().assign(evidence=ANALYTIC)


def table_evolution(config: Config) -> pd.DataFrame:
    """Fig. 1d with numbers: TTFT, TBT and busy multiprocessors of the three designs beside the paper's ticks."""
    return schematics.evolution(MOTIVATION_RATE, config.sweep_requests, config.seeds[0]).assign(evidence=SIMULATED)


def figure_2(config: Config) -> pd.DataFrame:
    """FLOPs per byte of each operator in prefill and decode, and the side of the L20's ridge it lies on."""
    return operators_study.intensities().assign(evidence=ANALYTIC)


def figure_3(config: Config) -> pd.DataFrame:
    """Multiprocessors of an L20 and decode's part of its bandwidth under three layouts."""
    return schematics.device_splits().assign(evidence=ANALYTIC)


def figure_4a(config: Config) -> pd.DataFrame:
    """Iterations of the vLLM-like baseline by kind (LDC, 2.5 requests/s), for each penalty of mixed batches."""
    return operators_study.iteration_kinds(config.requests, config.seeds[0], config.penalties).assign(
        evidence=SIMULATED
    )


def figure_4b(config: Config) -> pd.DataFrame:
    """Seconds of each operator in a typical decode-only and a typical mixed batch of that run."""
    return operators_study.typical_batches(config.requests, config.seeds[0]).assign(evidence=SIMULATED)


def figure_5(config: Config) -> pd.DataFrame:
    """Forecast latency against the share of multiprocessors, whole phases and operators, for both curve families.

    The curves are fitted to what §3.2 states, so this shows the fit and not an independent result.
    """
    return saturation_study.share_table().assign(evidence=ANALYTIC)


def table_fit(config: Config) -> pd.DataFrame:
    """What §3.2 states about latency and share, and the fit to it: inputs, not findings."""
    return saturation_study.fit_table().assign(evidence=ANALYTIC)


def figure_6a(config: Config) -> pd.DataFrame:
    """Forecast decode latency beside a prefill chunk, against the tokens it attends to, by form of contention."""
    return contention_study.by_prefill_context().assign(evidence=ANALYTIC)


def figure_6b(config: Config) -> pd.DataFrame:
    """Stored tokens that the prefill lane attends to over time, in a Nexus run of the motivation workload."""
    return operators_study.prefill_context(config.requests, config.seeds[0]).assign(evidence=SIMULATED)


def exhibit_control(config: Config) -> pd.DataFrame:
    """Every look of the control at the split in a run of the motivation workload: target, R_p, evaluations."""
    return operators_study.control_records(config.sweep_requests, config.seeds[0]).assign(evidence=SIMULATED)


def table_priorities(config: Config) -> pd.DataFrame:
    """Prefill's share under each objective over slacks: where the two priorities change places (§4.1.2)."""
    return inversion.splits().assign(evidence=ANALYTIC)


def table_checks(config: Config) -> pd.DataFrame:
    """The paper against itself: numbers, formulas and listings where its text says something about them."""
    return consistency.checks()


def figure_7(config: Config) -> pd.DataFrame:
    """Who calls whom while Nexus serves: the architecture, recorded from a run."""
    return schematics.call_graph(MOTIVATION_RATE, config.sweep_requests, config.seeds[0]).assign(evidence=SIMULATED)


def figure_8(config: Config) -> pd.DataFrame:
    """The two seconds of a busy run with the most switches, both lanes, under each switching mechanism."""
    logs = _switching_runs(config)
    start_s = switching.busiest(logs["(b) asynchronous"], seconds=2.0)
    return switching.timeline(logs, start_s, start_s + 2.0).assign(evidence=SIMULATED)


def table_switching(config: Config) -> pd.DataFrame:
    """What each switching mechanism costs over the whole run."""
    return switching.comparison(_switching_runs(config)).assign(evidence=SIMULATED)


@lru_cache(maxsize=1)  # the figure and the table show the same runs
def _switching_runs(config: Config) -> dict[str, EventLog]:
    return switching.runs(LDC.cell("nexus", MOTIVATION_RATE, config.sweep_requests, config.seeds[0]))


def exhibit_sweeps(config: Config) -> pd.DataFrame:
    """One sweep for each constant and each point that the paper leaves open, on LDC near saturation."""
    cell = LDC.cell("nexus", 2.0, config.sweep_requests, config.seeds[0])
    tables = [sweeps.sweep(name, cell, config.seeds[:1]) for name in sweeps.SWEEPS]
    return pd.concat(tables, ignore_index=True).assign(evidence=SIMULATED)


def figure_9(config: Config) -> pd.DataFrame:
    """Latencies of five systems against the arrival rate, for three workloads."""
    rates = {LDC: config.ldc_rates, ARXIV: config.arxiv_rates, MIXED: config.mixed_rates}
    grid = serving_study.rate_grid(rates, serving_study.FIVE, config.requests, config.seeds, config.workers)
    return grid.assign(evidence=SIMULATED)


def figure_10(config: Config) -> pd.DataFrame:
    """The same for Qwen2.5-14B on two devices: tensor-parallel systems, and one that disaggregates over them."""
    systems = ("vllm-like", "sglang-like", "nexus", "vllm-pd-like")
    rates = {LARGE: config.large_rates}
    grid = serving_study.rate_grid(rates, systems, config.requests, config.seeds, config.workers)
    return grid.assign(evidence=SIMULATED)


def figure_11(config: Config) -> pd.DataFrame:
    """Makespan of offline batches, all jobs there at time 0; timed out beyond three times the vLLM-like makespan."""
    jobs = {LDC: config.offline_ldc_jobs, MIXED: config.offline_mixed_jobs}
    return offline_study.makespans(jobs, serving_study.FIVE, config.seeds[0], config.workers).assign(evidence=SIMULATED)


def figure_12(config: Config, grid: pd.DataFrame) -> pd.DataFrame:
    """Normalized latency of `figure_9`'s rows by stage: execution, scheduler, waiting; at the two middle rates."""
    return offline_study.stages(grid).assign(evidence=SIMULATED)


def figure_13(config: Config) -> pd.DataFrame:
    """Ablation on Mixed: order of prompts and control of the split, each with and without."""
    rates = {MIXED: config.ablation_rates}
    systems = tuple(serving_study.ABLATION)
    grid = serving_study.rate_grid(rates, systems, config.requests, config.seeds, config.workers)
    return grid.assign(arm=grid.system.map(serving_study.ABLATION), evidence=SIMULATED)


def exhibit_controls(config: Config) -> pd.DataFrame:
    """What the paper does not print: the order without the partition, other static splits, feedback, low load."""
    return offline_study.controls(config.control_rates, config.requests, config.seeds[:1], config.workers).assign(
        evidence=SIMULATED
    )


def exhibit_penalties(config: Config) -> pd.DataFrame:
    """How the comparison on LDC depends on what nobody could read: cost of mixing, and of running side by side."""
    return offline_study.penalties(
        config.penalties, config.ldc_rates, config.requests, config.seeds[:1], config.workers
    ).assign(evidence=SIMULATED)


def table_throughput(config: Config, grid: pd.DataFrame) -> pd.DataFrame:
    """Sustained rates in a grid such as `figure_9`'s, for three thresholds of normalized latency."""
    return serving_study.sustained(grid).assign(evidence=SIMULATED)


def table_gains(config: Config, grid: pd.DataFrame) -> pd.DataFrame:
    """How many times larger the other systems' latencies are than Nexus's, at every point of a grid."""
    return serving_study.latency_gains(grid).assign(evidence=SIMULATED)


def exhibit_engine(config: Config) -> pd.DataFrame:
    """Metrics of real runs of a small model on this machine, by system, with the scheduler's cost."""
    found = engine_study.logs(config.engine_requests, config.engine_layers, config.seeds[0], ENGINE_RATE)
    table = engine_study.summaries(found).merge(engine_study.overhead(found), on="system")
    return table.assign(evidence=CPU)


def table_engine_iterations(config: Config) -> pd.DataFrame:
    """Iterations of such a run of the vLLM-like baseline by kind: Figure 4a on a CPU."""
    found = engine_study.logs(
        config.engine_requests, config.engine_layers, config.seeds[0], ENGINE_RATE, ("vllm-like",)
    )
    return engine_study.iteration_kinds(found).assign(evidence=CPU)


def table_prediction(config: Config) -> pd.DataFrame:
    """Mean TTFT and TBT of real runs on this machine beside what the simulator, calibrated on others, predicts."""
    traces = unseen_traces()[: config.prediction_traces]
    found = prediction_study(config.prediction_policies, traces, rounds=config.prediction_rounds, seed=config.seeds[0])
    return found.assign(evidence=CPU)
