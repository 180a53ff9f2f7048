"""The what-if drawing of `20_mist_idea`: what memory per device does to Mist's gain, over both Megatron-LM rows."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pandas as pd

from paperlab.mist.baselines import systems
from paperlab.mist.clusters import GIB, cluster
from paperlab.mist.models import Attention, gpt
from paperlab.mist.search.tuner import NothingFits, tune

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GLOBAL_BATCH = 32
SYSTEMS = {systems.MEGATRON_FORCED: "recompute\nforced", systems.MEGATRON_FREE: "recompute\nfree", "Mist": "Mist"}


@cache
def speeds(capacity_GiB: float, attention: Attention) -> pd.Series:
    """Return predicted sequences/s by system, GPT-1.3B on two L4 with another memory size; 0 where nothing fits."""
    spec = gpt("1.3b", seq_len=2048, attention=attention)
    where = cluster("l4", 1, 2).with_capacity(capacity_GiB * GIB)
    plans = {name: systems.best_plan(name, spec, where, GLOBAL_BATCH).plan for name in list(SYSTEMS)[:-1]}
    try:
        plans["Mist"] = tune(spec, where, GLOBAL_BATCH, solver="sweep")
    except NothingFits:
        plans["Mist"] = None
    return pd.Series(
        {
            name: GLOBAL_BATCH / plan.prediction.iteration_s if plan and plan.prediction else 0.0
            for name, plan in plans.items()
        }
    )


def draw_speeds(axes: Axes, capacity_GiB: float, attention: Attention) -> None:
    """Draw `speeds` as bars, with Mist's two gains in the title."""
    found = speeds(capacity_GiB, attention)
    bars = axes.bar([SYSTEMS[name] for name in found.index], found, color=["0.8", "0.55", "#0173b2"])
    axes.bar_label(bars, labels=[f"{value:.2f}" if value else "does not fit" for value in found], fontsize=8)
    gains = [f"{found['Mist'] / value:.2f}x" if value else "-" for value in found[:2]]
    axes.set_title(f"{capacity_GiB:g} GiB, {attention}: {gains[0]}, {gains[1]}", fontsize=10)
    axes.set(ylabel="sequences/s (predicted)", ylim=(0, 6))
    axes.tick_params(axis="x", labelsize=8)
