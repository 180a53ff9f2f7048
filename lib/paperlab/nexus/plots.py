"""The drawing of each exhibit, under the name of the function in `experiments` that makes its table.

Here single iterations and the mechanism; schematics are drawn in `schematic_plots`, whole systems under load in
`serving_plots`, and both are found here too.
"""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from paperlab.nexus.schematic_plots import figure_1, figure_3, figure_7
from paperlab.nexus.serving_plots import (
    exhibit_controls,
    exhibit_penalties,
    exhibit_sweeps,
    figure_9,
    figure_10,
    figure_11,
    figure_12,
    figure_13,
)

__all__ = [
    "exhibit_controls",
    "exhibit_penalties",
    "exhibit_sweeps",
    "figure_1",
    "figure_2",
    "figure_3",
    "figure_4a",
    "figure_4b",
    "figure_5",
    "figure_6a",
    "figure_6b",
    "figure_7",
    "figure_8",
    "figure_9",
    "figure_10",
    "figure_11",
    "figure_12",
    "figure_13",
]


def figure_2(table: pd.DataFrame) -> Figure:
    """FLOPs per byte by operator; left of the ridge memory binds, right of it arithmetic does."""
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    shown = table.assign(operator=table.operator.str.replace("_", " "))
    sns.scatterplot(shown, x="flops_per_byte", y="operator", hue="phase", style="phase", s=90, ax=axes)
    axes.axvline(table.ridge.iloc[0], color="0.4", linestyle="--", linewidth=1)
    axes.legend(title=None, loc="upper left")
    axes.text(table.ridge.iloc[0] * 1.1, -0.4, "ridge of the L20", fontsize=8, color="0.4")
    axes.set(
        xscale="log", xlabel="FLOPs per byte (Qwen2.5-3B: a chunk of 2,048 tokens; 32 sequences decoding)", ylabel=""
    )
    return figure


def figure_4a(table: pd.DataFrame) -> Figure:
    """Mean latency and share of iterations by kind, ours by penalty of mixed batches, beside the paper's."""
    ours = table.assign(series="simulated, mixing costs x" + table.mixed_penalty.map("{:g}".format))
    paper = table.drop_duplicates("kind").assign(series="paper, Fig. 4a")
    paper = paper.assign(latency_s=paper.paper_latency_s, share_percent=paper.paper_share_percent)
    both = pd.concat([ours, paper], ignore_index=True)
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    sns.barplot(both, x="kind", y="latency_s", hue="series", ax=panels[0])
    sns.barplot(both, x="kind", y="share_percent", hue="series", ax=panels[1], legend=False)
    panels[0].set(xlabel="", ylabel="mean latency of an iteration (s)")
    panels[0].legend(title=None)
    panels[1].set(xlabel="", ylabel="share of iterations (%)")
    return figure


def figure_4b(table: pd.DataFrame) -> Figure:
    """Seconds by operator of a decode-only and a mixed iteration, on a logarithmic scale."""
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    shown = table.assign(operator=table.operator.str.replace("_", " "), milliseconds=1e3 * table.seconds)
    sns.barplot(shown, x="operator", y="milliseconds", hue="kind", ax=axes)
    axes.set(yscale="log", xlabel="", ylabel="time in one iteration (ms)")
    axes.legend(title=None)
    return figure


def figure_5(table: pd.DataFrame) -> Figure:
    """Normalized latency by phase beside the ideal 1/share, then each phase's operators; the slope family."""
    shown = table[table.family == "slope"]
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    whole = shown[(shown.operator == "all") & (shown.share >= 0.2)]
    sns.lineplot(whole, x="share", y="normalized", hue="phase", style="phase", markers=True, dashes=False, ax=panels[0])
    shares = whole.share.drop_duplicates()
    panels[0].plot(shares, 1 / shares, color="0.5", linestyle="--", label="ideal, 1/share")
    panels[0].set(xlabel="share of multiprocessors", ylabel="latency over the whole device's")
    panels[0].legend(title=None)
    for axes, phase in zip(panels[1:], ("prefill", "decode"), strict=True):
        part = shown[(shown.phase == phase) & (shown.operator != "all") & (shown.share >= 0.2)]
        part = part.assign(operator=part.operator.str.replace("_", " "), milliseconds=1e3 * part.latency_s)
        sns.lineplot(part, x="share", y="milliseconds", hue="operator", ax=axes)
        axes.set(title=phase, xlabel="share of multiprocessors", ylabel="forecast (ms)")
        axes.legend(title=None, fontsize=8)
    return figure


def figure_6a(table: pd.DataFrame) -> Figure:
    """Decode's forecast beside prefill, by form of contention, and the part of the bandwidth left to it."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    shown = table.assign(milliseconds=1e3 * table.latency_s)
    sns.lineplot(shown, x="prefill_context", y="milliseconds", hue="contention", style="contention", ax=panels[0])
    sns.lineplot(
        shown, x="prefill_context", y="bandwidth", hue="contention", style="contention", ax=panels[1], legend=False
    )
    panels[0].set(xlabel="stored tokens of the prefill chunk beside it", ylabel="decode iteration (ms)", ylim=(0, None))
    panels[1].set(
        xlabel="stored tokens of the prefill chunk beside it", ylabel="share of bandwidth left", ylim=(0, 1.05)
    )
    return figure


def figure_6b(table: pd.DataFrame) -> Figure:
    """Stored tokens that each prefill iteration attends to, over time."""
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    axes.plot(table.time_s, table.stored_tokens, linewidth=0.7, drawstyle="steps-post")
    axes.set(xlabel="time (s)", ylabel="stored tokens attended to\nby the prefill batch")
    return figure


def exhibit_control(table: pd.DataFrame) -> Figure:
    """R_p as searched and as applied over time above, the cost model's evaluations per search below."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 4.6), sharex=True, layout="constrained")
    above.plot(table.time_s, table.searched_percent, ".", markersize=2, color="0.6", label="searched")
    above.step(table.time_s, table.layout_percent, where="post", linewidth=1, label="in force")
    above.set(ylabel="prefill's share (%)", ylim=(0, 100))
    above.legend(loc="lower right", ncols=2)
    below.plot(table.time_s, table.evaluations, ".", markersize=2)
    below.set(xlabel="time (s)", ylabel="evaluations per search", yscale="log")
    return figure


def figure_8(table: pd.DataFrame) -> Figure:
    """Both lanes under each mechanism; a bar's height is the share of the device that its iteration holds."""
    mechanisms = list(table.mechanism.unique())
    figure, panels = plt.subplots(
        len(mechanisms), 1, figsize=(11, 1.9 * len(mechanisms)), sharex=True, layout="constrained"
    )
    colors = {"prefill": "#0173b2", "decode": "#de8f05"}
    for axes, mechanism in zip(panels, mechanisms, strict=True):
        for row in table[table.mechanism == mechanism].itertuples():
            low = 0.0 if row.lane == "decode" else 1.1
            span = [(row.start_s, row.end_s - row.start_s)]
            axes.broken_barh(span, (low, row.share), facecolor=colors[row.lane], edgecolor="white", linewidth=0.4)
        axes.set_yticks([0.5, 1.6], ["decode", "prefill"])
        axes.set(title=mechanism, ylim=(0, 2.15))
        axes.title.set_horizontalalignment("left")
        axes.title.set_x(0.0)
        axes.grid(visible=False)
    panels[-1].set_xlabel("time (s); full height is the whole device")
    return figure
