"""Measured against predicted memory, traffic and counts of executed plans (memory half of the accuracy figure)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from paperlab.mist.clusters import cluster
from paperlab.mist.cost.evaluate import StageReport, evaluate
from paperlab.mist.cost.memory import Moment
from paperlab.mist.models import OPTIMIZER_BYTES_PER_PARAMETER, ModelSpec
from paperlab.mist.plan import Plan
from paperlab.mist.runtime.pool import RankPool
from paperlab.mist.studies.run_plans import execute, label, make_plan, of_stage, ranks, small_models
from paperlab.mist.symbolic.trace import symbolic_trace

MIB = 2**20
_IN_FLIGHT = ("saved of earlier micro-batches", "messages between stages")


def memory_plans(spec: ModelSpec) -> list[Plan]:
    """Return plans of at most two ranks that use every means to save memory, alone and together."""
    one: list[dict[str, float]] = [{}, {"checkpointed": 1}, {"checkpointed": 3}]
    one += [{name: ratio} for name in ("optimizer_offload", "activation_offload", "grad_offload") for ratio in (0.5, 1)]
    every = {"weight_offload": 0.5, "grad_offload": 0.5, "optimizer_offload": 0.5, "activation_offload": 0.5}
    one += [every, {**every, "checkpointed": 2}, {**dict.fromkeys(every, 1), "checkpointed": 2}]
    two: list[dict[str, float]] = [{"dp": 2, "zero": zero, "checkpointed": c} for zero in (0, 1, 2, 3) for c in (0, 2)]
    two += [{"dp": 2, "zero": 3, **every}, {"dp": 2, "zero": 2, "optimizer_offload": 1}]
    two += [{"tp": 2}, {"tp": 2, "checkpointed": 2}, {"tp": 2, **every}]
    two += [{"stages": 2}, {"stages": 2, "checkpointed": 1}, {"stages": 2, "optimizer_offload": 0.5}]
    two += [{"stages": 2, "activation_offload": 0.5}, {"stages": 2, "checkpointed": 1, **every}]
    return [make_plan(spec, **fields) for fields in one + two]  # type: ignore[arg-type]


def predictions(plan: Plan) -> tuple[StageReport, ...]:
    """Return the cost model's view of every stage; only its memory is meaningful here."""
    return evaluate(plan, cluster("l4", 1, plan.cluster.gpus))


def _bytes(moment: Moment, without: Sequence[str] = ()) -> float:
    return float(np.squeeze(sum(part for name, part in moment.parts.items() if name not in without)))


def predicted_bytes(report: StageReport) -> tuple[float, float]:
    """Return a stage's peak as published (§2.8), and with the first forward pass told apart from later ones.

    The published forward peak adds up the optimizer states that only the first pass of an iteration brings together
    and the activations of earlier micro-batches, of which the first pass has none.
    """
    published = max(_bytes(moment) for moment in report.moments)
    apart = [0.0]
    for moment in report.moments:
        if moment.phase == "backward":
            apart.append(_bytes(moment))
        else:
            apart += [_bytes(moment, _IN_FLIGHT), _bytes(moment, ["optimizer states in use"])]
    return published, max(apart)


def expected_counts(plan: Plan, stage: int) -> dict[str, float]:
    """Return what one iteration of a stage's rank moves (bytes) and recomputes, from §2.4's sets of transfers.

    One deviation from the published sets: gradients that are still zero are not fetched, so the first micro-batch's
    backward does without, and the optimizer's fetch makes up for it.
    """
    layout, count = plan.stages[stage], plan.accumulation
    traces = symbolic_trace(plan.model)
    weights, saved, inputs = (
        float(getattr(traces["block"], name).at(layout.micro_batch, layout.tp))
        for name in ("weights", "saved", "input")
    )
    optimizer = weights / plan.model.bytes_per_element * OPTIMIZER_BYTES_PER_PARAMETER
    of_weights, of_grads, of_optimizer = layout.shards
    kept = (layout.layers - layout.checkpointed) * saved + layout.checkpointed * inputs
    moved_weights = layout.layers * layout.weight_offload * weights / of_weights
    moved_grads = layout.layers * layout.grad_offload * weights / of_grads
    ends = ["embedding"] * (stage == 0) + ["head"] * (stage == len(plan.stages) - 1)
    end_weights = sum(float(traces[kind].weights.at(layout.micro_batch, layout.tp)) for kind in ends)
    every_pass = of_weights > 1
    gathers = layout.layers * weights * (2 * count if every_pass else of_optimizer > 1)
    reduces = layout.layers * weights * (count if of_grads > 1 else layout.dp > 1)
    return {
        "h2d weights": (2 * count - 1) * moved_weights,
        "d2h weights": moved_weights,
        "h2d gradients": count * moved_grads,
        "d2h gradients": count * moved_grads,
        "h2d optimizer": layout.layers * layout.optimizer_offload * optimizer / of_optimizer,
        "d2h optimizer": layout.layers * layout.optimizer_offload * optimizer / of_optimizer,
        "h2d activations": count * layout.activation_offload * kept,
        "d2h activations": count * layout.activation_offload * kept,
        "gathered": gathers + end_weights * (of_optimizer > 1),
        "reduced": reduces + end_weights * (layout.dp > 1),
        "recomputed": count * layout.checkpointed,
        "most in flight": min(len(plan.stages) - stage, count),
    }


def memory_table(plans: Sequence[Plan] | None = None, pool: RankPool | None = None) -> pd.DataFrame:
    """Execute plans and compare device peaks (MiB): one row per plan and stage.

    Columns: plan, model, stage, measured_MiB, host_MiB, published_MiB, predicted_MiB, error_percent (of predicted_MiB,
    the first pass told apart), published_error_percent, measured_at, predicted_at.
    """
    plans = memory_plans(small_models()["gpt"]) if plans is None else plans
    rows = []
    with ranks(max(plan.cluster.gpus for plan in plans), pool) as running:
        for plan in plans:
            results = execute(running, plan)
            for stage, report in enumerate(predictions(plan)):
                result, (published, apart) = of_stage(results, stage), predicted_bytes(report)
                measured, host = result.peak(), result.peak("host").bytes
                sizes = [value / MIB for value in (measured.bytes, host, published, apart)]
                errors = [100 * (value / measured.bytes - 1) for value in (apart, published)]
                places = (measured.where, f"{report.worst.phase} of {report.worst.running}")
                rows.append((label(plan), plan.model.name, stage, *sizes, *errors, *places))
    columns = [
        "plan", "model", "stage", "measured_MiB", "host_MiB", "published_MiB", "predicted_MiB", "error_percent",
        "published_error_percent", "measured_at", "predicted_at",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def counts_table(plans: Sequence[Plan], pool: RankPool | None = None) -> pd.DataFrame:
    """Execute plans and compare bytes moved, recomputed blocks and micro-batches in flight, stage by stage."""
    rows = []
    with ranks(max(plan.cluster.gpus for plan in plans), pool) as running:
        for plan in plans:
            results = execute(running, plan)
            for stage in range(len(plan.stages)):
                counters = of_stage(results, stage).counters
                expected = expected_counts(plan, stage)
                rows += [(label(plan), stage, name, counters.get(name, 0), value) for name, value in expected.items()]
    return pd.DataFrame(rows, columns=["plan", "stage", "count", "measured", "expected"])
