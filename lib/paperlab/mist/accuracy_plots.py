"""Figures of sensitivity and accuracy, and of plans that ran; same names as in `experiments.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from paperlab.mist.gantt import draw_gantt
from paperlab.mist.plots import SYSTEM_COLORS
from paperlab.mist.runtime.trace import LANES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = sns.color_palette("colorblind")
_LABEL_COLORS = {
    "forward": _COLORS[0], "backward": _COLORS[1], "recompute": _COLORS[5], "weights": _COLORS[2],
    "gradients": _COLORS[3], "zero gradients": _COLORS[6], "activations": _COLORS[4], "optimizer": _COLORS[8],
    "adam": "0.3", "exchange": "0.6", "all-gather": _COLORS[7], "reduce": _COLORS[9],
}  # fmt: skip


def _sensitivity(table: pd.DataFrame, x: str, xlabel: str) -> Figure:
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for system, part in table.groupby("system", sort=False):
        axes.plot(part[x], part.sequences_per_s, "o-", color=SYSTEM_COLORS[str(system)], label=system)
    values = sorted(table[x].unique())
    axes.set_xscale("log")
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()
    axes.set(xlabel=xlabel, ylabel="sequences/s, predicted", title=f"{table.model.iloc[0]} on L4")
    axes.set_ylim(0, 1.15 * table.sequences_per_s.max())
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    return figure


def exhibit_layers(table: pd.DataFrame) -> Figure:
    """Predicted throughput against depth."""
    figure = _sensitivity(table, "layers", "layers")
    figure.axes[0].set_title("GPT with hidden size 5120 on 32 L4, 512 sequences")
    return figure


def exhibit_batch(table: pd.DataFrame) -> Figure:
    """Predicted throughput against the global batch."""
    return _sensitivity(table, "global_batch", "sequences per iteration")


def exhibit_memory_accuracy(table: pd.DataFrame) -> Figure:
    """Predicted against measured peaks of stages on L4."""
    figure, axes = plt.subplots(figsize=(6.5, 4), layout="constrained")
    shown = table.assign(
        measured=table.measured_MiB / 1024, predicted=table.predicted_MiB / 1024,
        model=table.family + ", " + table.attention + " attention",
    )  # fmt: skip
    sns.scatterplot(shown, x="measured", y="predicted", hue="model", style="model", ax=axes, s=45)
    _diagonal(axes, 0.04, "±4 %")
    axes.set(xlabel="measured on L4 by the artifact (GiB)", ylabel="predicted (GiB)", title="Peaks of 26 stages")
    axes.legend(title=None, loc="upper left", fontsize=8)
    return figure


def _diagonal(axes: Axes, band: float, label: str) -> None:
    """Draw equality and a relative band around it."""
    low, high = (f(axes.get_xlim()[i], axes.get_ylim()[i]) for i, f in enumerate((min, max)))
    line = np.linspace(low, high, 100)
    axes.plot(line, line, color="0.3", linewidth=0.8)
    axes.fill_between(line, (1 - band) * line, (1 + band) * line, color="0.85", zorder=0, label=label)
    axes.set(xlim=(low, high), ylim=(low, high))


def exhibit_time_accuracy(table: pd.DataFrame) -> Figure:
    """Error of predicted iteration times on L4, raw and after the artifact's shift, a row per run."""
    figure, axes = plt.subplots(figsize=(8.5, 4.4), layout="constrained")
    labels = [f"{row.family} {row.size}, {row.attention}: {row.plan}" for row in table.itertuples()]
    columns = {"error": "raw", "error_shifted": "mean error subtracted", "error_scaled": "mean ratio divided out"}
    for index, (column, label) in enumerate(columns.items()):
        axes.barh(np.arange(len(table)) + 0.27 * index, 100 * table[column], 0.27, color=_COLORS[index], label=label)
    axes.set_yticks(np.arange(len(table)) + 0.27, labels, fontsize=8)
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set(xlabel="predicted over measured, less one (%)")
    axes.invert_yaxis()
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    return figure


def exhibit_executed_memory(table: pd.DataFrame) -> Figure:
    """Measured against predicted device peaks of plans that ran here."""
    figure, axes = plt.subplots(figsize=(6.5, 4), layout="constrained")
    axes.plot(table.measured_MiB, table.published_MiB, "x", color=_COLORS[1], label="published formula")
    axes.plot(table.measured_MiB, table.predicted_MiB, "o", color=_COLORS[0], markersize=5, label="first pass apart")
    _diagonal(axes, 0.03, "±3 %")
    axes.set(xlabel="measured (MiB)", ylabel="predicted (MiB)", title=f"Device peaks of {table.plan.nunique()} plans")
    axes.legend(loc="upper left")
    return figure


def exhibit_decoupled(table: pd.DataFrame) -> Figure:
    """Device peak while the optimizer runs, all modules at once and one by one."""
    figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    for index, (column, label) in enumerate(
        (("monolithic_MiB", "all modules at once"), ("decoupled_MiB", "module by module"))
    ):
        bars = axes.barh(np.arange(len(table)) + 0.4 * index, table[column], 0.4, color=_COLORS[1 - index], label=label)
        axes.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
    predicted = table.monolithic_MiB - table.predicted_saved_MiB
    axes.plot(predicted, np.arange(len(table)) + 0.4, "k|", markersize=14, markeredgewidth=2, label="predicted")
    axes.set_yticks(np.arange(len(table)) + 0.2, table.plan, fontsize=8)
    axes.set(xlabel="device peak while the optimizer runs (MiB)")
    axes.margins(x=0.1)
    axes.invert_yaxis()
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1), ncols=3)
    return figure


def exhibit_lanes(table: pd.DataFrame) -> Figure:
    """One iteration on the first rank: a row per lane, a color per kind of work."""
    own = table[table["rank"] == 0]
    own = own.assign(start_s=own.start_s - own.start_s.min(), stop_s=own.stop_s - own.start_s.min())
    lanes = [lane for lane in LANES if lane in set(own.lane)]
    figure, axes = plt.subplots(figsize=(11, 0.5 * len(lanes) + 1.4), layout="constrained")
    for label, part in own.groupby("label", sort=False):
        axes.barh(
            [lanes.index(lane) for lane in part.lane], 1e3 * (part.stop_s - part.start_s), left=1e3 * part.start_s,
            color=_LABEL_COLORS[str(label)], label=label, height=0.8, linewidth=0,
        )  # fmt: skip
    axes.set_yticks(range(len(lanes)), lanes)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("milliseconds")
    axes.set_title("First of two stages, half of everything offloaded: one iteration as it ran", loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1.05), fontsize=8)
    return figure


def exhibit_pipeline(table: pd.DataFrame) -> Figure:
    """1F1B as it ran, above the simulated order of passes of the same lengths."""
    figure, panels = plt.subplots(2, 1, figsize=(10, 4), sharex=True, layout="constrained")
    for axes, source in zip(panels, ("measured", "simulated"), strict=True):
        part = table[table.source == source]
        draw_gantt(axes, part, 1e3)
        axes.set_title(f"{source}: {1e3 * part.end_s.max():.0f} ms", loc="left")
    panels[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    panels[1].set_xlabel("milliseconds")
    return figure


def exhibit_overlap(table: pd.DataFrame) -> Figure:
    """Times of a product loop and a copy loop, alone and together; a point per repeat."""
    names = {
        "compute_s": "products alone", "copy_s": "copies alone",
        "serial_s": "both, one lane", "overlapped_s": "both, two lanes",
    }  # fmt: skip
    long = table.melt(id_vars="repeat", value_vars=list(names), var_name="what", value_name="seconds")
    long = long.assign(what=long.what.map(names), ms=1e3 * long.seconds)
    figure, axes = plt.subplots(figsize=(6.5, 3), layout="constrained")
    sns.stripplot(long, y="what", x="ms", hue="what", ax=axes, legend=False, palette=_COLORS[:4], jitter=False, size=7)
    axes.set(xlabel="milliseconds", ylabel="", xlim=(0, None))
    return figure


def exhibit_executed_times(table: pd.DataFrame) -> Figure:
    """Measured against predicted iteration times of plans that ran here, by kind of parallelism."""
    kind = ["TP2" if "TP2" in plan else "PP2" if "PP2" in plan else "DP2" for plan in table.plan]
    kind = [f"{k}, offload" if "o" in plan.split("C")[-1] else k for k, plan in zip(kind, table.plan, strict=True)]
    figure, axes = plt.subplots(figsize=(6.5, 4), layout="constrained")
    shown = table.assign(kind=kind, measured=1e3 * table.measured_s, predicted=1e3 * table.predicted_s)
    sns.scatterplot(shown, x="measured", y="predicted", hue="kind", style="kind", ax=axes, s=50)
    _diagonal(axes, 0.1, "±10 %")
    axes.set(xlabel="measured here (ms)", ylabel="predicted (ms)", title="Iterations of two-rank plans")
    axes.legend(title=None, loc="upper left", fontsize=8)
    return figure
