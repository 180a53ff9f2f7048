"""Aceso's search: alleviate the bottleneck of the current plan, step by step, several steps deep if needed.

The bottleneck is the stage that misses most memory or, if all fit, the slowest one. Each primitive trades one
resource of that stage for another: layers, devices, dp against tp, checkpointed layers, micro-batch. As in the
paper of that name there is no ZeRO-2/3 and no offload; evaluations take the place of its 200 seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from paperlab.mist.clusters import Cluster
from paperlab.mist.cost.evaluate import evaluate_stage, predict
from paperlab.mist.cost.pipeline import closed_form_s
from paperlab.mist.cost.setting import Setting
from paperlab.mist.models import ModelSpec
from paperlab.mist.plan import Plan, StagePlan

Score = tuple[float, float]  # missing bytes of the worst stage, iteration seconds: smaller is better


@dataclass(frozen=True)
class Aceso:
    """How far the search goes: steps in a row that may get worse before the plan improves, and plans to evaluate."""

    hops: int = 7
    evaluations: int = 600  # per number of stages

    def __post_init__(self) -> None:
        if min(self.hops, self.evaluations) < 1:
            raise ValueError(f"hops and evaluations must be positive, not {self.hops} and {self.evaluations}")


def aceso(spec: ModelSpec, cluster: Cluster, global_batch: int, settings: Aceso) -> tuple[Plan | None, int]:
    """Return the best plan that fits over all numbers of stages, or None, and how many plans were evaluated."""
    best: Plan | None = None
    evaluated = 0
    for stages in (s for s in (1, 2, 4, 8, 16) if s <= min(cluster.gpus, spec.layers)):
        start = next(_starts(spec, cluster, global_batch, stages), None)
        if start is None:
            continue
        climb = _Climb(cluster, settings)
        plan = climb.run(start)
        evaluated += climb.evaluated
        if climb.score(plan)[0] > 0:
            continue
        found = predict(plan, cluster)
        assert found.prediction is not None
        if best is None or best.prediction is None or found.prediction.iteration_s < best.prediction.iteration_s:
            best = found
    return best, evaluated


def _starts(spec: ModelSpec, cluster: Cluster, global_batch: int, stages: int) -> Iterator[Plan]:
    """Yield balanced plans: layers even, devices even, as much dp as the batch allows."""
    per_stage = cluster.gpus // stages
    layers = [spec.layers // stages + (index < spec.layers % stages) for index in range(stages)]
    tp = 1
    while tp <= min(per_stage, cluster.gpus_per_node):
        dp = per_stage // tp
        accumulation, rest = divmod(global_batch, dp)
        if cluster.gpus % stages == 0 and not rest and accumulation >= stages and not _misfit(spec, tp):
            yield Plan(
                spec,
                cluster.size,
                global_batch,
                accumulation,
                tuple(StagePlan(n, 0, 1, dp, tp, zero=1) for n in layers),
            )
        tp *= 2


def _misfit(spec: ModelSpec, tp: int) -> bool:
    return any(size % tp for size in (spec.shape.kv_heads, spec.shape.ffn, spec.shape.vocab))


class _Climb:
    def __init__(self, cluster: Cluster, settings: Aceso) -> None:
        self.cluster, self.settings = cluster, settings
        self.evaluated = 0
        self._stages = lru_cache(maxsize=None)(self._evaluate)
        self._stage = lru_cache(maxsize=None)(self._evaluate_stage)  # a primitive changes one or two stages of many

    def run(self, plan: Plan) -> Plan:
        """Improve `plan` until no chain of primitives does, or the evaluations are used up."""
        while (better := self._better(plan)) is not None:
            plan = better
        return plan

    def _better(self, plan: Plan) -> Plan | None:
        """Return the first plan within `hops` primitives that scores better, following the best of each step."""
        goal, seen, current = self.score(plan), {plan.stages}, plan
        for _ in range(self.settings.hops):
            scored = []
            for neighbor in self._neighbors(current):
                if neighbor.stages in seen or self.evaluated >= self.settings.evaluations:
                    continue
                seen.add(neighbor.stages)
                scored.append((self.score(neighbor), neighbor))
                if scored[-1][0] < goal:
                    return neighbor
            if not scored:
                return None
            current = min(scored, key=lambda item: item[0])[1]
        return None

    def score(self, plan: Plan) -> Score:
        """Return how much memory is missing at most, and the iteration time."""
        missing, stable, extra = self._stages(plan)
        return max(0.0, max(missing)), closed_form_s(stable, extra, plan.accumulation)

    def _evaluate(self, plan: Plan) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        self.evaluated += 1
        where = len(plan.stages), plan.accumulation
        try:
            found = [self._stage(plan.model, stage, index, *where) for index, stage in enumerate(plan.stages)]
        except ValueError:  # a group for which no link was measured
            count = len(plan.stages)
            return (np.inf,) * count, (np.inf,) * count, (0.0,) * count
        missing, stable, extra = zip(*found, strict=True)
        return missing, stable, extra

    def _evaluate_stage(
        self, spec: ModelSpec, stage: StagePlan, index: int, stages: int, accumulation: int
    ) -> tuple[float, float, float]:
        setting = Setting(spec, self.cluster, stage.micro_batch, stage.dp, stage.tp, accumulation, stages)
        report = evaluate_stage(setting, stage, index)
        missing = float(np.squeeze(report.worst.bytes)) * report.safety_factor - self.cluster.budget_bytes
        return missing, report.stable_s, max(report.extra_s, 0.0)

    def _neighbors(self, plan: Plan) -> Iterator[Plan]:
        """Yield every plan that one primitive at the bottleneck leads to."""
        missing, stable, _ = self._stages(plan)
        worst = int(np.argmax(missing if max(missing) > 0 else stable))
        for stages, accumulation in (*_local(plan, worst), *_moved_layers(plan, worst), *_moved_devices(plan, worst)):
            try:
                yield replace(plan, stages=stages, accumulation=accumulation, prediction=None)
            except ValueError:
                continue  # a primitive that the batch or the model does not allow


Move = tuple[tuple[StagePlan, ...], int]


def _with(plan: Plan, **changed: StagePlan) -> tuple[StagePlan, ...]:
    return tuple(changed.get(f"s{index}", stage) for index, stage in enumerate(plan.stages))


def _local(plan: Plan, worst: int) -> Iterator[Move]:
    """Checkpoint more or fewer layers of the stage; trade dp for tp; change the micro-batch of all stages."""
    stage = plan.stages[worst]
    for step in (1, -1, 4, -4):
        count = min(max(stage.checkpointed + step, 0), stage.layers)
        if count != stage.checkpointed:
            yield _with(plan, **{f"s{worst}": replace(stage, checkpointed=count)}), plan.accumulation
    for dp, tp, batch in (
        (stage.dp * 2, stage.tp // 2, stage.micro_batch // 2),
        (stage.dp // 2, stage.tp * 2, stage.micro_batch * 2),
    ):
        if min(dp, tp, batch) >= 1:
            yield _with(plan, **{f"s{worst}": replace(stage, dp=dp, tp=tp, micro_batch=batch)}), plan.accumulation
    if plan.accumulation % 2 == 0:
        doubled = tuple(replace(item, micro_batch=2 * item.micro_batch) for item in plan.stages)
        yield doubled, plan.accumulation // 2
    if all(item.micro_batch % 2 == 0 for item in plan.stages):
        yield tuple(replace(item, micro_batch=item.micro_batch // 2) for item in plan.stages), 2 * plan.accumulation


def _moved_layers(plan: Plan, worst: int) -> Iterator[Move]:
    """Give one layer of the bottleneck to another stage."""
    stage = plan.stages[worst]
    if stage.layers == 1:
        return
    fewer = replace(stage, layers=stage.layers - 1, checkpointed=min(stage.checkpointed, stage.layers - 1))
    for index, other in enumerate(plan.stages):
        if index != worst:
            more = replace(other, layers=other.layers + 1, checkpointed=other.checkpointed + (other.checkpointed > 0))
            yield _with(plan, **{f"s{worst}": fewer, f"s{index}": more}), plan.accumulation


def _moved_devices(plan: Plan, worst: int) -> Iterator[Move]:
    """Double the bottleneck's devices with half of a stage that has twice as many."""
    stage = plan.stages[worst]
    for index, other in enumerate(plan.stages):
        if index == worst or other.gpus != 2 * stage.gpus:
            continue
        for taken in _halved(other):
            for grown in _doubled(stage):
                yield _with(plan, **{f"s{worst}": grown, f"s{index}": taken}), plan.accumulation


def _halved(stage: StagePlan) -> Iterator[StagePlan]:
    if stage.dp % 2 == 0:
        yield replace(stage, dp=stage.dp // 2, micro_batch=2 * stage.micro_batch)
    if stage.tp % 2 == 0:
        yield replace(stage, tp=stage.tp // 2)


def _doubled(stage: StagePlan) -> Iterator[StagePlan]:
    if stage.micro_batch % 2 == 0:
        yield replace(stage, dp=2 * stage.dp, micro_batch=stage.micro_batch // 2)
    yield replace(stage, tp=2 * stage.tp)
