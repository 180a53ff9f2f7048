"""The tuner's outer loops: every (tp, stages, G), its stages' fronts, and one assignment of layers to stages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paperlab.mist.clusters import Cluster
from paperlab.mist.cost.evaluate import MIB, predict
from paperlab.mist.cost.setting import Setting
from paperlab.mist.models import ModelSpec
from paperlab.mist.plan import Plan
from paperlab.mist.search.inter import Option, cut, lower_bound_s, solve_milp, solve_sweep
from paperlab.mist.search.intra import Cell, IntraSearch, Selection
from paperlab.mist.search.space import FULL, Space, settings

_TIE = 1 + 1e-9  # times this close are equal
SOLVERS = {"milp": solve_milp, "sweep": solve_sweep}


class NothingFits(ValueError):
    """No plan of the space fits the devices' memory; `missing_bytes` says by how much the best one fails."""

    def __init__(self, message: str, missing_bytes: float) -> None:
        super().__init__(message)
        self.missing_bytes = missing_bytes


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


@dataclass
class Search:
    """A finished search: the best plan, if any, and what became of every candidate.

    evaluated: configurations whose time and memory were computed. evaluation_s, solver_s: where the time went.
    """

    plan: Plan | None = None
    candidates: list[Candidate] = field(default_factory=list)
    evaluated: int = 0
    evaluation_s: float = 0.0
    solver_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Seconds of the whole search."""
        return self.evaluation_s + self.solver_s


@dataclass(frozen=True)
class _Open:
    """A candidate whose stages are evaluated and whose assignment is still to be found."""

    setting: Setting
    search: IntraSearch
    table: list[list[Cell]]
    stages: list[list[Option]]
    bound_s: float


def tune(
    spec: ModelSpec,
    cluster: Cluster,
    global_batch: int,
    space: Space = FULL,
    *,
    solver: str = "milp",
    selection: Selection | None = None,
    prune: bool = True,
) -> Plan:
    """Return the fastest plan for training `spec` on `cluster` with `global_batch` sequences per iteration.

    `solver` is "milp" or "sweep" (both exact); `selection` thins fronts; `prune=False` solves every candidate in full
    instead of dropping those that bounds show cannot win.

    Raises:
        ValueError: the batch does not factor, or no tp of the space divides the model.
        NothingFits: no plan fits; says how much memory is missing.
    """
    found = search(spec, cluster, global_batch, space, solver=solver, selection=selection, prune=prune)
    if found.plan is None:
        raise _nothing(spec, cluster, found)
    return found.plan


def _nothing(spec: ModelSpec, cluster: Cluster, found: Search) -> NothingFits:
    full = [c for c in found.candidates if c.outcome == "full"]
    if not full:
        raise RuntimeError(f"every candidate failed; the first one: {found.candidates[0].detail}")
    best = min(full, key=lambda c: c.missing_bytes)
    return NothingFits(
        f"{spec.name} fits nowhere on {cluster.name} {cluster.nodes}x{cluster.gpus_per_node}: the leanest candidate "
        f"(tp {best.tp}, dp {best.dp}, {best.stages} stages, micro-batch {best.micro_batch}) misses "
        f"{best.missing_bytes / MIB:,.0f} MiB of a budget of {cluster.budget_bytes / MIB:,.0f} MiB per device",
        best.missing_bytes,
    )


def search(
    spec: ModelSpec,
    cluster: Cluster,
    global_batch: int,
    space: Space = FULL,
    *,
    solver: str = "milp",
    selection: Selection | None = None,
    prune: bool = True,
) -> Search:
    """Run the search and return its record; arguments and errors as for `tune`, except that nothing may fit."""
    if solver not in SOLVERS:
        raise ValueError(f"solver is {solver!r}; choose one of {', '.join(SOLVERS)}")
    every = list(settings(spec, cluster, global_batch, space))
    if not every:
        raise ValueError(
            f"global_batch is {global_batch}: no micro-batch of {space.micro_batches} and power of two of accumulation "
            f"steps gives it on {cluster.gpus} devices with tp of {space.tp_sizes} that divides {spec.name}"
        )
    found = Search()
    start = time.perf_counter()
    opened = list(_evaluate(every, space, selection or Selection(), found))
    found.evaluation_s = time.perf_counter() - start
    # The most promising first: then most others are cut by their bounds.
    opened.sort(key=lambda item: item.bound_s)
    start, best_s, winner = time.perf_counter(), np.inf, None
    for item in opened:
        seconds = _solve(item, SOLVERS[solver], best_s, prune, found)
        if seconds < best_s:
            best_s, winner = seconds, item
    if winner is not None:
        found.plan = _canonical(winner, best_s)
    found.solver_s = time.perf_counter() - start
    return found


def _canonical(item: _Open, best_s: float) -> Plan:
    """Of equally fast assignments a solver returns any; take the one that the sweep finds, always the same."""
    layers, accumulation = item.setting.spec.layers, item.setting.accumulation
    answer = solve_sweep(cut(item.stages, accumulation, best_s * _TIE), layers, accumulation, best_s * _TIE)
    assert answer is not None, "the sweep has to find what another solver found"
    return _plan(item, answer.options)


def _note(setting: Setting, outcome: str, **values: Any) -> Candidate:
    return Candidate(
        setting.tp, setting.dp, setting.stages, setting.micro_batch, setting.accumulation, outcome, **values
    )  # fmt: skip


def _evaluate(every: list[Setting], space: Space, selection: Selection, found: Search) -> Iterator[_Open]:
    for setting in every:
        try:
            intra = IntraSearch(setting, space, selection)
            table = intra.table()
        except Exception as error:  # a candidate that cannot be evaluated must not end the search
            found.candidates.append(_note(setting, "failed", detail=f"{type(error).__name__}: {error}"))
            continue
        found.evaluated += sum(cell.evaluated for cells in table for cell in cells)
        stages = [_options(cells) for cells in table]
        bound_s = lower_bound_s(stages, setting.spec.layers, setting.accumulation)
        if np.isfinite(bound_s):
            yield _Open(setting, intra, table, stages, bound_s)
        else:
            missing = max(min(cell.missing_bytes for cell in cells) for cells in table)
            found.candidates.append(_note(setting, "full", missing_bytes=max(missing, 0.0)))


def _options(cells: list[Cell]) -> list[Option]:
    """Merge a stage's layer counts; the tag says which cell and which of its choices."""
    return [
        Option(cell.layers, float(t), float(d), tag=(number << 32) + choice)
        for number, cell in enumerate(cells)
        for choice, (t, d) in enumerate(zip(cell.stable_s, cell.extra_s, strict=True))
    ]


def _solve(item: _Open, solver: Any, best_s: float, prune: bool, found: Search) -> float:
    """Return one candidate's best time, inf where bounds show that it cannot win, and note what became of it."""
    setting, incumbent_s = item.setting, best_s if prune else np.inf
    stages = cut(item.stages, setting.accumulation, incumbent_s) if prune else item.stages
    outcome, iteration_s, detail = "cut", np.inf, ""
    if item.bound_s < incumbent_s:
        try:
            answer = solver(stages, setting.spec.layers, setting.accumulation, incumbent_s)
            if answer is not None:
                outcome, iteration_s = "solved", answer.iteration_s
        except Exception as error:  # a solver that gives up must not end the search
            outcome, detail = "failed", f"{type(error).__name__}: {error}"
    note = _note(setting, outcome, iteration_s=iteration_s, lower_bound_s=item.bound_s, detail=detail)
    found.candidates.append(note)
    return iteration_s


def _plan(item: _Open, options: tuple[Option, ...]) -> Plan:
    setting, stages = item.setting, []
    for cells, option in zip(item.table, options, strict=True):
        cell, choice = cells[option.tag >> 32], option.tag & 0xFFFFFFFF
        checkpointed = int(cell.checkpointed[choice])
        stages.append(item.search.policies.stage(int(cell.policy[choice]), cell.layers, checkpointed, setting))
    global_batch = setting.micro_batch * setting.dp * setting.accumulation
    plan = Plan(setting.spec, setting.cluster.size, global_batch, setting.accumulation, tuple(stages))
    return predict(plan, setting.cluster)
