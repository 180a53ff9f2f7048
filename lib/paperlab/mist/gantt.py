"""Passes of a pipeline over time, as simulated and as they ran."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import seaborn as sns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = sns.color_palette("colorblind")
# Phase -> color and name, in the order of the legend.
PHASES = {
    "forward": (_COLORS[0], "forward"),
    "backward": (_COLORS[1], "backward"),
    "first extra": ("0.6", "extra work of the first micro-batch"),
}


def draw_gantt(axes: Axes, passes: pd.DataFrame, scale: float = 1.0) -> None:
    """Draw passes (stage, micro_batch, phase, start_s, end_s) as numbered boxes, times multiplied by `scale`."""
    for phase, (color, name) in PHASES.items():
        part = passes[passes.phase == phase]
        if part.empty:
            continue
        axes.barh(
            part.stage, scale * (part.end_s - part.start_s), left=scale * part.start_s, height=0.8,
            color=color, edgecolor="white", linewidth=0.7, label=name,
        )  # fmt: skip
    for row in passes[passes.micro_batch >= 0].to_dict("records"):
        middle = scale * (row["start_s"] + row["end_s"]) / 2
        axes.text(middle, row["stage"], row["micro_batch"], ha="center", va="center", fontsize=7, color="white")
    axes.set_yticks(sorted(passes.stage.unique()), [f"stage {stage}" for stage in sorted(passes.stage.unique())])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
