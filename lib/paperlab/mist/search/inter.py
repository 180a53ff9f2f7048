"""Inter-stage search: layers and policy of every stage, by a MILP or by an exact sweep, with lower bounds (§2.9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paperlab.mist.cost.pipeline import closed_form_s
from paperlab.mist.search.fronts import pareto

MILP_SECONDS = 600.0
_ROUNDING = 1 + 1e-9


@dataclass(frozen=True)
class Option:
    """One choice of a stage: its layers, t and d (s), and `tag`, the caller's name for it."""

    layers: int
    stable_s: float
    extra_s: float
    tag: int = 0


Stages = Sequence[Sequence[Option]]


@dataclass(frozen=True)
class Assignment:
    """One option per stage and the iteration time that follows."""

    iteration_s: float
    options: tuple[Option, ...]


def objective_s(options: Sequence[Option], accumulation: int) -> float:
    """Return the closed-form iteration time of one option per stage."""
    return closed_form_s([o.stable_s for o in options], [o.extra_s for o in options], accumulation)


def lower_bound_s(stages: Stages, layers: int, accumulation: int) -> float:
    """Return the best time with every d left out: no assignment is faster; inf if the layers cannot be placed."""
    fastest: list[dict[int, float]] = []
    for options in stages:
        best: dict[int, float] = {}
        for option in options:
            best[option.layers] = min(best.get(option.layers, np.inf), option.stable_s)
        fastest.append(best)
    found = np.inf
    for limit in sorted({t for best in fastest for t in best.values()}):
        if (accumulation - 1) * limit >= found:
            break
        sums = {0: 0.0}
        for best in fastest:
            following: dict[int, float] = {}
            for used, total in sums.items():
                for count, t in best.items():
                    if t <= limit:
                        following[used + count] = min(following.get(used + count, np.inf), total + t)
            sums = following
        found = min(found, (accumulation - 1) * limit + sums.get(layers, np.inf))
    return float(found)


def cut(stages: Stages, accumulation: int, incumbent_s: float) -> list[list[Option]]:
    """Drop options that no assignment faster than the incumbent can hold, given the fastest of every other stage."""
    fastest = [min((o.stable_s for o in options), default=np.inf) for options in stages]
    slowest, total = max(fastest), sum(fastest)
    kept = []
    for options, least in zip(stages, fastest, strict=True):
        others = total - least
        kept.append([
            o for o in options
            if (accumulation - 1) * max(o.stable_s, slowest) + others + o.stable_s < incumbent_s
        ])  # fmt: skip
    return kept


def solve_milp(stages: Stages, layers: int, accumulation: int, incumbent_s: float = np.inf) -> Assignment | None:
    """Return the fastest assignment of exactly `layers`, or None if there is none below `incumbent_s`.

    Minimizes (G−1)·M + Σ t + D over binaries z (stage, option) with M ≥ t_i and D ≥ d_i − Σ_{j<i} t_j, D ≥ 0.

    Raises:
        RuntimeError: the solver stopped without an answer, as at its time limit.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    if any(not options for options in stages):
        return None
    flat = [(stage, option) for stage, options in enumerate(stages) for option in options]
    rows, lower, upper = _constraints(flat, len(stages), layers)
    times = np.array([option.stable_s for _, option in flat])
    largest = np.inf if not np.isfinite(incumbent_s) else incumbent_s / max(accumulation - 1, 1)
    result = milp(
        np.concatenate((times, [accumulation - 1, 1.0])),
        integrality=np.concatenate((np.ones(len(flat)), [0, 0])),
        bounds=Bounds(np.zeros(len(flat) + 2), np.concatenate((np.ones(len(flat)), [largest, np.inf]))),
        constraints=LinearConstraint(rows, lower, upper),
        options={"mip_rel_gap": 0.0, "time_limit": MILP_SECONDS},
    )
    if result.status == 2:  # infeasible
        return None
    if result.x is None or result.status != 0:
        raise RuntimeError(f"MILP of {len(stages)} stages and {len(flat)} options: {result.message}")
    chosen = tuple(option for (_, option), x in zip(flat, result.x[: len(flat)], strict=True) if x > 0.5)
    found = Assignment(objective_s(chosen, accumulation), chosen)
    return found if found.iteration_s < incumbent_s else None


def _constraints(
    flat: list[tuple[int, Option]], stages: int, layers: int
) -> tuple[object, NDArray[np.float64], NDArray[np.float64]]:
    """Rows: one option per stage; all layers placed; M at least every t; D at least every waited-for d."""
    from scipy.sparse import lil_array

    size = len(flat)
    rows = lil_array((3 * stages + 1, size + 2))
    for column, (stage, option) in enumerate(flat):
        rows[stage, column] = 1.0
        rows[stages, column] = option.layers
        rows[stages + 1 + stage, column] = -option.stable_s
        rows[2 * stages + 1 + stage, column] = -option.extra_s
        for later in range(stage + 1, stages):
            rows[2 * stages + 1 + later, column] = option.stable_s
    for stage in range(stages):
        rows[stages + 1 + stage, size] = 1.0
        rows[2 * stages + 1 + stage, size + 1] = 1.0
    fixed = np.concatenate((np.ones(stages), [layers]))
    lower = np.concatenate((fixed, np.zeros(2 * stages)))
    upper = np.concatenate((fixed, np.full(2 * stages, np.inf)))
    return rows.tocsr(), lower, upper


def solve_sweep(stages: Stages, layers: int, accumulation: int, incumbent_s: float = np.inf) -> Assignment | None:
    """Return the same optimum as `solve_milp` without a solver: a sweep over M with exact dynamic programming.

    With s_i = Σ_{j≥i} t_j and v_i = max_{j≥i}(d_j + s_j), the time is (G−1)·M + max(s_0, v_0). Going from the last
    stage to the first both only grow with what they were, so labels (s, v) dominated in both can go.
    """
    groups = [_by_layers(options) for options in stages]
    smallest = max((min((o.stable_s for o in options), default=np.inf) for options in stages), default=np.inf)
    limits = np.unique([option.stable_s for options in stages for option in options])
    best, least_s, count = None, incumbent_s, len(limits)
    # From the loosest limit down: an answer whose largest t lies below the limit also answers all limits between.
    while count and (limit := float(limits[count - 1])) >= smallest:
        chosen = _best_below(groups, layers, limit, least_s - (accumulation - 1) * smallest)
        if chosen is None:
            break
        found = Assignment(objective_s(chosen, accumulation), chosen)
        if found.iteration_s < least_s:
            best, least_s = found, found.iteration_s
        largest = max(option.stable_s for option in chosen)
        count = int(np.searchsorted(limits, largest))
        if accumulation > 1:
            # Below a tighter limit max(s_0, v_0) is no less than here, so a larger M cannot win.
            rest_s = found.iteration_s - (accumulation - 1) * largest
            promising = (least_s - rest_s) / (accumulation - 1) * _ROUNDING
            count = min(count, int(np.searchsorted(limits, promising, side="right")))
    return best


@dataclass(frozen=True)
class _Group:
    """A stage's options with the same number of layers, by growing t."""

    layers: int
    options: list[Option]
    stable_s: NDArray[np.float64]
    extra_s: NDArray[np.float64]


def _by_layers(options: Sequence[Option]) -> list[_Group]:
    groups = []
    for layers in sorted({option.layers for option in options}):
        same = sorted((o for o in options if o.layers == layers), key=lambda o: (o.stable_s, o.extra_s, o.tag))
        t, d = np.array([o.stable_s for o in same]), np.array([o.extra_s for o in same])
        groups.append(_Group(layers, same, t, d))
    return groups


Labels = tuple[NDArray[np.float64], NDArray[np.float64], list[tuple[Option, ...]]]  # s, v, options to the last stage


def _best_below(groups: list[list[_Group]], layers: int, limit: float, bound: float) -> tuple[Option, ...] | None:
    """Return the options with the least max(s, v) below `bound`, no t above `limit`; None if there are none."""
    labels: dict[int, Labels] = {0: (np.zeros(1), np.zeros(1), [()])}
    for stage in reversed(groups):
        following: dict[int, list[Labels]] = {}
        for group in stage:
            count = int(np.searchsorted(group.stable_s, limit, side="right"))
            for used, known in labels.items():
                if count and used + group.layers <= layers:
                    following.setdefault(used + group.layers, []).append(_extended(group, count, known, bound))
        labels = {used: merged for used, found in following.items() if len((merged := _merged(found))[0])}
    if layers not in labels:
        return None
    s, v, chosen = labels[layers]
    return chosen[int(np.argmin(np.maximum(s, v)))]


def _extended(group: _Group, count: int, known: Labels, bound: float) -> Labels:
    """Put each of a group's first `count` options before every label, and keep what nothing dominates."""
    total = group.stable_s[:count, None] + known[0]
    late = np.maximum(known[1], group.extra_s[:count, None] + total)
    option, label = np.nonzero(np.maximum(total, late) < bound)
    s, v = total[option, label], late[option, label]
    kept = pareto(s, v)
    chosen = [(group.options[option[i]], *known[2][label[i]]) for i in kept]
    return s[kept], v[kept], chosen


def _merged(found: list[Labels]) -> Labels:
    s, v = (np.concatenate([labels[index] for labels in found]) for index in (0, 1))
    chosen = [options for labels in found for options in labels[2]]
    kept = pareto(s, v)
    return s[kept], v[kept], [chosen[i] for i in kept]


def brute_force(stages: Stages, layers: int, accumulation: int) -> Assignment | None:
    """Return the optimum by trying every combination; for small instances and as an oracle."""
    best: Assignment | None = None

    def extend(chosen: tuple[Option, ...], left: int) -> None:
        nonlocal best
        if len(chosen) == len(stages):
            if left == 0:
                found = Assignment(objective_s(chosen, accumulation), chosen)
                best = found if best is None or found.iteration_s < best.iteration_s else best
            return
        for option in stages[len(chosen)]:
            if option.layers <= left:
                extend((*chosen, option), left - option.layers)

    extend((), layers)
    return best
