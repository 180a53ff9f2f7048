"""A plan in words and tables: what its time is made of, what fills memory at each peak, and what would not fit."""

from __future__ import annotations

import numpy as np
import pandas as pd

from paperlab.mist.clusters import Cluster, cluster
from paperlab.mist.cost.evaluate import MIB, StageReport, evaluate, setting_of, shortfalls
from paperlab.mist.cost.pipeline import closed_form_s
from paperlab.mist.plan import Plan


def cluster_of(plan: Plan) -> Cluster:
    """Return the published cluster that a plan names; ValueError if it names one that was measured elsewhere."""
    return cluster(plan.cluster.name, plan.cluster.nodes, plan.cluster.gpus_per_node)


def memory_table(plan: Plan, on: Cluster | None = None) -> pd.DataFrame:
    """Return what lives at each stage's forward and backward peak: stage, phase, running, part, MiB."""
    rows = []
    for index, report in enumerate(evaluate(plan, on or cluster_of(plan))):
        for phase in ("forward", "backward"):
            moment = report.peak(phase)
            parts = {name: float(np.squeeze(size)) / MIB for name, size in moment.parts.items()}
            rows += [(index, phase, moment.running, part, size) for part, size in parts.items() if size]
    return pd.DataFrame(rows, columns=["stage", "phase", "running", "part", "MiB"])


def explain(plan: Plan, on: Cluster | None = None) -> str:
    """Return a few lines on a plan: its time by the closed form, each stage's peak, messages, and what does not fit."""
    where = on or cluster_of(plan)
    reports = evaluate(plan, where)
    stable, extra = [r.stable_s for r in reports], [r.extra_s for r in reports]
    total = closed_form_s(stable, extra, plan.accumulation)
    slowest = int(np.argmax(stable))
    late_s = total - (plan.accumulation - 1) * max(stable) - sum(stable)
    lines = [
        f"{plan.model.name} on {plan.cluster.name} {plan.cluster.nodes}x{plan.cluster.gpus_per_node}: "
        f"{total:.3f} s per iteration, {plan.global_batch / total:.2f} sequences/s",
        f"  {plan.accumulation - 1} x {max(stable):.4f} s (stage {slowest}, the slowest) + {sum(stable):.4f} s through "
        f"all stages + {late_s:.4f} s of first and last micro-batch",
    ]
    lines += [_stage_line(plan, index, report, where) for index, report in enumerate(reports)]
    missing = shortfalls(plan, where)
    return "\n".join([*lines, *(f"  does not fit: {line}" for line in missing)])


def _stage_line(plan: Plan, index: int, report: StageReport, where: Cluster) -> str:
    stage, worst = plan.stages[index], report.worst
    parts = {name: float(np.squeeze(size)) / MIB for name, size in worst.parts.items()}
    largest = sorted(parts.items(), key=lambda item: -item[1])[:3]
    offloads = [
        f"{name.removesuffix('_offload')} {value:g}"
        for name in ("weight_offload", "grad_offload", "optimizer_offload", "activation_offload")
        if (value := getattr(stage, name))
    ]
    return (
        f"  stage {index}: {stage.layers} layers, {stage.checkpointed} checkpointed, micro-batch {stage.micro_batch}, "
        f"dp {stage.dp}, tp {stage.tp}, ZeRO-{stage.zero}, offload {', '.join(offloads) or 'none'}; "
        f"t {report.stable_s:.4f} s, d {report.extra_s:.4f} s; "
        f"peak {sum(parts.values()):,.0f} MiB in {worst.phase} of the {worst.running}: "
        + ", ".join(f"{name} {size:,.0f}" for name, size in largest)
        + f"; messages {message_s(plan, index, where):.4f} s per micro-batch, not in t"
    )


def message_s(plan: Plan, index: int, where: Cluster) -> float:
    """Return the seconds of a micro-batch's two messages to the next stage, which t and d leave out."""
    if index == len(plan.stages) - 1:
        return 0.0
    setting = setting_of(plan, index, where)
    used = sum(stage.gpus for stage in plan.stages[: index + 1])
    size = float(setting.layers["block"].sizes.output)
    return 2 * float(where.links.send_s(size, across_nodes=used % where.gpus_per_node == 0))
