"""Evaluates plans: times and peaks of every stage, and the diagnosis of a plan that does not fit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from paperlab.mist.clusters import Cluster
from paperlab.mist.cost.memory import Moment, Position, moments, safety_factor
from paperlab.mist.cost.pipeline import closed_form_s
from paperlab.mist.cost.schedule import block_times, stage_times
from paperlab.mist.cost.setting import Policies, Setting
from paperlab.mist.plan import Plan, Prediction, StagePlan

MIB = 2**20


@dataclass(frozen=True)
class StageReport:
    """One stage of an evaluated plan: t and d (s), its moments of high memory, and the factor on their bytes."""

    stable_s: float
    extra_s: float
    moments: tuple[Moment, ...]
    safety_factor: float

    def peak(self, phase: str) -> Moment:
        """Return the moment of `phase` with most bytes."""
        return max((m for m in self.moments if m.phase == phase), key=lambda m: float(np.squeeze(m.bytes)))

    @property
    def worst(self) -> Moment:
        """The moment of the iteration with most bytes."""
        return max((self.peak("forward"), self.peak("backward")), key=lambda m: float(np.squeeze(m.bytes)))


def setting_of(plan: Plan, index: int, cluster: Cluster) -> Setting:
    """Return the setting of one stage of a plan."""
    stage = plan.stages[index]
    return Setting(
        plan.model, cluster, stage.micro_batch, stage.dp, stage.tp, plan.accumulation, len(plan.stages)
    )  # fmt: skip


def evaluate(plan: Plan, cluster: Cluster) -> tuple[StageReport, ...]:
    """Return times and memory of every stage of `plan` on `cluster`."""
    return tuple(
        evaluate_stage(setting_of(plan, index, cluster), stage, index) for index, stage in enumerate(plan.stages)
    )


def evaluate_stage(setting: Setting, stage: StagePlan, index: int) -> StageReport:
    """Return times and memory of `stage` as stage number `index` of a pipeline."""
    policies = Policies.of(stage)
    later = setting.stages - 1 - index
    position = Position(stage.layers, later, first=index == 0, last=later == 0)
    blocks = block_times(setting, policies)
    stable, extra = stage_times(
        setting, blocks, stage.layers, stage.checkpointed, first=position.first, last=position.last
    )  # fmt: skip
    found = tuple(moments(setting, policies, position, stage.checkpointed))
    factor = float(safety_factor(setting, policies, position)[0])
    return StageReport(float(stable[0, 0]), float(extra[0, 0]), found, factor)


def predict(plan: Plan, cluster: Cluster) -> Plan:
    """Return `plan` with the cost model's prediction."""
    reports = evaluate(plan, cluster)
    stable, extra = tuple(r.stable_s for r in reports), tuple(r.extra_s for r in reports)
    tops = {phase: [report.peak(phase) for report in reports] for phase in ("forward", "backward")}
    size = {phase: tuple(float(np.squeeze(m.bytes)) for m in found) for phase, found in tops.items()}
    place = {phase: tuple(m.running for m in found) for phase, found in tops.items()}
    return replace(
        plan,
        prediction=Prediction(
            closed_form_s(stable, extra, plan.accumulation), stable, extra,
            size["forward"], size["backward"], place["forward"], place["backward"],
        ),
    )  # fmt: skip


def shortfalls(plan: Plan, cluster: Cluster) -> list[str]:
    """Return one line per stage that does not fit: stage, phase, what is running, and how many MiB are missing.

    Peaks are compared with `cluster.budget_bytes` after the artifact's safety factor.
    """
    lines = []
    for index, report in enumerate(evaluate(plan, cluster)):
        worst = report.worst
        need = float(np.squeeze(worst.bytes)) * report.safety_factor
        if need > cluster.budget_bytes:
            missing = (need - cluster.budget_bytes) / MIB
            lines.append(
                f"stage {index}: {worst.phase} of the {worst.running} needs {need / MIB:,.0f} MiB with safety factor "
                f"{report.safety_factor:.3f}, {missing:,.0f} MiB more than the budget of "
                f"{cluster.budget_bytes / MIB:,.0f} MiB"
            )
    return lines
