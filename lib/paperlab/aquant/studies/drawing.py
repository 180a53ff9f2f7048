"""Drawing that the figures of the main table and of the ablations share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paperlab.aquant.studies.statistics import interval

_COLORS = sns.color_palette("colorblind")


def intervals(table: pd.DataFrame, labels: Sequence[str], title: str) -> Figure:
    """Draw differences with their intervals, a row each, colored by what they show (`paired` makes the table)."""
    figure, axes = plt.subplots(figsize=(7.5, 0.42 * len(table) + 1.4), layout="constrained")
    ends_of = table[["low", "high"]].apply(lambda column: column.fillna(table.difference)).to_numpy(dtype=float)
    for y, (row, ends) in enumerate(zip(table.itertuples(), ends_of, strict=True)):
        color = {"higher": _COLORS[2], "lower": _COLORS[3]}.get(str(row.verdict), "0.5")
        axes.plot(ends, [y, y], color=color, linewidth=2)
        axes.plot(row.difference, y, "o", color=color)
        axes.annotate(
            str(row.verdict), (max(ends), y), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set(xlabel="difference of top-1 in points, 95 % interval over nets", title=title)
    axes.margins(x=0.2)  # room for the words
    return figure


def lines(axes: Axes, table: pd.DataFrame, order: list, column: str, names: Sequence[str]) -> None:
    """Draw top-1 along `order` of a column, a line per net, with mean and interval over nets in black."""
    for (seed, part), color in zip(table.groupby("net_seed"), _COLORS * 2, strict=False):
        values = part.set_index(column).top1.reindex(order)
        axes.plot(range(len(order)), values, "o-", color=color, linewidth=1, label=f"net {seed}")
    for position, key in enumerate(order):
        mean, low, high = interval(table[table[column] == key].top1.to_list())
        axes.errorbar(
            position + 0.12, mean, yerr=None if np.isnan(low) else [[mean - low], [high - mean]], fmt="ks", capsize=3
        )
    axes.set_xticks(range(len(order)), names)
    axes.set(ylabel="top-1 (%)", xlabel="")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), title="black: mean, 95 %", title_fontsize=8)
