"""One candidate of the tuner's outer loops: its bound, its evaluated stages, its record, its plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from paperlab.mist.cost.evaluate import predict
from paperlab.mist.cost.setting import Setting
from paperlab.mist.plan import Plan
from paperlab.mist.search.inter import Option, lower_bound_s
from paperlab.mist.search.intra import Cell, IntraSearch, Selection
from paperlab.mist.search.space import Space


@dataclass(frozen=True)
class Candidate:
    """What became of one (tp, stages, G): `outcome` is solved, cut (a bound showed that it cannot win), full (does
    not fit, by `missing_bytes` at least) or failed, with the error's text in `detail`."""

    tp: int
    dp: int
    stages: int
    micro_batch: int
    accumulation: int
    outcome: str
    iteration_s: float = np.nan
    lower_bound_s: float = np.nan
    missing_bytes: float = 0.0
    detail: str = ""


def note(setting: Setting, outcome: str, **values: Any) -> Candidate:
    """Return the record of a setting."""
    return Candidate(
        setting.tp, setting.dp, setting.stages, setting.micro_batch, setting.accumulation, outcome, **values
    )  # fmt: skip


@dataclass(frozen=True)
class Opened:
    """A candidate whose stages are evaluated and whose assignment is still to be found."""

    setting: Setting
    search: IntraSearch
    table: list[list[Cell]]
    stages: list[list[Option]]
    bound_s: float


def optimistic_s(setting: Setting, space: Space) -> float:
    """Return the iteration time without any transfer or recomputation, in any memory: no plan is faster.

    0 for a setting whose layers cannot be costed, so that its evaluation reports why.
    """
    try:
        per_layer = {kind: _compute_s(setting, kind) for kind in ("embedding", "block", "head")}
    except Exception:
        return 0.0
    stages = []
    for stage in range(setting.stages):
        ends_s = per_layer["embedding"] * (stage == 0) + per_layer["head"] * (stage == setting.stages - 1)
        stages.append([Option(n, n * per_layer["block"] + ends_s, 0.0) for n in space.layer_counts(setting)])
    return lower_bound_s(stages, setting.spec.layers, setting.accumulation)


def _compute_s(setting: Setting, kind: str) -> float:
    layer = setting.layers[kind]
    tensor_parallel_s = layer.forward_tp_s + layer.backward_tp_s
    return layer.forward_s + layer.backward_s + layer.accumulate_s * setting.accumulated_share + tensor_parallel_s


def open_candidate(setting: Setting, space: Space, selection: Selection) -> Opened:
    """Evaluate all stages of a setting; `bound_s` is inf where no assignment of layers fits."""
    intra = IntraSearch(setting, space, selection)
    table = intra.table()
    stages = [_options(cells) for cells in table]
    return Opened(setting, intra, table, stages, lower_bound_s(stages, setting.spec.layers, setting.accumulation))


def missing_bytes(table: list[list[Cell]], layers: int) -> float:
    """Return the bytes that the most crowded stage lacks, over all ways to place the layers the least."""
    least = {0: 0.0}
    for cells in table:
        following: dict[int, float] = {}
        for used, missing in least.items():
            for cell in cells:
                worse = max(missing, cell.missing_bytes)
                following[used + cell.layers] = min(following.get(used + cell.layers, np.inf), worse)
        least = following
    return least.get(layers, np.inf)


def _options(cells: list[Cell]) -> list[Option]:
    """Merge a stage's layer counts; the tag says which cell and which of its choices."""
    return [
        Option(cell.layers, float(t), float(d), tag=(number << 32) + choice)
        for number, cell in enumerate(cells)
        for choice, (t, d) in enumerate(zip(cell.stable_s, cell.extra_s, strict=True))
    ]


def plan_of(item: Opened, options: tuple[Option, ...]) -> Plan:
    """Return the plan that one option per stage stands for, with its prediction."""
    setting, stages = item.setting, []
    for cells, option in zip(item.table, options, strict=True):
        cell, choice = cells[option.tag >> 32], option.tag & 0xFFFFFFFF
        checkpointed = int(cell.checkpointed[choice])
        stages.append(item.search.policies.stage(int(cell.policy[choice]), cell.layers, checkpointed, setting))
    global_batch = setting.micro_batch * setting.dp * setting.accumulation
    plan = Plan(setting.spec, setting.cluster.size, global_batch, setting.accumulation, tuple(stages))
    return predict(plan, setting.cluster)
