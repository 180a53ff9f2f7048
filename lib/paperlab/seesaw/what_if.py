"""The what-if drawing of `30_seesaw_idea`: prefill and decode rates of every layout as link and lengths change."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from paperlab.seesaw.disaggregation import decode_seconds
from paperlab.seesaw.estimate import batch_s
from paperlab.seesaw.hardware import node
from paperlab.seesaw.layout import replica_layouts
from paperlab.seesaw.prices import Prices
from paperlab.seesaw.simulation import PREFILL_TOKENS
from paperlab.transformer import preset

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODEL, GPUS, PROMPT = "llama2-70b", 8, 3000


def rates(link_factor: float, output: int, device: str = "A10") -> pd.DataFrame:
    """Return seconds per request of both phases in each layout, with all-reduces `link_factor` times as fast."""
    model, on = preset(MODEL), node(device)
    on = replace(on, all_reduce=on.all_reduce.scaled(link_factor))
    rows = []
    for layout in replica_layouts(model, GPUS):
        prefill = batch_s(Prices(model, layout, on), PROMPT, PREFILL_TOKENS)
        rows.append((str(layout), prefill, decode_seconds(model, on, layout, PROMPT, output)))
    return pd.DataFrame(rows, columns=["layout", "prefill_s", "decode_s"]).set_index("layout")


def draw_rates(axes: Axes, link_factor: float, output: int, device: str = "A10") -> None:
    """Draw seconds per request: a bar per static layout, and one for the best of each phase."""
    table = rates(link_factor, output, device)
    prefill, decode = table.prefill_s.idxmin(), table.decode_s.idxmin()
    table.loc[f"{prefill}→{decode}"] = [table.prefill_s.min(), table.decode_s.min()]
    table.columns = ["prefill", "decode"]
    table.plot.bar(stacked=True, ax=axes, color=["#0173b2", "#de8f05"], rot=0)
    axes.set(xlabel="", ylabel="seconds per request, phases apart")
    axes.set_title(f"{device}, link ×{link_factor:g}, {PROMPT} in, {output} out", fontsize=9)
    axes.legend(fontsize=7)
