"""Figures of sensitivity and accuracy, and of plans that ran; same names as in `experiments.py`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from paperlab.mist.baselines import systems
from paperlab.mist.gantt import draw_gantt
from paperlab.mist.plots import SYSTEM_COLORS
from paperlab.mist.runtime.trace import LANES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = sns.color_palette("colorblind")
# A span's label -> color and name in the legend, in its order: what is computed, then what is moved.
_LABELS = {
    "forward": (_COLORS[0], "forward"), "backward": (_COLORS[1], "backward"), "recompute": (_COLORS[5], "recompute"),
    "zero gradients": (_COLORS[6], "zeroing gradients"), "adam": ("0.3", "Adam"),
    "exchange": ("0.6", "exchange with the other stage"),
    "all-gather": (_COLORS[7], "all-gather"), "reduce": (_COLORS[9], "gradient reduction"),
    "weights": (_COLORS[2], "weights moved"), "gradients": (_COLORS[3], "gradients moved"),
    "activations": (_COLORS[4], "activations moved"), "optimizer": (_COLORS[8], "optimizer states moved"),
}  # fmt: skip
_OFFLOADED = {"wo": "weights", "go": "gradients", "oo": "optimizer states", "ao": "activations"}
_FAMILIES = {"gpt": "GPT", "llama": "Llama", "falcon": "Falcon"}


def _sensitivity(table: pd.DataFrame, x: str, xlabel: str) -> Figure:
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for system, part in table.groupby("system", sort=False):
        forced = system == systems.MEGATRON_FORCED  # often equal to the free row: drawn wide, so that both are seen
        width, size = (4.0, 10) if forced else (1.5, 6)
        axes.plot(part[x], part.sequences_per_s, "o-", color=SYSTEM_COLORS[str(system)], label=system,
                  linewidth=width, markersize=size)  # fmt: skip
    values = sorted(table[x].unique())
    axes.set_xscale("log")
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()
    axes.set(xlabel=xlabel, ylabel="sequences/s, predicted")
    axes.set_ylim(0, 1.15 * table.sequences_per_s.max())
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    return figure


def exhibit_layers(table: pd.DataFrame) -> Figure:
    """Predicted throughput against depth."""
    figure = _sensitivity(table, "layers", "layers")
    figure.axes[0].set_title("GPT, hidden size 5,120, on 32 L4")
    return figure


def exhibit_batch(table: pd.DataFrame) -> Figure:
    """Predicted throughput against the global batch."""
    figure = _sensitivity(table, "global_batch", "sequences per iteration")
    figure.axes[0].set_title(f"{table.model.iloc[0].removeprefix('mist-').upper()} on 32 L4")
    return figure


def exhibit_memory_accuracy(table: pd.DataFrame) -> Figure:
    """Predicted against measured peaks of stages on L4."""
    figure, axes = plt.subplots(figsize=(6.5, 4), layout="constrained")
    shown = table.assign(
        measured=table.measured_MiB / 1024, predicted=table.predicted_MiB / 1024,
        model=table.family.map(_FAMILIES) + ", " + table.attention + " attention",
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
    models = table.family.map(_FAMILIES) + "-" + table["size"].str.upper()
    labels = models + ", " + table.attention + " attention: " + table.plan
    columns = {"error": "raw", "error_shifted": "mean error subtracted", "error_scaled": "mean ratio divided out"}
    for index, (column, label) in enumerate(columns.items()):
        axes.barh(np.arange(len(table)) + 0.27 * index, 100 * table[column], 0.27, color=_COLORS[index], label=label)
    axes.set_yticks(np.arange(len(table)) + 0.27, labels, fontsize=8)
    axes.grid(axis="y", visible=False)
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set(xlabel="predicted over measured, less one (%)")
    axes.invert_yaxis()
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    return figure


def exhibit_executed_memory(table: pd.DataFrame) -> Figure:
    """Measured against predicted device peaks of plans that ran here."""
    figure, axes = plt.subplots(figsize=(6.5, 4), layout="constrained")
    axes.plot(table.measured_MiB, table.published_MiB, "x", color=_COLORS[1], markersize=7, label="published formula")
    axes.plot(table.measured_MiB, table.predicted_MiB, "o", color=_COLORS[0], markersize=7, markerfacecolor="none",
              label="first forward pass told apart")  # fmt: skip
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
    axes.set_yticks(np.arange(len(table)) + 0.2, [_offload(plan) for plan in table.plan], fontsize=8)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="device peak while the optimizer runs (MiB)")
    axes.margins(x=0.1)
    axes.invert_yaxis()
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1), ncols=3)
    return figure


def _offload(plan: str) -> str:
    """Return in words what tells plans of the optimizer step apart: replicas, ZeRO's level, what is offloaded."""
    sizes = dict(re.findall(r"\b([A-Z]+)(\d+)", plan))
    shares = ", ".join(
        f"{float(share):.0%} of {_OFFLOADED[kind]}" for kind, share in re.findall(r"\b(\wo)([\d.]+)", plan)
    )
    where = "one rank" if sizes["DP"] == "1" else f"{sizes['DP']} replicas, ZeRO-{sizes['Z']}"
    return f"{where}, offloaded:\n{shares}"


def exhibit_lanes(table: pd.DataFrame) -> Figure:
    """One iteration on the first rank: a row per lane, a color per kind of work."""
    own = table[table["rank"] == 0]
    own = own.assign(start_s=own.start_s - own.start_s.min(), stop_s=own.stop_s - own.start_s.min())
    lanes = [lane for lane in LANES if lane in set(own.lane)]
    figure, axes = plt.subplots(figsize=(11, 0.5 * len(lanes) + 1.4), layout="constrained")
    for label, (color, name) in _LABELS.items():
        part = own[own.label == label]
        if part.empty:
            continue
        axes.barh(
            [lanes.index(lane) for lane in part.lane], 1e3 * (part.stop_s - part.start_s), left=1e3 * part.start_s,
            color=color, label=name, height=0.8, linewidth=0,
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
        "compute_s": "matrix products alone", "copy_s": "copies alone",
        "serial_s": "both, one after the other", "overlapped_s": "both, side by side",
    }  # fmt: skip
    long = table.melt(id_vars="repeat", value_vars=list(names), var_name="what", value_name="seconds")
    long = long.assign(what=long.what.map(names), ms=1e3 * long.seconds)
    figure, axes = plt.subplots(figsize=(6.5, 3), layout="constrained")
    sns.stripplot(long, y="what", x="ms", ax=axes, color=_COLORS[0], jitter=False, size=7, alpha=0.7)
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
