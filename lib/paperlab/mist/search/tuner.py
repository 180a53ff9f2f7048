"""The tuner's outer loops: every (tp, stages, G), its stages' fronts, and one assignment of layers to stages."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paperlab.mist.clusters import Cluster
from paperlab.mist.cost.evaluate import MIB
from paperlab.mist.cost.setting import Setting
from paperlab.mist.models import ModelSpec
from paperlab.mist.plan import Plan
from paperlab.mist.search.candidates import (
    Candidate,
    Opened,
    missing_bytes,
    note,
    open_candidate,
    optimistic_s,
    plan_of,
)
from paperlab.mist.search.inter import cut, solve_milp, solve_sweep
from paperlab.mist.search.intra import Selection
from paperlab.mist.search.space import FULL, Space, settings
from paperlab.mist.symbolic.compile import compiled

_TIE = 1 + 1e-9  # times this close are equal
SOLVERS = {"milp": solve_milp, "sweep": solve_sweep}


class NothingFits(ValueError):
    """No plan of the space fits the devices' memory; `missing_bytes` says by how much the best one fails."""

    def __init__(self, message: str, missing_bytes: float) -> None:
        super().__init__(message)
        self.missing_bytes = missing_bytes


@dataclass
class Search:
    """A finished search: the best plan, if any, and what became of every candidate.

    evaluated: configurations whose time and memory were computed. trace_s (0 if the model was traced before),
    evaluation_s, solver_s: where the time went.
    """

    plan: Plan | None = None
    candidates: list[Candidate] = field(default_factory=list)
    evaluated: int = 0
    trace_s: float = 0.0
    evaluation_s: float = 0.0
    solver_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Seconds of the whole search."""
        return self.trace_s + self.evaluation_s + self.solver_s


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
    found, clock = Search(), _Clock()
    compiled(spec)
    found.trace_s = clock.lap()
    # The most promising first: then most others need not even be evaluated.
    bounds = sorted(
        ((optimistic_s(setting, space), n, setting) for n, setting in enumerate(every)), key=lambda x: x[:2]
    )
    best_s, winner = np.inf, None
    for bound_s, _, setting in bounds:
        if prune and bound_s >= best_s:
            found.candidates.append(note(setting, "cut", lower_bound_s=bound_s))
            continue
        item = _evaluate(setting, space, selection or Selection(), found)
        found.evaluation_s += clock.lap()
        if item is not None:
            seconds = _solve(item, SOLVERS[solver], best_s, prune, found)
            if seconds < best_s:
                best_s, winner = seconds, item
        found.solver_s += clock.lap()
    if winner is not None:
        found.plan = _canonical(winner, best_s)
    found.solver_s += clock.lap()
    return found


class _Clock:
    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the last call."""
        before, self._last = self._last, time.perf_counter()
        return self._last - before


def _canonical(item: Opened, best_s: float) -> Plan:
    """Of equally fast assignments a solver returns any; take the one that the sweep finds, always the same."""
    layers, accumulation = item.setting.spec.layers, item.setting.accumulation
    answer = solve_sweep(cut(item.stages, accumulation, best_s * _TIE), layers, accumulation, best_s * _TIE)
    assert answer is not None, "the sweep has to find what another solver found"
    return plan_of(item, answer.options)


def _evaluate(setting: Setting, space: Space, selection: Selection, found: Search) -> Opened | None:
    """Evaluate one candidate's cells; None, with a note, if it fails or fits in no way."""
    try:
        item = open_candidate(setting, space, selection)
    except Exception as error:  # a candidate that cannot be evaluated must not end the search
        found.candidates.append(note(setting, "failed", detail=f"{type(error).__name__}: {error}"))
        return None
    found.evaluated += sum(cell.evaluated for cells in item.table for cell in cells)
    if np.isfinite(item.bound_s):
        return item
    found.candidates.append(note(setting, "full", missing_bytes=missing_bytes(item.table, setting.spec.layers)))
    return None


def _solve(item: Opened, solver: Any, best_s: float, prune: bool, found: Search) -> float:
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
    values = {"iteration_s": iteration_s, "lower_bound_s": item.bound_s, "detail": detail}
    found.candidates.append(note(setting, outcome, **values))
    return iteration_s
