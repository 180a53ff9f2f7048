"""The best plan whose stages are all alike: equal layers, one policy, one number of checkpointed layers for all.

That is what a user of Megatron-LM or DeepSpeed can configure, and it is small enough to be searched exhaustively.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np

from paperlab.mist.clusters import Cluster
from paperlab.mist.cost.evaluate import predict
from paperlab.mist.cost.memory import peaks, safety_factor
from paperlab.mist.cost.schedule import block_times, stage_times
from paperlab.mist.cost.setting import Policies, Setting
from paperlab.mist.models import ModelSpec
from paperlab.mist.plan import Plan
from paperlab.mist.search.candidates import optimistic_s
from paperlab.mist.search.intra import stage_position
from paperlab.mist.search.space import Space, settings


@dataclass(frozen=True)
class Uniform:
    """A named baseline: its space, the depths at which ZeRO levels above 1 exist, and how many plans it counts."""

    name: str
    space: Space
    sharding_needs_one_stage: bool = False  # DeepSpeed's pipeline works with ZeRO-1 only


def best_uniform(baseline: Uniform, spec: ModelSpec, cluster: Cluster, global_batch: int) -> tuple[Plan | None, int]:
    """Return the fastest plan of `baseline` that fits, or None, and how many plans were compared."""
    best: tuple[float, Plan] | None = None
    compared = 0
    bounds = [(optimistic_s(s, baseline.space), s) for s in settings(spec, cluster, global_batch, baseline.space)]
    for bound_s, setting in sorted(bounds, key=lambda item: item[0]):
        if spec.layers % setting.stages:
            continue
        policies = _policies(baseline, setting)
        layers = spec.layers // setting.stages
        counts = baseline.space.checkpointed(layers)
        compared += len(counts) * len(policies)
        if best is not None and bound_s >= best[0]:
            continue  # not even without any transfer or recomputation could it win
        seconds = _iteration_s(setting, policies, layers, counts)
        row, column = np.unravel_index(np.argmin(seconds), seconds.shape)
        if np.isfinite(seconds[row, column]) and (best is None or seconds[row, column] < best[0]):
            stage = policies.stage(int(column), layers, int(counts[row]), setting)
            plan = Plan(spec, cluster.size, global_batch, setting.accumulation, (stage,) * setting.stages)
            best = float(seconds[row, column]), plan
    return (None if best is None else predict(best[1], cluster)), compared


def _policies(baseline: Uniform, setting: Setting) -> Policies:
    policies = baseline.space.policies(setting.dp)
    if baseline.sharding_needs_one_stage and setting.stages > 1:
        policies = policies.take(policies.zero <= 1)
    return policies


def _iteration_s(setting: Setting, policies: Policies, layers: int, counts: Any) -> Any:
    """Return the iteration time of every (number of checkpointed layers, policy); inf where a stage does not fit."""
    blocks = block_times(setting, policies)

    @cache  # stages amid the pipeline take the same time
    def times_at(first: bool, last: bool) -> Any:
        return stage_times(setting, blocks, layers, counts, first=first, last=last)

    times, fits = [], []
    for stage in range(setting.stages):
        position = stage_position(setting, stage, layers)
        times.append(times_at(position.first, position.last))
        need = np.maximum(*peaks(setting, policies, position, counts)) * safety_factor(setting, policies, position)
        fits.append(need <= setting.cluster.budget_bytes)
    stable = [t for t, _ in times]
    before = list(accumulate([0 * stable[0], *stable[:-1]]))
    late = [d - waited for (_, d), waited in zip(times, before, strict=True)]
    largest = np.maximum.reduce(stable)
    seconds = (setting.accumulation - 1) * largest + sum(stable) + np.maximum(np.maximum.reduce(late), 0.0)
    return np.where(np.logical_and.reduce(fits), seconds, np.inf)
