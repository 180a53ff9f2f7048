"""Auto-Tempo: the cheapest set of (layer, technique) that brings a model's activations under a budget.

The paper's AutoTempo searched by running out of memory and compared step times at different batches. This one
takes a byte budget, measures on the meta device what each conversion saves, prices it in bytes moved over
bandwidth (or by measured seconds), and solves the covering knapsack exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from math import gcd
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import nn

from paperlab.tempo.dropin import baselines, patch
from paperlab.tempo.dropin.encoder import meta_copy
from paperlab.tempo.dropin.report import OUTSIDE, TECHNIQUES, Report, Technique
from paperlab.tempo.memory import ledger
from paperlab.tempo.memory.capacity import synthetic_batch

Cost = Callable[[int, Technique], float]
TERABYTE_PER_S = 1e12  # a nominal bandwidth; the choice depends only on the ratios of the costs


@dataclass(frozen=True)
class Plan:
    """Conversions chosen, with the bytes they leave and the seconds they add to a step.

    `items` has one row per possible conversion: layer, technique, saved_bytes, cost_s, chosen.
    """

    items: pd.DataFrame
    baseline_bytes: int
    budget_bytes: int

    @property
    def retained_bytes(self) -> int:
        """Bytes the converted model retains."""
        return self.baseline_bytes - int(self.items.saved_bytes[self.items.chosen].sum())

    @property
    def overhead_s(self) -> float:
        """Seconds the chosen conversions add to one step, by the cost they were chosen with."""
        return float(self.items.cost_s[self.items.chosen].sum())

    def layers(self, technique: Technique) -> list[int]:
        """Layers in which `technique` was chosen."""
        chosen = self.items[self.items.chosen & (self.items.technique == technique)]
        return [int(layer) for layer in chosen.layer]

    def apply(self, model: nn.Module, **options: Any) -> Report:
        """Convert `model` as planned; one that fits the budget as it is stays as it is."""
        if not self.items.chosen.any():
            return Report()
        chosen: dict[str, Any] = {technique: self.layers(technique) for technique in TECHNIQUES}
        return patch.apply(model, **chosen, **options)


def traffic_cost(model: nn.Module, batch: int, seq_len: int, bandwidth_Bps: float) -> Cost:
    """Seconds one conversion adds, from the bytes it moves beyond the plain operators (own derivation).

    GELU writes and reads its side mask; LayerNorm reads y where it read x; attention reads P and its mask and
    writes the dropped P once more. `bandwidth_Bps` is the device's memory bandwidth.
    """
    config: Any = model.config
    element_bytes = next(model.parameters()).element_size()
    attention_map = batch * config.num_attention_heads * seq_len * seq_len
    inner = batch * seq_len * (getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    moved = {"gelu": 2 * inner, "layernorm": 0, "attention": (2 * element_bytes + 1) * attention_map}
    return lambda layer, technique: moved[technique] / bandwidth_Bps


def savings(model: nn.Module, batch: int, seq_len: int, **options: Any) -> tuple[int, list[tuple[int, Technique, int]]]:
    """Bytes `model` retains un-patched, and (layer, technique, bytes saved) of each conversion alone.

    Measured on a meta copy with a GPU's dropout masks: one forward pass per conversion. Within the encoder
    stack the savings add up, since no two conversions free the same storage.
    """
    twin = meta_copy(model).train()
    patch.revert(twin)
    inputs = synthetic_batch(twin, batch, seq_len)
    baseline = ledger.retained_bytes(baselines.as_on_gpu(twin), inputs)
    possible = {
        (c.layer, c.technique)
        for c in patch.preview(twin, **options).changes
        if c.action == "replaced" and c.layer != OUTSIDE
    }
    saved = []
    for layer, technique in sorted(possible):
        only: dict[str, Any] = {name: [layer] if name == technique else False for name in TECHNIQUES}
        patch.apply(twin, **only, **options)
        saved.append((layer, technique, baseline - ledger.retained_bytes(twin, inputs)))
    return baseline, saved


def cheapest_cover(saved_bytes: np.ndarray, cost_s: np.ndarray, needed_bytes: int) -> np.ndarray:
    """Boolean choice of least cost, then fewest items, whose `saved_bytes` sum to at least `needed_bytes`.

    All savings are divided by their greatest common divisor, which keeps the integer program exact.
    Raises `ValueError` where even all items save too little.
    """
    if needed_bytes <= 0:
        return np.zeros(len(saved_bytes), dtype=bool)
    useful = saved_bytes > 0
    if (total := int(saved_bytes[useful].sum())) < needed_bytes:
        raise ValueError(f"needed_bytes is {needed_bytes}; all conversions together save {total}")
    unit = reduce(gcd, (int(saved) for saved in saved_bytes[useful]))
    # A tie in cost goes to fewer conversions: together they weigh less than the smallest positive cost
    scale = cost_s[cost_s > 0].min(initial=np.inf)
    weight = (cost_s / scale if np.isfinite(scale) else cost_s) + 1e-3 / len(cost_s)
    solution = milp(
        weight,
        constraints=LinearConstraint((saved_bytes // unit)[np.newaxis], lb=-(-needed_bytes // unit)),
        integrality=np.ones(len(weight)),
        bounds=Bounds(0, useful.astype(float)),
        options={"mip_rel_gap": 0.0},
    )
    return np.round(solution.x).astype(bool)


@dataclass(frozen=True)
class Menu:
    """All conversions a model offers, measured and priced once: `items` has layer, technique, saved_bytes, cost_s."""

    items: pd.DataFrame
    baseline_bytes: int

    @property
    def least_bytes(self) -> int:
        """Bytes the model retains with everything converted."""
        return self.baseline_bytes - int(self.items.saved_bytes.clip(lower=0).sum())

    def choose(self, budget_bytes: int | None = None, budget_fraction: float | None = None) -> Plan:
        """Return the cheapest conversions that meet the budget; arguments and errors as in `plan`."""
        if (budget_bytes is None) == (budget_fraction is None):
            raise ValueError("give one of budget_bytes and budget_fraction")
        if budget_bytes is None:
            assert budget_fraction is not None
            if not 0 <= budget_fraction <= 1:
                raise ValueError(f"budget_fraction is {budget_fraction}; it must lie in [0, 1]")
            budget_bytes = self.least_bytes + int(budget_fraction * (self.baseline_bytes - self.least_bytes))
        if budget_bytes < self.least_bytes:
            raise ValueError(f"budget_bytes is {budget_bytes}; the model retains at least {self.least_bytes}")
        saved, cost = self.items.saved_bytes.to_numpy(), self.items.cost_s.to_numpy(dtype=float)
        chosen = cheapest_cover(saved, cost, self.baseline_bytes - budget_bytes)
        return Plan(self.items.assign(chosen=chosen), self.baseline_bytes, budget_bytes)


def menu(model: nn.Module, batch: int, seq_len: int, *, cost: Cost | float = TERABYTE_PER_S, **options: Any) -> Menu:
    """Measure and price every conversion of `model` for one batch; arguments as in `plan`."""
    baseline, saved = savings(model, batch, seq_len, **options)
    price = cost if callable(cost) else traffic_cost(model, batch, seq_len, cost)
    items = pd.DataFrame(saved, columns=["layer", "technique", "saved_bytes"])
    return Menu(items.assign(cost_s=[price(layer, technique) for layer, technique, _ in saved]), baseline)


def plan(
    model: nn.Module,
    batch: int,
    seq_len: int,
    *,
    budget_bytes: int | None = None,
    budget_fraction: float | None = None,
    cost: Cost | float = TERABYTE_PER_S,
    **options: Any,
) -> Plan:
    """Choose the cheapest conversions under which `model` retains at most the budget for one batch.

    Give `budget_bytes`, or `budget_fraction` in [0, 1] between everything converted and nothing, as
    `torch.compile`'s memory budget. `cost` is a function (layer, technique) -> seconds, or a memory bandwidth in
    bytes per second for `traffic_cost`. `options` go to `patch.apply`. The model is not changed; see
    `Plan.apply`. Raises `ValueError` for a budget that cannot be met, or none or two of them.
    """
    return menu(model, batch, seq_len, cost=cost, **options).choose(budget_bytes, budget_fraction)
