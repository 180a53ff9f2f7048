"""The drawing of each exhibit, under the name of the function in `experiments` that makes its table.

Here single iterations and the mechanism; schematics are drawn in `schematic_plots`, whole systems under load in
`serving_plots`, and both are found here too.
"""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from paperlab.nexus.schematic_plots import figure_1, figure_3, figure_7
from paperlab.nexus.serving_plots import (
    PALETTE,
    exhibit_controls,
    exhibit_penalties,
    exhibit_sweeps,
    figure_9,
    figure_10,
    figure_11,
    figure_12,
    figure_13,
)
from paperlab.serving.timeline import COLORS

__all__ = [
    "PALETTE",
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

# The cost model's operators in the order of a layer, as a reader calls them; a color each, the same in every panel.
OPERATORS = {
    "qkv": "QKV projection",
    "prefill_attention": "prefill attention",
    "decode_attention": "decode attention",
    "out": "output projection",
    "ffn": "feed-forward",
    "head": "vocabulary head",
    "fixed": "fixed cost of an iteration",
}
_OPERATOR_COLORS = dict(zip(OPERATORS.values(), sns.color_palette("colorblind", len(OPERATORS)), strict=True))
_CONTENTION = {"bytes": "split by bytes (published)", "rate": "split by bytes per second", "none": "no contention"}


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` with readable operators, as a category in the order of `OPERATORS`."""
    names = [name for key, name in OPERATORS.items() if key in set(table.operator)]
    return table.assign(operator=pd.Categorical(table.operator.map(OPERATORS), names))


def figure_2(table: pd.DataFrame) -> Figure:
    """FLOPs per byte by operator; left of the ridge memory binds, right of it arithmetic does."""
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    sns.scatterplot(_named(table), x="flops_per_byte", y="operator", hue="phase", style="phase", s=90, ax=axes)
    axes.axvline(table.ridge.iloc[0], color="0.4", linestyle="--", linewidth=1)
    axes.legend(title=None, loc="lower right")
    axes.text(table.ridge.iloc[0] * 1.1, -0.4, "ridge of the L20", fontsize=8, color="0.4")
    axes.set(
        xscale="log", xlabel="FLOPs per byte (Qwen2.5-3B: a chunk of 2,048 tokens; 32 sequences decoding)", ylabel=""
    )
    return figure


def figure_4a(table: pd.DataFrame) -> Figure:
    """Mean latency and share of iterations by kind, ours by penalty of mixed batches, beside the paper's."""
    ours = table.assign(series="simulated, mixing costs ×" + table.mixed_penalty.map("{:g}".format))
    paper = table.drop_duplicates("kind").assign(series="paper, Fig. 4a")
    paper = paper.assign(latency_s=paper.paper_latency_s, share_percent=paper.paper_share_percent)
    both = pd.concat([ours, paper], ignore_index=True)
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    sns.barplot(both, x="kind", y="latency_s", hue="series", ax=panels[0])
    sns.barplot(both, x="kind", y="share_percent", hue="series", ax=panels[1], legend=False)
    panels[0].set(xlabel="", ylabel="mean latency of an iteration (s)")
    panels[0].legend(title=None)
    panels[1].set(xlabel="", ylabel="share of iterations (%)", ylim=(0, 107))
    for bars in panels[1].containers:  # prefill alone is so rare that its bars cannot be seen
        panels[1].bar_label(bars, fmt="{:.2g}", fontsize=7, padding=1)
    return figure


def figure_4b(table: pd.DataFrame) -> Figure:
    """Seconds by operator of a decode-only and a mixed iteration, on a logarithmic scale."""
    figure, axes = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
    shown = _named(table).assign(milliseconds=1e3 * table.seconds)
    sns.scatterplot(shown, x="milliseconds", y="operator", hue="kind", style="kind", palette=COLORS, s=90, ax=axes)
    axes.set(xscale="log", xlabel="time in one iteration (ms)", ylabel="")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
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
    panels[0].set(title="whole phase", xlabel="share of multiprocessors", ylabel="latency over the whole device's")
    panels[0].legend(title=None)
    for axes, phase in zip(panels[1:], ("prefill", "decode"), strict=True):
        part = shown[(shown.phase == phase) & (shown.operator != "all") & (shown.share >= 0.2)]
        part = _named(part).assign(milliseconds=1e3 * part.latency_s)
        sns.lineplot(part, x="share", y="milliseconds", hue="operator", palette=_OPERATOR_COLORS, ax=axes)
        axes.set(
            title=f"{phase}, by operator", xlabel="share of multiprocessors", ylabel="forecast (ms)", ylim=(0, None)
        )
        axes.legend(title=None, fontsize=8)
    return figure


def figure_6a(table: pd.DataFrame) -> Figure:
    """Decode's forecast beside prefill, by form of contention, and the part of the bandwidth left to it."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    shown = table.assign(milliseconds=1e3 * table.latency_s, contention=table.contention.map(_CONTENTION))
    sns.lineplot(shown, x="prefill_context", y="milliseconds", hue="contention", style="contention", ax=panels[0])
    sns.lineplot(
        shown, x="prefill_context", y="bandwidth", hue="contention", style="contention", ax=panels[1], legend=False
    )
    panels[0].set(xlabel="stored tokens of the prefill chunk beside it", ylabel="decode iteration (ms)", ylim=(0, None))
    panels[1].set(
        xlabel="stored tokens of the prefill chunk beside it",
        ylabel="share of bandwidth left to decode",
        ylim=(0, 1.05),
    )
    panels[0].legend(title=None, loc="lower left")
    return figure


def figure_6b(table: pd.DataFrame) -> Figure:
    """Stored tokens that each prefill iteration attends to, a dot each, and their running median, over time."""
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    median = table.stored_tokens.rolling(51, center=True, min_periods=1).median()
    axes.plot(table.time_s, table.stored_tokens, ".", markersize=2, color="0.6", label="one iteration")
    axes.plot(table.time_s, median, linewidth=1.5, label="median of 51 iterations")
    axes.set(xlabel="time (s)", ylabel="stored tokens attended to\nby the prefill batch", ylim=(0, None))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return figure


def exhibit_control(table: pd.DataFrame) -> Figure:
    """R_p as searched and as applied over time above, the cost model's evaluations per search below."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 4.6), sharex=True, layout="constrained")
    above.plot(table.time_s, table.searched_percent, ".", markersize=2, color="0.6", label="found by the search")
    above.step(table.time_s, table.layout_percent, where="post", linewidth=1, label="in force")
    above.set(ylabel="prefill's share (%)", ylim=(0, 100))
    above.legend(loc="lower right", ncols=2)
    below.plot(table.time_s, table.evaluations, ".", markersize=2)
    below.set(xlabel="time (s)", ylabel="evaluations per search", yscale="log")
    most = table.evaluations.max()
    ticks = [tick for tick in (1, 2, 3, 5, 10, 20, 50, 100) if table.evaluations.min() <= tick <= 1.2 * most]
    below.set_yticks(ticks, [str(tick) for tick in ticks])
    below.minorticks_off()
    return figure


def figure_8(table: pd.DataFrame) -> Figure:
    """Both lanes under each mechanism; a bar's height is the share of the device that its iteration holds."""
    mechanisms = list(table.mechanism.unique())
    figure, panels = plt.subplots(
        len(mechanisms), 1, figsize=(11, 1.9 * len(mechanisms)), sharex=True, layout="constrained"
    )
    for axes, mechanism in zip(panels, mechanisms, strict=True):
        for row in table[table.mechanism == mechanism].itertuples():
            low = 0.0 if row.lane == "decode" else 1.1
            span = [(row.start_s, row.end_s - row.start_s)]
            axes.broken_barh(span, (low, row.share), facecolor=COLORS[row.lane], edgecolor="white", linewidth=0.4)
        for whole in (1.0, 2.1):
            axes.axhline(whole, color="0.6", linestyle=":", linewidth=0.8)
        axes.set_yticks([0.5, 1.6], ["decode", "prefill"])
        axes.set(title=mechanism, ylim=(0, 2.2))
        axes.title.set_horizontalalignment("left")
        axes.title.set_x(0.0)
        axes.grid(visible=False)
    panels[-1].set_xlabel("time (s); a bar as high as its dotted line has the whole device")
    return figure
