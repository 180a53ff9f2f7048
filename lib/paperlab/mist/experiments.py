"""One function per exhibit: each takes a `Config` and returns a tidy table with its evidence class.

Of the paper's own figures only two numbers are known, 11 (end to end, first panel) and 16 (tuning time); the other
exhibits carry names of ours instead of invented ones. Predicted GPU times are `analytic`, never measurements. Exhibits
that execute plans take a pool of two ranks, so that a notebook starts one for all of them.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import lru_cache

import pandas as pd

from paperlab.mist.clusters import Cluster, cluster
from paperlab.mist.config import WORKLOADS, Config
from paperlab.mist.cost.explain import memory_table
from paperlab.mist.models import SIZES, gpt
from paperlab.mist.plan import Plan
from paperlab.mist.runtime.pool import RankPool
from paperlab.mist.search.space import cumulative_spaces, size
from paperlab.mist.studies import (
    against_published,
    decoupled,
    end_to_end,
    front_study,
    interference_study,
    memory_accuracy,
    numerics,
    pipeline_study,
    runtime_accuracy,
    schedule_trace,
)
from paperlab.mist.studies.schedule_study import gantt, slots

ANALYTIC, SIMULATED, CPU = "analytic", "simulated", "measured-cpu"
NOISE = 0.01  # of made-up interference points


def table_workloads(config: Config) -> pd.DataFrame:
    """The paper's workloads: model shapes, devices, sequences per iteration."""
    rows = []
    for name in SIZES:
        shape, (nodes, gpus, batch) = gpt(name, seq_len=2048).shape, WORKLOADS[name]
        rows.append((name, shape.layers, shape.hidden, shape.heads, shape.ffn, nodes * gpus, batch))
    columns = ["size", "layers", "hidden", "heads", "ffn", "GPUs", "global_batch"]
    return pd.DataFrame(rows, columns=columns).assign(evidence=ANALYTIC)


def table_variables(config: Config) -> pd.DataFrame:
    """What a plan decides, where, and the values that the tuner tries."""
    return end_to_end.variables().assign(evidence=ANALYTIC)


def table_goldens(config: Config) -> pd.DataFrame:
    """The artifact's README: its predictions, ours, and what it measured on two L4."""
    return against_published.goldens().assign(evidence=ANALYTIC)


def exhibit_search_space(config: Config) -> pd.DataFrame:
    """How the search space of GPT-22B on 4 x 8 GPUs grows with each dimension."""
    rows = []
    for label, space in list(cumulative_spaces().items())[:-1]:
        rows.append({"space": label, **asdict(size(gpt("22b", seq_len=2048), cluster("l4", 4, 8), 512, space))})
    return pd.DataFrame(rows).assign(evidence=ANALYTIC)


def exhibit_schedule(config: Config) -> pd.DataFrame:
    """1F1B of the tuned GPT-7B plan over time, with eight micro-batches, from the event simulation."""
    plan, where = _seven_billion()
    return gantt(plan, where, 8).assign(evidence=SIMULATED)


def exhibit_slots(config: Config) -> pd.DataFrame:
    """What each slot of a middle block hides in that plan: parts alone, their sum, and together."""
    plan, where = _seven_billion()
    return slots(plan, where).assign(evidence=ANALYTIC)


def exhibit_memory(config: Config) -> pd.DataFrame:
    """What fills the device at both peaks of every stage of that plan."""
    plan, where = _seven_billion()
    return memory_table(plan, where).assign(evidence=ANALYTIC)


def _seven_billion() -> tuple[Plan, Cluster]:
    spec, where, batch = end_to_end.workload("l4", "gpt", "7b", "flash")
    plan = end_to_end.mist_plan(spec, "l4", where.nodes, where.gpus_per_node, batch)
    assert plan is not None, "GPT-7B fits on eight L4"
    return plan, where


def table_operator_rates(config: Config) -> pd.DataFrame:
    """Each kind's largest operator, predicted from smaller ones, as the cost model does for shapes without a row."""
    return against_published.operator_rates().assign(evidence=ANALYTIC)


def exhibit_interference(config: Config) -> pd.DataFrame:
    """Held-out error of the 28-factor model on made-up points of the published parameter sets, 1 % noise."""
    table = interference_study.fit_table(config.interference_points, NOISE, config.seeds)
    return table.assign(evidence=SIMULATED)


def exhibit_interference_cpu(config: Config) -> pd.DataFrame:
    """The same on points measured here: a matrix product beside two copies, in threads."""
    points = interference_study.cpu_points(config.interference_repeats)
    return interference_study.cpu_table(points, config.seeds[0]).assign(evidence=CPU)


def exhibit_pipeline_formula(config: Config) -> pd.DataFrame:
    """Error of the closed form and of averaged d against the event simulation, per scenario and draw."""
    return pipeline_study.formula_table(config.pipeline_draws, config.seeds[0]).assign(evidence=SIMULATED)


def exhibit_fronts(config: Config) -> pd.DataFrame:
    """What α-sampling loses against full Pareto fronts on random instances."""
    return front_study.sampling_table(config.front_draws, config.seeds[0]).assign(evidence=SIMULATED)


def table_solvers(config: Config) -> pd.DataFrame:
    """MILP, exact sweep and brute force on the same random instances, with their times."""
    return front_study.solver_table(config.front_draws, config.seeds[0]).assign(evidence=CPU)


def figure_11(config: Config) -> pd.DataFrame:
    """End to end on L4 without flash attention (Figure 11): GPT, with the Aceso-like search; predicted."""
    table = end_to_end.comparison("l4", ("gpt",), config.sizes, "math", config.aceso_evaluations)
    return table.assign(evidence=ANALYTIC)


def exhibit_l4_flash(config: Config) -> pd.DataFrame:
    """End to end on L4 with flash attention; predicted."""
    return end_to_end.comparison("l4", config.families, config.sizes, "flash").assign(evidence=ANALYTIC)


def exhibit_a100(config: Config) -> pd.DataFrame:
    """End to end on A100 with flash attention, from an assumed roofline; predicted."""
    return end_to_end.comparison("a100", config.families, config.sizes, "flash").assign(evidence=ANALYTIC)


def table_speedups(config: Config, compared: pd.DataFrame) -> pd.DataFrame:
    """Speedups in `figure_11`'s or `exhibit_l4_flash`'s rows beside those of the artifact's README, measured on L4."""
    return against_published.speedups(compared).assign(evidence=ANALYTIC)


def exhibit_breakdown(config: Config) -> pd.DataFrame:
    """The best plan as the space grows by one dimension at a time, the last of them imbalance awareness."""
    return _steps(config).drop(columns=["evaluation_s", "solver_s"]).assign(evidence=ANALYTIC)


def figure_16(config: Config) -> pd.DataFrame:
    """Tuning time on this machine as the space grows (Figure 16)."""
    table = _steps(config)
    columns = ["step", "space", "evaluated", "evaluation_s", "solver_s"]
    return table[columns].assign(tuning_s=table.evaluation_s + table.solver_s, evidence=CPU)


@lru_cache(maxsize=1)  # both show the same searches
def _steps(config: Config) -> pd.DataFrame:
    return end_to_end.cumulative(config.breakdown_size, cumulative_spaces())


def exhibit_layers(config: Config) -> pd.DataFrame:
    """Sensitivity to depth: hidden 5120 on 32 L4, 512 sequences; Mist and both Megatron rows."""
    tables = []
    for layers in config.sensitivity_layers:
        base = gpt("13b", seq_len=2048)
        spec = replace(base, shape=replace(base.shape, layers=layers, name=f"gpt-h5120-l{layers}"))
        tables.append(end_to_end.sensitivity(spec, cluster("l4", 4, 8), 512).assign(layers=layers))
    return pd.concat(tables, ignore_index=True).assign(evidence=ANALYTIC)


def exhibit_batch(config: Config) -> pd.DataFrame:
    """Sensitivity to the global batch, on the L4s of the paper's workload of that size; both Megatron rows too."""
    spec, where, _ = end_to_end.workload("l4", "gpt", config.sensitivity_size, "flash")
    tables = [end_to_end.sensitivity(spec, where, b).assign(global_batch=b) for b in config.sensitivity_batches]
    return pd.concat(tables, ignore_index=True).assign(evidence=ANALYTIC)


def exhibit_memory_accuracy(config: Config) -> pd.DataFrame:
    """Predicted peaks of 26 stages against those the artifact measured on L4."""
    return against_published.memory().assign(evidence=ANALYTIC)


def exhibit_time_accuracy(config: Config) -> pd.DataFrame:
    """Predicted iteration times of eleven runs against those the artifact measured on L4, raw and shifted."""
    return against_published.times().assign(evidence=ANALYTIC)


def table_symbolic_speed(config: Config) -> pd.DataFrame:
    """Batched evaluation by formulas against a fresh trace per configuration, on this machine."""
    return against_published.symbolic_speed(config.interference_repeats).assign(evidence=CPU)


def table_numerics(config: Config, pool: RankPool) -> pd.DataFrame:
    """Deviation of executed plans from one process: losses, gradients and weights of three iterations."""
    return numerics.numerics_table(pool).assign(evidence=CPU)


def exhibit_executed_memory(config: Config, pool: RankPool) -> pd.DataFrame:
    """Measured device peaks of executed plans against predicted ones, by stage."""
    plans = memory_accuracy.memory_plans(memory_accuracy.small_models()["gpt"])[:: config.executed_step]
    return memory_accuracy.memory_table(plans, pool).assign(evidence=CPU)


def exhibit_decoupled(config: Config, pool: RankPool) -> pd.DataFrame:
    """Device peak of the optimizer step, taken at once and module by module, and the predicted difference."""
    return decoupled.decoupled_table(pool=pool).assign(evidence=CPU)


def exhibit_lanes(config: Config, pool: RankPool) -> pd.DataFrame:
    """Spans of every lane of both ranks in one iteration of a two-stage plan that offloads half of everything."""
    return schedule_trace.traced_schedule(pool=pool).assign(evidence=CPU)


def table_hidden(config: Config, spans: pd.DataFrame) -> pd.DataFrame:
    """Fraction of each side lane's work in `exhibit_lanes` that lies beside the rank's compute."""
    return schedule_trace.hidden_fraction(spans).assign(evidence=CPU)


def exhibit_pipeline(config: Config, spans: pd.DataFrame) -> pd.DataFrame:
    """The passes of `exhibit_lanes` as they ran, and as 1F1B's event simulation orders passes of such lengths."""
    table = schedule_trace.pipeline_table(spans)
    return table.assign(evidence=table.source.map({"measured": CPU, "simulated": SIMULATED}))


def exhibit_overlap(config: Config) -> pd.DataFrame:
    """A product loop and a copy loop of equal length: alone, on two lanes, and one after the other."""
    return schedule_trace.overlap_table(config.timing_rounds + 2).assign(evidence=CPU)


def exhibit_executed_times(config: Config, pool: RankPool) -> pd.DataFrame:
    """Measured iteration times of two-rank plans on this machine against predicted ones."""
    plans = runtime_accuracy.timed_plans(runtime_accuracy.timed_model())[:: config.executed_step]
    return runtime_accuracy.time_table(plans, pool, config.timing_rounds).assign(evidence=CPU)


def table_executed_accuracy(config: Config, times: pd.DataFrame) -> pd.DataFrame:
    """Kendall's rank correlation and mean errors, raw and mean-shifted, of `exhibit_executed_times`."""
    return runtime_accuracy.accuracy_summary(times).assign(evidence=CPU)
