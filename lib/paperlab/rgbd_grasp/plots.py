"""The figure of each exhibit of `experiments.py`, drawn from its table; same names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paperlab.rgbd_grasp.studies.methods import BLIND, GEOMETRIC, ORACLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = sns.color_palette("colorblind")
_KINDS = {"upper bound": _COLORS[7], "Angle-View Net": _COLORS[0], "depth alone": _COLORS[1], "no image": _COLORS[3]}


_SETTINGS = {
    "mask depth_plane": "what rises over the table, by depth",
    "mask gt": "true object masks (released code)",
    "mask none": "the whole image",
}


def _kind(method: str) -> str:
    if method in ORACLES:
        return "upper bound"
    return "depth alone" if method in GEOMETRIC else "no image" if method in BLIND else "Angle-View Net"


def _intervals(
    axes: Axes, table: pd.DataFrame, column: str, y: Sequence[float], color: object, **style: object
) -> None:
    """Draw values with their intervals along x, at heights `y`."""
    for height, (_, row) in zip(y, table.iterrows(), strict=True):
        low, high = row[f"{column}_low"], row[f"{column}_high"]
        if np.isfinite(low):
            axes.plot([low, high], [height, height], color=color, linewidth=1.5)
        axes.plot(row[column], height, "o", color=color, markersize=5)


def table_main(table: pd.DataFrame) -> Figure:
    """AP by method, a panel per split: filled without, hollow with collision filter, where that differs."""
    splits = list(dict.fromkeys(table.split))
    methods = list(dict.fromkeys(table.method))
    figure, panels = plt.subplots(
        1, len(splits), figsize=(10, 0.33 * len(methods) + 1.6), sharey=True, sharex=True, layout="constrained"
    )
    for axes, split in zip(np.atleast_1d(panels), splits, strict=True):
        part = table[table.split == split].set_index(["method", "collision_filter"])
        for y, method in enumerate(methods):
            plain, filtered = part.loc[(method, False)], part.loc[(method, True)]
            _intervals(axes, pd.DataFrame([plain]), "ap", [y], _KINDS[_kind(method)])
            if abs(filtered.ap - plain.ap) > 0.05:
                axes.plot(filtered.ap, y, "o", markersize=5, markerfacecolor="white", color=_KINDS[_kind(method)])
        axes.set(title=f"{split} objects", xlabel="AP, 95 % over scenes", xlim=(0, 102))
    first = np.atleast_1d(panels)[0]
    first.set_yticks(range(len(methods)), methods)
    first.invert_yaxis()
    handles = [Line2D([], [], marker="o", linestyle="", color=c, label=name) for name, c in _KINDS.items()]
    hollow = Line2D([], [], marker="o", linestyle="", color="0.3", markerfacecolor="white", label="collision filter")
    figure.legend(handles=[*handles, hollow], loc="outside upper center", ncols=5, fontsize=8)
    return figure


def table_differences(table: pd.DataFrame) -> Figure:
    """Paired differences of AVN-RGB over all splits: all seeds together, and each."""
    part = table[table.split == "all"]
    names = list(dict.fromkeys(part.over))
    figure, axes = plt.subplots(figsize=(7.5, 0.42 * len(names) + 1.4), layout="constrained")
    for y, name in enumerate(names):
        rows = part[part.over == name]
        row: Any
        for row in rows.itertuples():
            pooled = row.net_seed == "all"
            at = y if pooled else y + 0.12 + 0.1 * int(row.net_seed)
            color = "0.6" if not pooled else {"higher": _COLORS[2], "lower": _COLORS[3]}.get(str(row.verdict), "0.3")
            axes.plot([row.low, row.high], [at, at], color=color, linewidth=2.5 if pooled else 1)
            axes.plot(row.difference, at, "o", color=color, markersize=6 if pooled else 3)
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="difference of AP, 95 % over scenes and seeds", title="AP of AVN-RGB + FAS less that of …")
    kinds = {"AVN-RGB is higher": _COLORS[2], "lower": _COLORS[3], "undecided": "0.3", "one seed": "0.6"}
    handles = [Line2D([], [], marker="o", color=color, label=name) for name, color in kinds.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=8)
    return figure


def _settings(table: pd.DataFrame, title: str) -> Figure:
    """AP by setting with intervals; at the right the change against the first, paired over scenes."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 0.4 * len(table) + 1.5), sharey=True, layout="constrained", width_ratios=(3, 2)
    )
    y = range(len(table))
    _intervals(left, table, "ap", list(y), _COLORS[0])
    changed = table.iloc[1:]
    _intervals(right, changed, "change", list(y)[1:], _COLORS[0])
    right.axvline(0, color="0.3", linewidth=0.8)
    left.set_yticks(list(y), table.setting.replace(_SETTINGS))
    left.invert_yaxis()
    left.set(title=title, xlabel="AP, 95 % over scenes")
    left.set_xlim(left=0)
    right.set(title="against the first row", xlabel="change of AP, paired, 95 %")
    return figure


def exhibit_preferences(table: pd.DataFrame) -> Figure:
    """AP by the search's preference and grid."""
    return _settings(table, "Which survivor is preferred")


def exhibit_margins(table: pd.DataFrame) -> Figure:
    """AP by clearance beyond the smallest free opening."""
    return _settings(table, "Clearance beyond the smallest opening")


def exhibit_masks(table: pd.DataFrame) -> Figure:
    """AP by workspace and decoding."""
    return _settings(table, "Where seeds start")


def exhibit_training_choices(table: pd.DataFrame) -> Figure:
    """AP by labels, loss and input."""
    return _settings(table, "How the net is trained")


def exhibit_classes(table: pd.DataFrame) -> Figure:
    """The oracle's AP by number of classes."""
    figure, axes = plt.subplots(figsize=(6.5, 3), layout="constrained")
    _intervals(axes, table, "ap", list(range(len(table))), _COLORS[7])
    labels = [f"{row.views} views × {row.angles} angles" for row in table.itertuples()]
    axes.set_yticks(range(len(table)), labels)
    axes.invert_yaxis()
    axes.set(title="A perfect heatmap of more classes", xlabel="AP of the oracle, 95 % over scenes")
    axes.set_xlim(left=0)
    return figure


def exhibit_orientations(table: pd.DataFrame) -> Figure:
    """Distribution of the angle to the class, with and without the jaws' symmetry, by number of classes."""
    names = {"canonical": "jaws interchangeable", "official": "released label code"}
    shown = table.assign(
        classes=table.views.astype(str) + " × " + table.angles.astype(str), rule=table.symmetry.map(names)
    )
    figure, axes = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
    for (classes, rule), part in shown.groupby(["classes", "rule"], sort=False):
        index = list(dict.fromkeys(shown.classes)).index(classes)
        values = np.sort(part.error_deg)
        line = "-" if rule == names["canonical"] else "--"
        axes.plot(
            values, np.arange(1, len(values) + 1) / len(values), line, color=_COLORS[index], label=f"{classes}, {rule}"
        )
    axes.set(xlabel="angle to the class (degrees)", ylabel="share of orientations below", xlim=(0, 90))
    axes.set_title("How far a class is from what it stands for")
    axes.legend(fontsize=8, title="views × angles, compared by", title_fontsize=8)
    return figure


def exhibit_training(table: pd.DataFrame) -> Figure:
    """Validation precision and loss along the training, a line per net."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    seeds = table.groupby("modality").net_seed.nunique().to_dict()
    for (modality, seed), part in table.groupby(["modality", "net_seed"], sort=False):
        color = _COLORS[0 if modality == "rgb" else 1]
        name = "color" if modality == "rgb" else modality
        label = f"{name}, seeds: {seeds[modality]}" if seed == table.net_seed.min() else None
        left.plot(part.iteration, part.validation_loss, "o-", color=color, markersize=3, alpha=0.8, label=label)
        right.plot(part.iteration, 100 * part.exact, "o-", color=color, markersize=3, alpha=0.8)
        right.plot(part.iteration, 100 * part.tolerant, "o--", color=color, markersize=3, alpha=0.8)
    left.set(title="Validation loss", xlabel="iteration", ylabel="cross-entropy per entry", yscale="log")
    right.set(title="Best 50 entries that are right", xlabel="iteration", ylabel="share (%)", ylim=(0, 105))
    styles = [
        Line2D([], [], color="0.3", linestyle=s, label=n) for s, n in (("-", "exact"), ("--", "within a cell, 30°"))
    ]
    right.legend(handles=styles, loc="center right")
    left.legend(fontsize=8)
    return figure


def table_heatmaps(table: pd.DataFrame) -> Figure:
    """Shares of right entries by predictor, a panel per measure."""
    names = {"exact": "entry is a label", "tolerant": "label within a cell, 30°", "on_object": "cell shows an object"}
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.4), sharey=True, layout="constrained")
    for axes, (column, title) in zip(panels, names.items(), strict=True):
        sns.barplot(table, y="predictor", x=column, hue="split", ax=axes, legend=column == "on_object")
        axes.set(title=title, xlabel="of the best 50 (%)", ylabel="", xlim=(0, 100))
    sns.move_legend(panels[2], "upper left", bbox_to_anchor=(1, 1), title=None)
    return figure


def table_labels(table: pd.DataFrame) -> Figure:
    """Positive share of the heatmap's entries by source."""
    figure, axes = plt.subplots(figsize=(7.5, 0.34 * len(table) + 1.3), layout="constrained")
    colors = [_COLORS[7] if source.startswith("paper") else _COLORS[0] for source in table.source]
    axes.barh(table.source, table.positive_percent, color=colors)
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()
    axes.set(xlabel="positive entries (%)", title="Nearly every entry is negative")
    return figure


def table_ceilings(table: pd.DataFrame) -> Figure:
    """AP of a perfect detector by number of objects."""
    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    axes.plot(table.objects, table.ap, "o-", color=_COLORS[7])
    for row in table.itertuples():
        axes.annotate(
            f"{row.ap:.1f}", (row.objects, row.ap), xytext=(6, -13), textcoords="offset points", fontsize=8, ha="left"
        )
    axes.set(xlabel="graspable objects in the scene", ylabel="AP of a perfect detector", ylim=(40, 105))
    axes.set_xlim(right=table.objects.max() + 0.8)
    axes.set_title("The metric wants five objects")
    return figure
