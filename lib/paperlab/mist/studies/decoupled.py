"""What the decoupled optimizer saves: the monolithic step brings all states onto the device at once (§2.3)."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paperlab.mist.models import OPTIMIZER_BYTES_PER_PARAMETER
from paperlab.mist.plan import Plan
from paperlab.mist.runtime.build import Options
from paperlab.mist.runtime.engine import train
from paperlab.mist.runtime.pool import RankPool
from paperlab.mist.studies.run_plans import label, make_plan, ranks, small_models
from paperlab.mist.symbolic.trace import symbolic_trace

MIB = 2**20


def decoupled_plans() -> list[Plan]:
    """Return plans of one or two ranks with optimizer states, and gradients too, in host memory."""
    spec = small_models()["gpt"]
    fields = [{"optimizer_offload": ratio} for ratio in (0.25, 0.5, 1.0)]
    fields += [{"optimizer_offload": 1.0, "grad_offload": 1.0}]
    plans = [make_plan(spec, **ratios) for ratios in fields]  # type: ignore[arg-type]
    return [*plans, make_plan(spec, dp=2, zero=2, optimizer_offload=1.0)]


def predicted_saving_bytes(plan: Plan) -> float:
    """Return by how much the peak of a one-stage plan's optimizer step falls when modules take it one by one.

    All but one block's staged optimizer states, and every block's gradients where some of them live in host memory.
    """
    layout = plan.stages[0]
    weights = float(symbolic_trace(plan.model)["block"].weights.at(layout.micro_batch, layout.tp))
    _, of_grads, of_optimizer = layout.shards
    states = weights / plan.model.bytes_per_element * OPTIMIZER_BYTES_PER_PARAMETER / of_optimizer
    grads = weights / of_grads if layout.grad_offload else 0.0
    return (layout.layers - 1) * layout.optimizer_offload * states + layout.layers * grads


def decoupled_table(plans: Sequence[Plan] | None = None, pool: RankPool | None = None) -> pd.DataFrame:
    """Train each plan with both optimizers; one row per plan.

    Columns: plan, monolithic_MiB and decoupled_MiB (device peak while the optimizer runs alone), saved_MiB,
    predicted_saved_MiB, error_percent, iteration_monolithic_MiB and iteration_decoupled_MiB (peak of everything),
    same_weights (bit for bit, after three iterations).
    """
    plans = decoupled_plans() if plans is None else plans
    rows = []
    with ranks(max(plan.cluster.gpus for plan in plans), pool) as running:
        for plan in plans:
            results = [running.run(train, plan, 3, Options(decoupled=d), capture=True)[0] for d in (False, True)]
            alone = [result.peak("device", "optimizer").bytes / MIB for result in results]
            whole = [result.peak().bytes / MIB for result in results]
            saved, predicted = alone[0] - alone[1], predicted_saving_bytes(plan) / MIB
            same = all(a.equal(b) for a, b in zip(results[0].weights, results[1].weights, strict=True))
            rows.append((label(plan), *alone, saved, predicted, 100 * (predicted / saved - 1), *whole, same))
    columns = [
        "plan", "monolithic_MiB", "decoupled_MiB", "saved_MiB", "predicted_saved_MiB", "error_percent",
        "iteration_monolithic_MiB", "iteration_decoupled_MiB", "same_weights",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)
