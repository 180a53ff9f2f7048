"""How far executed plans are from one process with plain autograd and Adam: loss, gradients, weights."""

from __future__ import annotations

from typing import Any

import pandas as pd

from paperlab.mist.plan import Plan
from paperlab.mist.runtime.build import Options
from paperlab.mist.runtime.engine import train
from paperlab.mist.runtime.pool import RankPool
from paperlab.mist.runtime.reference import collect, deviation, single_process
from paperlab.mist.studies.run_plans import label, make_plan, small_models

ITERATIONS = 3


def numerics_plans() -> list[Plan]:
    """Return one-rank and two-rank plans with every kind of parallelism and every means to save memory."""
    half = dict.fromkeys(("weight_offload", "grad_offload", "optimizer_offload", "activation_offload"), 0.5)
    fields: list[dict[str, Any]] = [
        {"checkpointed": 2}, {"checkpointed": 1, **dict.fromkeys(half, 1.0)}, {"tp": 2}, {"stages": 2},
        *({"dp": 2, "micro_batch": 1, "zero": zero} for zero in (0, 1, 2, 3)),
        {"dp": 2, "micro_batch": 1, "zero": 3, **half}, {"stages": 2, "checkpointed": 1, **half},
    ]  # fmt: skip
    spec = small_models(hidden=32, layers=4, seq_len=16, vocab=64)["gpt"]
    return [make_plan(spec, **values) for values in fields]


def numerics_table(pool: RankPool) -> pd.DataFrame:
    """Train every plan and the same model in this process; columns plan and, relative: loss, gradients, weights."""
    rows = []
    for plan in numerics_plans():
        results = pool.run(train, plan, ITERATIONS, Options(account=False), capture=True)
        found = deviation(collect(plan, results), single_process(plan, ITERATIONS))
        rows.append({"plan": label(plan), **found})
    return pd.DataFrame(rows)
