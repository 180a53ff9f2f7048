"""The what-if drawing of `10_nexus_idea`: both phases' latencies over the split, and the split each objective picks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from paperlab.nexus.search import search
from paperlab.nexus.settings import Settings
from paperlab.nexus.studies.contention_study import chunk
from paperlab.nexus.studies.saturation_study import published_model
from paperlab.serving.work import StepShape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONTEXT = 6000  # tokens of each sequence that decodes, and stored ones of the chunk beside them
FLOOR = 5  # percent


def latencies(decode_batch: int) -> pd.DataFrame:
    """Return both phases' latency over the split, each relative to the whole device: columns prefill, decode.

    The index is prefill's share in percent. A chunk of 2,048 tokens beside `decode_batch` sequences on an L20.
    """
    co_run = published_model().co_run(chunk(CONTEXT), _decode(decode_batch))
    percents = list(range(FLOOR, 101 - FLOOR))
    prefill = [co_run.prefill_s(p / 100) / co_run.prefill_s(1.0) for p in percents]
    decode = [co_run.decode_s(1 - p / 100, p / 100) / co_run.decode_s(1.0, p / 100) for p in percents]
    return pd.DataFrame({"prefill": prefill, "decode": decode}, index=pd.Index(percents, name="percent"))


def picked(decode_batch: int, alpha: float, beta: float) -> dict[str, int]:
    """Return R_p of the search from an even split, by objective (`prefill` or `decode` first)."""
    co_run = published_model().co_run(chunk(CONTEXT), _decode(decode_batch))
    settings = Settings(alpha=alpha, beta=beta)
    return {target: search(co_run, target, 50, settings, FLOOR).prefill_percent for target in ("prefill", "decode")}


def draw_split(axes: Axes, beta: float, decode_batch: int, alpha: float) -> None:
    """Draw `latencies`, the slacks, and what each objective picks."""
    table = latencies(decode_batch)
    colors = {"prefill": "#0173b2", "decode": "#de8f05"}
    for phase, slack in (("prefill", alpha), ("decode", beta)):
        axes.plot(table.index, table[phase], color=colors[phase], label=f"{phase} latency")
        axes.axhline(slack, color=colors[phase], linestyle=":", linewidth=1)
    for target, percent in picked(decode_batch, alpha, beta).items():
        axes.axvline(percent, color=colors[target], linestyle="--", label=f"{target} first: {percent} %")
    axes.set(ylim=(0.9, 3), xlabel="prefill's share (%)", ylabel="latency over the whole device's")
    axes.set_title(f"α = {alpha:g}, β = {beta:g}, {decode_batch} sequences", fontsize=10)
    axes.legend(fontsize=7, loc="center left", frameon=True)


def _decode(batch: int) -> StepShape:
    return StepShape(decode_tokens=batch, decode_context=batch * CONTEXT, logits=batch)
