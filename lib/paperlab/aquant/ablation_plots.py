"""The figure of each ablation, drawn from its table; same names as in `ablation_experiments.py`."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from paperlab.aquant.ablation_experiments import DEGREES
from paperlab.aquant.studies.drawing import intervals, lines

_SQUARE = {
    "no drop": "neither",
    "QDrop": "drop",
    "AQuant": "border",
    "AQuant, drop": "both",
    "AQuant, free": "border, free",
}
_TERMS = {"none": "nearest", "weight": "weight", "propagated": "+ propagated", "all": "+ global"}


def exhibit_drop_and_border(table: pd.DataFrame) -> Figure:
    """Top-1 of the 2x2 and of the border with free thresholds, a line per net."""
    return _ladder(table, "arm", _SQUARE, "Drop and border: N1, W2A2")


def exhibit_degrees(table: pd.DataFrame) -> Figure:
    """Top-1 by degree of the border, a line per net."""
    return _ladder(table, "degree", DEGREES, "Degree of the border, without drop: N1, W2A2")


def table_terms(table: pd.DataFrame) -> Figure:
    """Top-1 of closed-form borders by the errors they know, a line per net."""
    return _ladder(table, "terms", _TERMS, "Closed-form border by the errors it knows: N1, W2A2, nearest weights")


def _ladder(table: pd.DataFrame, column: str, names: dict, title: str) -> Figure:
    order = [key for key in names if key in set(table[column])]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    lines(axes, table, order, column, [names[key] for key in order])
    axes.set_title(title)
    return figure


def exhibit_bits(table: pd.DataFrame) -> Figure:
    """Top-1 by bits and arm: bars are means, points are nets."""
    shown = table.assign(bits="W" + table.w_bits.astype(str) + "A" + table.a_bits.astype(str))
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    sns.barplot(shown, x="bits", y="top1", hue="arm", errorbar=None, alpha=0.6, ax=axes)
    sns.stripplot(shown, x="bits", y="top1", hue="arm", dodge=True, jitter=False, legend=False, size=4, ax=axes)
    axes.axhline(shown.float_top1.mean(), color="0.4", linestyle=":", linewidth=1)
    axes.text(axes.get_xlim()[1], shown.float_top1.mean(), "float", ha="right", va="bottom", fontsize=8)
    axes.set(ylabel="top-1 (%)", xlabel="", title=f"N1 by bits, {shown.net_seed.nunique()} nets")
    axes.legend(title=None, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def exhibit_sensitivity(table: pd.DataFrame) -> Figure:
    """Top-1 against every setting that is varied, a panel each: points are nets, lines their means."""
    groups = list(table.groupby("varied", sort=False))
    figure, panels = plt.subplots(1, len(groups), figsize=(3.4 * len(groups), 3.8), sharey=True, layout="constrained")
    for axes, (name, part) in zip(panels, groups, strict=True):
        sns.lineplot(part, x="value", y="top1", hue="arm", errorbar=None, ax=axes, legend=part.arm.nunique() > 1)
        sns.scatterplot(part, x="value", y="top1", hue="arm", s=22, ax=axes, legend=False)
        axes.set(title=str(name), xlabel="", ylabel="top-1 (%)")
        axes.margins(x=0.2)
        if axes.get_legend():
            axes.legend(title=None, fontsize=8)
    return figure


def table_ablation_differences(table: pd.DataFrame) -> Figure:
    """Paired differences of every ablation with their intervals; those that cross zero are not resolved."""
    labels = [f"{row.study}: {row.arm} − {row.over}" for row in table.itertuples()]
    return intervals(table, labels, "N1, W2A2 unless said otherwise")
