"""The figure of each exhibit of `robust_experiments.py`, drawn from its table; same names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

_COLORS = sns.color_palette("colorblind")
_METHOD_COLORS = {  # as in `plots.py`: gray reads labels, blue is the net for color, orange and pink see depth alone
    "oracle heatmap + FAS": _COLORS[7], "labels (privileged)": _COLORS[7], "AVN-RGB + FAS": _COLORS[0],
    "AVN-depth + FAS": _COLORS[2], "antipodal sampler + FAS": _COLORS[1], "surface normal + FAS": _COLORS[4],
    "random orientation + FAS": _COLORS[3], "AVN-RGB, own workspace": "k",
}  # fmt: skip
_FAMILIES = {"gaussian": "Gaussian noise of depth", "missing": "Missing depth", "lateral": "Depth of neighbors"}
_NOTE = {"facecolor": "white", "edgecolor": "none", "pad": 1}
_UNITS = {
    "gaussian": "deviation at 0.5 m (mm)",
    "missing": "share lost at edges, dark and shining pixels",
    "lateral": "shift to neighbors (px)",
}


def exhibit_noise(table: pd.DataFrame) -> Figure:
    """Above AP, below the share that is lost, by family of noise; bands are 95 % over scenes."""
    families, methods = list(dict.fromkeys(table.family)), list(dict.fromkeys(table.method))
    figure, panels = plt.subplots(2, len(families), figsize=(11, 6.4), sharey="row", sharex="col", layout="constrained")
    for column, family in enumerate(families):
        for method in methods:
            color = _METHOD_COLORS[method]
            part = table[(table.family == family) & (table.method == method)]
            for axes, name in zip(panels[:, column], ("ap", "loss"), strict=True):
                if method.endswith("workspace"):  # lies on the net's line: thin, without a band of its own
                    axes.plot(part.level, part[name], ":", color=color, linewidth=1.5, zorder=3, label=method)
                    continue
                axes.plot(part.level, part[name], "o-", color=color, markersize=4, label=method)
                axes.fill_between(part.level, part[f"{name}_low"], part[f"{name}_high"], color=color, alpha=0.12)
        panels[0, column].set_title(_FAMILIES[family])
        panels[1, column].set_xlabel(_UNITS[family])
        panels[1, column].axhline(0, color="0.4", linewidth=0.8)
    panels[0, 0].set(ylabel="AP", ylim=(0, None))
    panels[1, 0].set_ylabel("AP lost against no noise (%)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=9)
    return figure


def table_noise_margin(table: pd.DataFrame) -> Figure:
    """AP and collisions along Gaussian noise, with and without clearance."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for color, (margin, part) in zip(_COLORS, table.groupby("margin_cm"), strict=False):
        label = f"smallest opening + {margin:g} cm"
        left.plot(part.level, part.ap, "o-", color=color, label=label)
        left.fill_between(part.level, part.ap_low, part.ap_high, color=color, alpha=0.12)
        right.plot(part.level, 100 * part.collided / part.judged, "o-", color=color, label=label)
    left.set(xlabel=_UNITS["gaussian"], ylabel="AP", title="A thicker cloud is a margin")
    right.set(xlabel=_UNITS["gaussian"], ylabel="judged grasps that collide (%)", title="Collisions")
    for axes in (left, right):
        axes.set_ylim(bottom=0)
    right.legend(fontsize=8)
    return figure


def _rates(table: pd.DataFrame, title: str) -> Figure:
    measures, families = list(dict.fromkeys(table.measure)), list(dict.fromkeys(table.family))
    figure, panels = plt.subplots(
        1, len(measures), figsize=(5.2 * len(measures) + 1.5, 3.6), sharey=True, squeeze=False, layout="constrained"
    )
    policies = list(dict.fromkeys(table.policy))
    for axes, measure in zip(panels[0], measures, strict=True):
        for shift, policy in enumerate(policies):
            part = table[(table.measure == measure) & (table.policy == policy)].set_index("family").loc[families]
            x = np.arange(len(families)) + 0.16 * (shift - (len(policies) - 1) / 2)
            ends = [part.rate - part.low, part.high - part.rate]
            axes.errorbar(x, part.rate, yerr=ends, fmt="o", color=_METHOD_COLORS[policy], capsize=3, label=policy)
        axes.set_xticks(range(len(families)), families)
        axes.set(title=f"{title}: {measure} (%)", ylim=(-3, 103), xlabel="objects")
    panels[0, -1].legend(loc="upper left", bbox_to_anchor=(1, 1), title="lines: 95 %, Wilson", title_fontsize=8)
    return figure


def table_lone_objects(table: pd.DataFrame) -> Figure:
    """Success rates on lone objects."""
    return _rates(table, "Lone objects")


def table_piles(table: pd.DataFrame) -> Figure:
    """Rates of clutter removal."""
    return _rates(table, "Piles")


def exhibit_score(table: pd.DataFrame) -> Figure:
    """Success rate by the label's score, with Wilson intervals."""
    figure, axes = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
    axes.errorbar(
        table.score, table.rate, yerr=[table.rate - table.low, table.high - table.rate],
        fmt="o-", color=_COLORS[0], capsize=3,
    )  # fmt: skip
    row: Any
    for row in table.itertuples():
        axes.text(row.score, 93, row.attempts, fontsize=7, ha="center", color="0.3", bbox=_NOTE)
    axes.set(xlabel="score of the label, 1.1 − friction (0: no force closure)", ylabel="picks that succeed (%)")
    axes.set(title="Better labels are picked more often (above: attempts)", ylim=(-4, 104))
    return figure


def table_timing(table: pd.DataFrame) -> Figure:
    """CPU milliseconds per frame by stage."""
    figure, axes = plt.subplots(figsize=(7.5, 3), layout="constrained")
    axes.barh(table.stage, 1000 * table.cpu_s, color=_COLORS[0])
    row: Any
    for y, row in enumerate(table.itertuples()):
        given = row.stage.split(": ")[1].split(" to ")[0]  # "search: seeds to grasps" counts seeds
        text = f" {1000 * row.cpu_s:.0f} ms" + (f", {row.items:.0f} {given}" if row.items > 1 else "")
        axes.text(1000 * row.cpu_s, y, text, va="center", fontsize=8)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.25)
    axes.set(xlabel="CPU time per frame on one core (ms)", title="Where the time goes")
    return figure
