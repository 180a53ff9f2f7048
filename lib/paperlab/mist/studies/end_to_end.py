"""Mist's tuner and every baseline in the same cost model, on the paper's workloads."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from paperlab.mist import models
from paperlab.mist.baselines import systems
from paperlab.mist.baselines.aceso import Aceso
from paperlab.mist.clusters import Cluster, cluster
from paperlab.mist.config import WORKLOADS
from paperlab.mist.models import ModelSpec
from paperlab.mist.plan import Plan
from paperlab.mist.search.space import FULL, Space
from paperlab.mist.search.tuner import NothingFits, search, tune

MIST = "Mist"
SEQ_LENS = {"l4": 2048, "a100": 4096}
COMPARED = (
    systems.MEGATRON_FORCED, systems.MEGATRON_FREE, systems.DEEPSPEED_FORCED, systems.DEEPSPEED_FREE,
    systems.DEEPSPEED_OFFLOAD, systems.UNIFORM,
)  # fmt: skip


def variables() -> pd.DataFrame:
    """Return what a plan decides: variable, whether all stages share it, and the values of the full space."""
    shared, own = "all stages", "each stage"
    rows = [
        ("accumulation steps G", shared, "powers of two that divide the global batch, at least the stages"),
        ("stages S", shared, "powers of two that divide the devices"),
        ("micro-batch b", shared, ", ".join(map(str, FULL.micro_batches))),
        ("data parallelism DP", shared, "global batch / (G b)"),
        ("tensor parallelism TP", shared, ", ".join(map(str, FULL.tp_sizes)) + ", within a node"),
        ("layers L", own, f"an even split, give or take {FULL.layer_window}"),
        ("checkpointed layers C", own, "0 to L"),
        ("ZeRO level", own, ", ".join(map(str, FULL.zero)) + "; above 1 only with DP > 1"),
    ]
    for name in ("weight", "grad", "optimizer", "activation"):
        values = ", ".join(f"{ratio:g}" for ratio in getattr(FULL, f"{name}_ratios"))
        rows.append((f"{name.replace('grad', 'gradient')} offload ratio", own, values))
    return pd.DataFrame(rows, columns=["variable", "chosen_for", "values"])


def workload(name: str, family: str, size: str, attention: str) -> tuple[ModelSpec, Cluster, int]:
    """Return model, cluster and global batch of one of the paper's workloads."""
    nodes, gpus, global_batch = WORKLOADS[size]
    spec = getattr(models, family)(size, seq_len=SEQ_LENS[name], attention=attention)
    return spec, cluster(name, nodes, gpus), global_batch


@cache
def mist_plan(spec: ModelSpec, name: str, nodes: int, gpus: int, global_batch: int, space: Space = FULL) -> Plan | None:
    """Return the tuner's plan, or None if nothing fits; cached, as several exhibits ask for the same one."""
    try:
        return tune(spec, cluster(name, nodes, gpus), global_batch, space, solver="sweep")
    except NothingFits:
        return None


def comparison(
    name: str, families: tuple[str, ...], sizes: tuple[str, ...], attention: str, aceso_evaluations: int | None = None
) -> pd.DataFrame:
    """Return one row per family, size and system: predicted iteration time, throughput, speedups and the plan.

    `aceso_evaluations` adds the Aceso-like search. Speedups are over both Megatron-LM rows.
    """
    rows = [
        row for family in families for size in sizes for row in _rows(name, family, size, attention, aceso_evaluations)
    ]
    table = pd.DataFrame(rows)
    for column, baseline in (("over_forced", systems.MEGATRON_FORCED), ("over_free", systems.MEGATRON_FREE)):
        base = table[table.system == baseline].set_index(["family", "size"]).iteration_s
        keys = pd.MultiIndex.from_frame(table[["family", "size"]])
        table[column] = base.reindex(keys).to_numpy() / table.iteration_s
    return table


def _rows(name: str, family: str, size: str, attention: str, aceso_evaluations: int | None) -> list[dict[str, object]]:
    spec, where, global_batch = workload(name, family, size, attention)
    found = {item: systems.best_plan(item, spec, where, global_batch).plan for item in COMPARED}
    if aceso_evaluations is not None:
        settings = Aceso(evaluations=aceso_evaluations)
        found[systems.ACESO] = systems.best_plan(systems.ACESO, spec, where, global_batch, settings).plan
    found[MIST] = mist_plan(spec, name, where.nodes, where.gpus_per_node, global_batch)
    head = {"cluster": name, "family": family, "size": size, "attention": attention, "gpus": where.gpus}
    return [{**head, "system": system, **describe(plan)} for system, plan in found.items()]


def sensitivity(spec: ModelSpec, where: Cluster, global_batch: int) -> pd.DataFrame:
    """Return one row for Mist and one for each Megatron-LM row: predicted time, throughput and plan."""
    plans = {MIST: mist_plan(spec, where.name, where.nodes, where.gpus_per_node, global_batch)}
    for name in (systems.MEGATRON_FORCED, systems.MEGATRON_FREE):
        plans[name] = systems.best_plan(name, spec, where, global_batch).plan
    return pd.DataFrame([{"model": spec.name, "system": name, **describe(plan)} for name, plan in plans.items()])


def describe(plan: Plan | None) -> dict[str, object]:
    """Return a plan's predicted time, throughput and variables as cells of a table; NaN and empty if there is none."""
    columns = (
        "layers",
        "checkpointed",
        "zero",
        "optimizer_offload",
        "activation_offload",
        "grad_offload",
        "weight_offload",
    )
    if plan is None or plan.prediction is None:
        empty = dict.fromkeys(("stages", "accumulation", "micro_batch", "dp", "tp"), np.nan)
        return {"iteration_s": np.nan, "sequences_per_s": np.nan, **empty, **dict.fromkeys(columns, "does not fit")}
    first, seconds = plan.stages[0], plan.prediction.iteration_s
    return {
        "iteration_s": seconds,
        "sequences_per_s": plan.global_batch / seconds,
        "stages": len(plan.stages),
        "accumulation": plan.accumulation,
        "micro_batch": first.micro_batch,
        "dp": first.dp,
        "tp": first.tp,
        **{name: " ".join(f"{getattr(stage, name):g}" for stage in plan.stages) for name in columns},
    }


def cumulative(size: str, spaces: dict[str, Space]) -> pd.DataFrame:
    """Return, per space, the best plan's predicted time, how many configurations it took and how long (GPT, flash)."""
    spec, where, global_batch = workload("l4", "gpt", size, "flash")
    rows = []
    for step, (label, space) in enumerate(spaces.items()):
        found = search(spec, where, global_batch, space)
        rows.append({
            "step": step, "space": label, **describe(found.plan), "evaluated": found.evaluated,
            "evaluation_s": found.evaluation_s, "solver_s": found.solver_s,
        })  # fmt: skip
    return pd.DataFrame(rows)
