"""Predicted against measured iteration time of plans on two ranks here (time half of the accuracy figure)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import pandas as pd
from scipy.stats import kendalltau

from paperlab.mist.cost.evaluate import evaluate
from paperlab.mist.cost.pipeline import closed_form_s
from paperlab.mist.models import ModelSpec
from paperlab.mist.plan import Plan
from paperlab.mist.runtime.build import Options
from paperlab.mist.runtime.pool import RankPool
from paperlab.mist.studies.profile_cpu import Profile, measurement, profile_of
from paperlab.mist.studies.run_plans import execute, label, make_plan, ranks, small_models
from paperlab.mist.symbolic.trace import symbolic_trace

OPTIONS = Options(account=False, trace=False)


def timed_model() -> ModelSpec:
    """Return a GPT large enough that operators, not Python, take the time."""
    return small_models(hidden=256, layers=4, seq_len=128, vocab=512)["gpt"]


def timed_plans(spec: ModelSpec) -> list[Plan]:
    """Return 24 plans of two ranks that all train the same eight sequences per iteration."""
    plans = []
    for zero, batch, count in ((1, 1, 0), (1, 2, 0), (1, 4, 0), (3, 1, 0), (3, 2, 2), (1, 1, 4), (1, 4, 4), (2, 1, 2)):
        plans.append(make_plan(spec, accumulation=4 // batch, dp=2, zero=zero, micro_batch=batch, checkpointed=count))
    for batch, count in ((1, 0), (2, 0), (4, 0), (8, 0), (2, 2), (2, 4), (8, 4)):
        plans.append(make_plan(spec, accumulation=8 // batch, tp=2, micro_batch=batch, checkpointed=count))
    for batch, count in ((1, 0), (2, 0), (4, 0), (2, 1), (4, 2)):
        plans.append(make_plan(spec, 2, 8 // batch, micro_batch=batch, checkpointed=count))
    every = {"weight_offload": 1, "grad_offload": 1, "optimizer_offload": 1, "activation_offload": 1}
    plans.append(make_plan(spec, accumulation=4, dp=2, micro_batch=1, **every))
    plans.append(make_plan(spec, accumulation=2, dp=2, micro_batch=2, checkpointed=2, **every))
    plans.append(make_plan(spec, 2, 4, micro_batch=2, **every))
    plans.append(make_plan(spec, 2, 4, micro_batch=2, optimizer_offload=1))
    return plans


def time_table(
    plans: Sequence[Plan] | None = None, pool: RankPool | None = None, rounds: int = 3, iterations: int = 3
) -> pd.DataFrame:
    """Run all plans `rounds` times in turn, with a profile of this machine before each round, and predict them.

    An iteration takes as long as its slowest rank; the first one of a run does not count. measured_s is the median over
    rounds and iterations, spread_s the largest less the least; the profile is a median over rounds too, so that a
    change of the machine's speed touches both. published_s is the cost model's time; predicted_s adds what it leaves
    out, Adam's arithmetic and the messages between stages. Mean-shifted means that the mean ratio of predicted to
    measured is taken out, as the artifact does.

    Columns: plan, measured_s, spread_s, published_s, predicted_s, error_percent, mean_shifted_error_percent.
    """
    plans = timed_plans(timed_model()) if plans is None else plans
    times: list[list[float]] = [[] for _ in plans]
    profiles = []
    with ranks(2, pool) as running:
        for _ in range(rounds):
            profiles.append(measurement(plans, running, repeats=3))
            for plan, taken in zip(plans, times, strict=True):
                taken += _iteration_s(running, plan, iterations)
    predicted = [predicted_s(plan, profile_of(profiles)) for plan in plans]
    table = pd.DataFrame(
        {
            "plan": [label(plan) for plan in plans],
            "measured_s": [statistics.median(taken) for taken in times],
            "spread_s": [max(taken) - min(taken) for taken in times],
            "published_s": [published for published, _ in predicted],
            "predicted_s": [complete for _, complete in predicted],
        }
    )
    ratio = table.predicted_s / table.measured_s
    return table.assign(error_percent=100 * (ratio - 1), mean_shifted_error_percent=100 * (ratio / ratio.mean() - 1))


def predicted_s(plan: Plan, found: Profile) -> tuple[float, float]:
    """Return the cost model's iteration time, and the same with Adam and the messages between stages."""
    reports, traces = evaluate(plan, found.cluster), symbolic_trace(plan.model)
    stable = [report.stable_s for report in reports]
    extra = [report.extra_s for report in reports]
    published = closed_form_s(stable, extra, plan.accumulation)
    bandwidth, latency_s = found.send
    for index, stage in enumerate(plan.stages):
        size = {kind: float(trace.weights.at(stage.micro_batch, stage.tp)) for kind, trace in traces.items()}
        weights = stage.layers * size["block"] + size["embedding"] * (index == 0)
        weights += size["head"] * (index == len(plan.stages) - 1)
        step_s = weights / plan.model.bytes_per_element / stage.shards[2] * found.adam_s
        if plan.accumulation == 1:
            stable[index] += step_s
        else:
            extra[index] += step_s
        if len(plan.stages) > 1:
            message = float(traces["block"].output.at(stage.micro_batch, stage.tp))
            stable[index] += message / bandwidth + latency_s
    return published, closed_form_s(stable, extra, plan.accumulation)


def _iteration_s(pool: RankPool, plan: Plan, iterations: int) -> list[float]:
    results = execute(pool, plan, iterations, OPTIONS)
    return [max(result.iteration_s[index] for result in results) for index in range(1, iterations)]


def accuracy_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return Kendall's τ of predicted and measured time, and mean absolute errors, raw and mean-shifted (percent)."""
    tau = kendalltau(table.predicted_s, table.measured_s).statistic
    raw, shifted = (table[name].abs().mean() for name in ("error_percent", "mean_shifted_error_percent"))
    values = {"plans": len(table), "kendall_tau": tau, "raw_error_percent": raw, "mean_shifted_error_percent": shifted}
    return pd.DataFrame([values])
