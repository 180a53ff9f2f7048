"""Drawings of whole workloads at paper scale: Figs. 10-15, the ablation, the calibration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

NAMES = {"llama3-15b": "15B", "codellama-34b": "34B", "llama2-70b": "70B"}
WORKLOADS = {"arxiv": "arXiv", "sharegpt": "ShareGPT"}
LINKS = {"pcie": "PCIe", "nvlink": "NVLink"}
SCHEDULES = {"tp4": "T4", "pp4": "P4", "p4→t4": "P4→T4", "tp2pp2+chunked": "T2P2, chunked prefill"}
POLICIES = {"reshard-prefill-first": "prefill first", "reshard-decode-first": "decode first"}
PHASES = {"prefill": "#0173b2", "mixed": "#cc78bc", "decode": "#de8f05", "other": "#949494"}


def rows_of(table: pd.DataFrame) -> Iterator[Any]:
    """Yield the table's rows, columns as attributes."""
    return table.itertuples()


def figure_10(table: pd.DataFrame) -> Figure:
    """Speed-up over the best static layout in each cell, with both labels."""
    devices = list(table.device.unique())
    figure, panels = plt.subplots(
        1, len(devices), figsize=(6 * len(devices), 4), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, name in zip(panels[0], devices, strict=True):
        part = table[table.device == name].copy()
        part["cell"] = part.workload.map(WORKLOADS) + "\n" + part.model.map(NAMES)
        sns.barplot(part, x="cell", y="speedup", hue="kind", ax=axes, legend=name == devices[0], errorbar=("pi", 100))
        first = part[part.seed == part.seed.min()]
        for index, cell in enumerate(part.cell.drop_duplicates()):
            mine = first[first.cell == cell]
            for offset, kind in ((-0.2, "static"), (0.2, "re-sharding")):
                row = mine[mine.kind == kind].iloc[0]
                axes.text(
                    index + offset, 0.03, row.layout, rotation=90, ha="center", va="bottom", fontsize=7, color="white"
                )
        axes.axhline(1, color="0.4", linewidth=0.8)
        axes.set(xlabel="", ylabel="throughput over the best static layout's")
        axes.set_title(name, loc="left")
    panels[0][0].legend(title=None, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8)
    return figure


def figure_11(table: pd.DataFrame) -> Figure:
    """Ours and the paper's normalized throughput, by workload."""
    ours = table.assign(series="simulated", value=table.normalized)
    paper = table.assign(series="paper", value=table.paper_normalized)
    both = pd.concat([ours, paper], ignore_index=True)
    both["bar"] = both.kind.map({"static": "vLLM-like", "re-sharding": "Seesaw"}) + "\n" + both.interconnect.map(LINKS)
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
    for axes, name in zip(panels, ("arxiv", "sharegpt"), strict=True):
        sns.barplot(
            both[both.workload == name],
            x="bar",
            y="value",
            hue="series",
            ax=axes,
            legend=name == "arxiv",
            errorbar=("pi", 100),
        )
        axes.set(title=WORKLOADS[name], xlabel="", ylabel="throughput over vLLM-like on NVLink")
    panels[0].legend(title=None)
    return figure


def figure_12(table: pd.DataFrame) -> Figure:
    """Stacked means by phase over the seeds; whiskers span the makespans."""
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    wide = table.pivot_table("seconds", "schedule", "phase", sort=False)[list(PHASES)]
    wide = wide.loc[:, (wide > 0).any()].rename(index=SCHEDULES)
    wide.plot.bar(stacked=True, ax=axes, color=[PHASES[str(phase)] for phase in wide], rot=0)
    axes.grid(axis="x", visible=False)
    total = table.groupby(["schedule", "seed"], sort=False).makespan_s.first().groupby("schedule", sort=False)
    middle = total.mean()
    whiskers = [middle - total.min(), total.max() - middle]
    axes.errorbar(range(len(middle)), middle, whiskers, fmt="none", ecolor="0.2", capsize=4)
    axes.set(xlabel="", ylabel="makespan (s)", ylim=(0, 1.05 * total.max().max()))
    axes.legend(title=None)
    return figure


def figure_13(table: pd.DataFrame) -> Figure:
    """Throughput over the best at each ratio."""
    figure, axes = plt.subplots(figsize=(8, 3.8), layout="constrained")
    sns.lineplot(table, x="ratio", y="normalized", hue="layout", style="layout", markers=True, dashes=False, ax=axes)
    axes.set(xlabel="output tokens over input tokens (3,000 in)", ylabel="throughput over the best", ylim=(0, 1.05))
    axes.legend(title=None, loc="lower right", fontsize=8)
    return figure


def figure_14(table: pd.DataFrame) -> Figure:
    """Throughput against the speed of all-reduces, logarithmic."""
    figure, axes = plt.subplots(figsize=(8.5, 4), layout="constrained")
    layouts = list(table.layout.unique())
    moving = [layout for layout in layouts if "→" in layout]  # re-sharding stands out: black and thick
    static = [layout for layout in layouts if "→" not in layout]
    colors = dict(zip(static, sns.color_palette("colorblind"), strict=False)) | dict.fromkeys(moving, "black")
    sns.lineplot(
        table, x="factor", y="requests_per_s", hue="layout", style="layout", size="layout", palette=colors, ax=axes,
        markers=True, dashes=False, errorbar=("pi", 100), sizes=dict.fromkeys(static, 1.5) | dict.fromkeys(moving, 3),
    )  # fmt: skip
    axes.set(xscale="log", xlabel="speed of all-reduces over PCIe's", ylabel="requests per second", ylim=(0, None))
    axes.set_xticks(sorted(table.factor.unique()), [f"{factor:g}" for factor in sorted(table.factor.unique())])
    axes.minorticks_off()
    axes.legend(title=None, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def figure_15(table: pd.DataFrame) -> Figure:
    """Stacked decode time per sequence, the batch as a line."""
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    parts = {"load_weights_ms": "load weights", "compute_ms": "compute", "all_reduce_ms": "all-reduce"}
    wide = table.set_index("layout")[list(parts)].fillna(0).rename(columns=parts)
    wide.plot.bar(stacked=True, ax=axes, color=["#029e73", "#0173b2", "#de8f05"], rot=0)
    axes.set(xlabel="", ylabel="decode step per sequence (ms)")
    axes.grid(axis="x", visible=False)
    for index, row in enumerate(rows_of(table)):
        if row.runs_out_of_memory:
            axes.text(index, 0.12, "out of\nmemory", ha="center", va="bottom", fontsize=8)
    right = axes.twinx()
    (line,) = right.plot(range(len(table)), table.batch, color="0.3", marker="o", label="sequences that fit (right)")
    right.set(ylabel="sequences that fit", ylim=(0, None))
    right.grid(visible=False)
    handles = [*axes.get_legend_handles_labels()[0], line]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.1, 1), ncols=4, fontsize=8)
    return figure


def exhibit_policies(table: pd.DataFrame) -> Figure:
    """Makespan over the best against host memory, with the two other policies as levels; whiskers span the seeds."""
    figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
    groups = table.groupby(["policy", "host_GiB"])
    means = groups.mean(numeric_only=True).assign(low=groups.over_best.min(), high=groups.over_best.max()).reset_index()
    means["transitions"] = means.transitions.round().astype(int)
    ours = means[means.policy == "seesaw"].sort_values("host_GiB")
    whiskers = [ours.over_best - ours.low, ours.high - ours.over_best]
    axes.errorbar(
        ours.host_GiB, ours.over_best, whiskers, marker="o", capsize=3, label="Seesaw (transitions at the points)"
    )
    for row in rows_of(ours):
        axes.annotate(
            f"{row.transitions}", (row.host_GiB, row.over_best), textcoords="offset points", xytext=(3, 6), fontsize=8
        )
    for policy, style in (("reshard-prefill-first", "--"), ("reshard-decode-first", ":")):
        other = means[means.policy == policy].iloc[0]
        axes.axhline(
            other.over_best, linestyle=style, color="0.3", label=f"{POLICIES[policy]} ({other.transitions} transitions)"
        )
    axes.set(xscale="log", xlabel="host memory for the cache (GiB)", ylabel="makespan over the best")
    axes.set_xticks(ours.host_GiB, [f"{size:g}" for size in ours.host_GiB])
    axes.minorticks_off()
    axes.set_ylim(0, 1.1 * means.high.max())
    axes.legend(fontsize=8)
    return figure


def exhibit_calibration(table: pd.DataFrame) -> Figure:
    """Predicted against measured layer times, fitted and held-out rows."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for axes, name in zip(panels, ("a100", "a40"), strict=True):
        part = table[table.device == name].assign(
            measured=lambda rows: 1e3 * rows.latency_s, predicted=lambda rows: 1e3 * rows.predicted_s,
            model=lambda rows: rows.model + " (" + rows.rows + ")", TP=lambda rows: rows.tp,
        )  # fmt: skip
        sns.scatterplot(part, x="measured", y="predicted", hue="model", style="TP", s=28, alpha=0.8, ax=axes)
        low, high = part.measured.min(), part.measured.max()
        axes.plot([low, high], [low, high], color="0.5", linewidth=0.8)
        axes.set(
            title=name.upper(),
            xscale="log",
            yscale="log",
            xlabel="measured (ms per layer)",
            ylabel="predicted (ms per layer)",
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.legend(fontsize=7)
    return figure
