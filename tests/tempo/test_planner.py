"""The planner against exhaustive search and against the bytes the planned model really keeps."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from paperlab.tempo.dropin import baselines, patch
from paperlab.tempo.dropin.encoder import meta_copy
from paperlab.tempo.memory.accounting import LayerShape
from paperlab.tempo.memory.capacity import synthetic_batch
from paperlab.tempo.memory.ledger import retained_bytes
from paperlab.tempo.memory.planner import cheapest_cover, plan, savings, traffic_cost

from .tiny_models import FAMILIES, tiny_model


def exhaustive(saved: np.ndarray, cost: np.ndarray, needed: int) -> tuple[float, int]:
    """Least cost, and then least count, over all subsets that save enough."""
    subsets = itertools.product([False, True], repeat=len(saved))
    fitting = [np.array(s) for s in subsets if int(saved[list(s)].sum()) >= needed]
    return min((round(float(cost[s].sum()), 9), int(s.sum())) for s in fitting)


@pytest.mark.parametrize("seed", range(12))
def test_cover_agrees_with_exhaustive_search(seed: int) -> None:
    draw = random.Random(seed)
    saved = np.array([draw.choice([-512, 0, 512, 4096, 81920, 12_345_600]) for _ in range(9)])
    cost = np.array([draw.choice([0.0, 0.0, 1e-6, 3e-6, 2.5e-3]) for _ in range(9)])
    total = int(saved[saved > 0].sum())
    for needed in {draw.randint(1, max(total, 1)) for _ in range(6)} | {total}:
        if 0 < needed <= total:
            chosen = cheapest_cover(saved, cost, needed)
            assert int(saved[chosen].sum()) >= needed
            useful = saved > 0
            best = exhaustive(saved[useful], cost[useful], needed)
            assert (round(float(cost[chosen].sum()), 9), int(chosen.sum())) == best


def test_cover_is_exact_to_the_byte() -> None:
    """A solver with tolerances on raw bytes would take the subset that is one byte short."""
    saved = np.array([10**11 - 1, 10**11])
    assert cheapest_cover(saved, np.array([1.0, 2.0]), 10**11).tolist() == [False, True]
    assert cheapest_cover(saved, np.array([1.0, 2.0]), 10**11 - 1).tolist() == [True, False]


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.35, 0.6, 0.9, 1.0])
def test_planned_models_keep_what_the_plan_says(fraction: float) -> None:
    model = tiny_model("bert", layers=3)
    chosen = plan(model, 2, 24, budget_fraction=fraction)
    twin = baselines.as_on_gpu(meta_copy(model))
    chosen.apply(twin)
    kept = retained_bytes(twin, synthetic_batch(twin, 2, 24))
    assert kept == chosen.retained_bytes <= chosen.budget_bytes


def test_plan_agrees_with_exhaustive_search_over_real_models() -> None:
    """Every subset of six conversions is applied and measured; none within the budget is cheaper."""
    model = baselines.as_on_gpu(meta_copy(tiny_model("bert")))
    batch = synthetic_batch(model, 2, 24)
    cost = {"gelu": 2.0, "layernorm": 1.0, "attention": 5.0}
    items = list(itertools.product((0, 1), cost))
    measured: list[tuple[float, int]] = []
    for taken in itertools.product([False, True], repeat=len(items)):
        chosen = [item for item, wanted in zip(items, taken, strict=True) if wanted]
        if chosen:
            patch.apply(model, **{name: [i for i, n in chosen if n == name] for name in cost})
        measured.append((sum(cost[name] for _, name in chosen), retained_bytes(model, batch)))
        patch.revert(model)
    least, most = min(kept for _, kept in measured), max(kept for _, kept in measured)
    for budget in np.linspace(least, most, 4).astype(int):
        best = min(price for price, kept in measured if kept <= budget)
        found = plan(model, 2, 24, budget_bytes=int(budget), cost=lambda layer, technique: cost[technique])
        assert found.overhead_s == pytest.approx(best)


@pytest.mark.parametrize("family", FAMILIES)
def test_savings_add_up(family: str) -> None:
    model = tiny_model(family, layers=3)
    baseline, saved = savings(model, 2, 17, python_gelu=True)
    assert len(saved) == 9
    twin = baselines.as_on_gpu(meta_copy(model))
    everything = {name: [0, 1, 2] for name in ("gelu", "layernorm", "attention")}
    patch.apply(twin, **everything, python_gelu=True)
    kept = retained_bytes(twin, synthetic_batch(twin, 2, 17))
    assert kept == baseline - sum(bytes_ for *_, bytes_ in saved)


def test_smaller_budgets_cost_more() -> None:
    model = tiny_model("bert")
    plans = [plan(model, 2, 24, budget_fraction=fraction) for fraction in (1.0, 0.7, 0.4, 0.0)]
    assert [p.overhead_s for p in plans] == sorted(p.overhead_s for p in plans)
    assert plans[0].overhead_s == 0
    assert not plans[0].items.chosen.any()
    assert plans[0].apply(model).changes == ()
    assert plans[-1].items.chosen.all()


def test_free_conversions_come_first() -> None:
    """By traffic LayerNorm costs nothing, so a budget that it can meet takes nothing else."""
    chosen = plan(tiny_model("bert"), 2, 24, budget_fraction=0.95)
    assert set(chosen.items.technique[chosen.items.chosen]) == {"layernorm"}


def test_traffic_cost_counts_bytes() -> None:
    shape = LayerShape(2, 24, 32, 4)
    cost = traffic_cost(tiny_model("bert"), 2, 24, 1.0)
    assert cost(0, "gelu") == 2 * 4 * shape.bsh
    assert cost(0, "layernorm") == 0
    assert cost(0, "attention") == 9 * shape.bas2


def test_the_model_is_not_changed() -> None:
    model = tiny_model("bert")
    patch.apply(model, layers=[0])
    report = patch.report(model)
    plan(model, 1, 16, budget_fraction=0.5)
    assert patch.report(model) == report


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({}, "give one of budget_bytes and budget_fraction"),
        ({"budget_bytes": 1, "budget_fraction": 0.5}, "give one of"),
        ({"budget_fraction": 1.2}, r"budget_fraction is 1.2; it must lie in \[0, 1\]"),
        ({"budget_bytes": 10}, "budget_bytes is 10; the model retains at least"),
    ],
)
def test_bad_budgets_are_named(budget: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(tiny_model("bert"), 1, 16, **budget)  # type: ignore[arg-type]


def test_infeasible_cover_is_named() -> None:
    with pytest.raises(ValueError, match="needed_bytes is 9; all conversions together save 8"):
        cheapest_cover(np.array([8, -1]), np.array([1.0, 1.0]), 9)
