"""The overlapped schedule in pictures: 1F1B of a plan over time, and what each slot of a layer hides."""

from __future__ import annotations

import numpy as np
import pandas as pd

from paperlab.mist.clusters import Cluster
from paperlab.mist.cost.evaluate import evaluate, setting_of
from paperlab.mist.cost.pipeline import simulate
from paperlab.mist.cost.schedule import transfers
from paperlab.mist.cost.setting import Policies
from paperlab.mist.plan import Plan


def gantt(plan: Plan, on: Cluster, micro_batches: int) -> pd.DataFrame:
    """Return the simulated work of a plan with fewer micro-batches: stage, micro-batch, phase, start and end (s)."""
    reports = evaluate(plan, on)
    forward, backward = [], []
    for index, report in enumerate(reports):
        layer = setting_of(plan, index, on).layers["block"]
        share = layer.forward_s / (layer.forward_s + layer.backward_s)
        forward.append(share * report.stable_s)
        backward.append((1 - share) * report.stable_s)
    extra = [max(report.extra_s, 0.0) for report in reports]
    first, last = [0.5 * d for d in extra], [0.5 * d for d in extra]
    work = simulate(forward, backward, first, last, max(micro_batches, len(reports)))
    rows: list[tuple[int, int, str, float, float]] = [
        (item.stage, item.micro_batch, item.phase, item.start_s, item.end_s) for item in work
    ]
    rows += [(stage, -1, "first extra", 0.0, d) for stage, d in enumerate(first) if d]
    return pd.DataFrame(rows, columns=["stage", "micro_batch", "phase", "start_s", "end_s"])


def slots(plan: Plan, on: Cluster) -> pd.DataFrame:
    """Return, for a middle block of every stage, each slot's four parts alone, their sum, and together (ms)."""
    rows = []
    for index, stage in enumerate(plan.stages):
        setting, policies = setting_of(plan, index, on), Policies.of(stage)
        block, move = setting.layers["block"], transfers(setting, policies)
        gather = move.gather_s
        stored = move.optimizer_out_s + move.weights_out_s + move.activations_out_s
        fetched = move.weights_in_s + move.grads_in_s + move.activations_in_s
        forward_s, states_in_s = block.forward_s, move.optimizer_in_s + move.grads_in_s
        parts = {
            "forward, first": (forward_s, gather * move.shards_optimizer, states_in_s, stored),
            "forward, stable": (forward_s, gather * move.shards_weights, move.weights_in_s, move.activations_out_s),
            "backward, stable": (
                block.backward_s, gather * move.shards_weights + move.scatter_s * move.shards_grads, fetched,
                move.grads_out_s,
            ),
            "backward, last": (
                block.backward_s, gather * move.shards_weights + move.reduce_s, fetched, move.grads_out_s,
            ),
        }  # fmt: skip
        for slot, alone in parts.items():
            together = float(np.squeeze(on.interference.time_s(*alone)))
            values = [1e3 * float(np.squeeze(part)) for part in alone]
            rows.append((index, slot, *values, sum(values), 1e3 * together))
    columns = ["stage", "slot", "compute_ms", "collective_ms", "to_device_ms", "to_host_ms", "sum_ms", "together_ms"]
    return pd.DataFrame(rows, columns=columns)
