"""The figure of each exhibit, drawn from its table; same names as in `experiments.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from paperlab.across.fleet import CHUNKED, NEXUS, SEESAW, STATIC, SYSTEMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_C = sns.color_palette("colorblind")
ARM = {"plain": "0.6", "Tempo": _C[0]}
PLANNER = {"Mist": _C[0], "Megatron-LM-like": _C[1]}
SYSTEM = {NEXUS: _C[0], CHUNKED: "0.5", SEESAW: _C[1], STATIC: _C[2]}
_FAMILIES = {"gpt": "GPT", "falcon": "Falcon", "llama": "Llama"}
MARKER = {NEXUS: "o", CHUNKED: "s", SEESAW: "^", STATIC: "D"}
METRICS = {
    "normalized_latency_mean_s": "mean normalized latency (s/token)", "ttft_mean_s": "mean time to first token (s)",
    "tbt_p99_s": "P99 time between tokens (s)",
}  # fmt: skip


def exhibit_layer_bytes(table: pd.DataFrame) -> Figure:
    """A pair of bars per model and attention: KiB per token and layer, with the share that Tempo saves."""
    figure, axes = plt.subplots(figsize=(7.5, 0.55 * len(table) + 1.3), layout="constrained")
    at = np.arange(len(table))
    for offset, arm, column in ((0, "plain", "plain_KiB"), (0.38, "Tempo", "tempo_KiB")):
        axes.barh(at + offset, table[column], 0.38, color=ARM[arm], label=arm)
    for y, kept, share in zip(at, table.tempo_KiB, table.saved_share, strict=True):
        axes.text(kept + 1, y + 0.38, f"−{100 * share:.0f} %" if share else "the same", va="center", fontsize=9)
    labels = [f"{_FAMILIES[str(row.family)]}, {row.attention} attention" for row in table.itertuples()]
    axes.set_yticks(at + 0.19, labels)
    axes.set(
        xlabel="kept per token and layer (KiB, fp16)",
        title=f"What a layer of {table['size'].iloc[0].upper()} keeps for backward, {table.seq_len.iloc[0]:,} tokens",
    )
    axes.grid(visible=False, axis="y")
    axes.set_xlim(right=1.2 * table.plain_KiB.max())
    axes.invert_yaxis()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def exhibit_plans(table: pd.DataFrame) -> Figure:
    """Gain of Tempo's operators per workload, under either planner; left of the line plain is faster."""
    tempo = table[table.operators == "Tempo"]
    rows = list(dict.fromkeys(zip(tempo.cluster, tempo["size"], tempo.seq_len, tempo.attention, strict=True)))
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(rows) + 1.6), layout="constrained")
    for y, key in enumerate(rows):
        part = tempo[(tempo.cluster == key[0]) & (tempo["size"] == key[1]) & (tempo.seq_len == key[2])]
        part = part[part.attention == key[3]].set_index("planner").gain
        axes.plot(100 * (part - 1), [y] * len(part), color="0.8", zorder=1)
        for planner, gain in part.items():
            # Equal gains are common: a small dot inside a ring shows both.
            size, face = (30, PLANNER["Mist"]) if planner == "Mist" else (100, "none")
            axes.scatter(
                100 * (gain - 1), y, s=size, facecolor=face, edgecolor=PLANNER[str(planner)], linewidth=2,
                label=planner if not y else None,
            )  # fmt: skip
    axes.axvline(0, color="0.3", linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{c.upper()}, {s.upper()}, {q:,} tokens, {a} attention" for c, s, q, a in rows])
    axes.set(
        xlabel="throughput gained by Tempo's operators (%)", title="GPT: best plan with Tempo over best plan without"
    )
    axes.set_ylim(len(rows) - 0.5, -0.5)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def exhibit_memory(table: pd.DataFrame) -> Figure:
    """Throughput and gain over memory per GPU; a missing point does not fit."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4), layout="constrained")
    for planner, color in PLANNER.items():
        for arm, style in (("plain", "--"), ("Tempo", "-")):
            part = table[(table.planner == planner) & (table.operators == arm) & (table.sequences_per_s > 0)]
            left.plot(
                part.capacity_GiB, part.sequences_per_s, style, color=color, marker="o", label=f"{planner}, {arm}",
                markersize=8 if arm == "plain" else 4, markerfacecolor="white" if arm == "plain" else color,
            )  # fmt: skip
        part = table[(table.planner == planner) & (table.operators == "Tempo")].dropna(subset="gain")
        right.plot(part.capacity_GiB, 100 * (part.gain - 1), color=color, marker="o", label=planner)
    right.axhline(0, color="0.3", linewidth=1)
    left.set(xlabel="memory per GPU (GiB)", ylabel="sequences/s (predicted)", ylim=(0, None), title="GPT-7B on 8 L4")
    right.set(xlabel="memory per GPU (GiB)", ylabel="gain of Tempo (%)", title="What the saved bytes are worth")
    left.legend(loc="lower right")
    right.legend()
    return figure


def exhibit_overhead(table: pd.DataFrame) -> Figure:
    """Gain under Mist over the extra share of compute, a line per memory size; below the line plain is faster."""
    figure, axes = plt.subplots(layout="constrained")
    tempo = table[(table.operators == "Tempo") & (table.planner == "Mist")].dropna(subset="gain")
    sizes = sorted(set(tempo.capacity_GiB))
    for color, (capacity, part) in zip(
        sns.color_palette("viridis", len(sizes)), tempo.groupby("capacity_GiB"), strict=True
    ):
        axes.plot(100 * part.overhead, 100 * (part.gain - 1), marker="o", color=color, label=f"{capacity:g}")
    axes.axhline(0, color="0.3", linewidth=1)
    axes.set(xlabel="extra compute of a layer with Tempo (%)", ylabel="gain of Tempo (%)")
    axes.set_title("GPT-7B on 8 L4 under Mist: how much overhead Tempo may have")
    axes.legend(title="GiB per GPU", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def exhibit_loads(table: pd.DataFrame) -> Figure:
    """Three latencies over load, a row per model; bands span the seeds."""
    models = list(dict.fromkeys(table.model))
    figure, grid = plt.subplots(
        len(models), len(METRICS), figsize=(12, 3.5 * len(models)), squeeze=False, layout="constrained"
    )
    for row, model in zip(grid, models, strict=True):
        part = table[table.model == model]
        for axes, (metric, label) in zip(row, METRICS.items(), strict=True):
            _curves(axes, part, metric)
            axes.set(yscale="log", xlabel="load (1: Nexus's offline throughput)", ylabel=label)
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
        row[0].set_title(f"{model}, {part.gpus.iloc[0]} × {part.device.iloc[0]}, {part.lengths.iloc[0]}", loc="left")
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4)
    return figure


def _curves(axes: Axes, table: pd.DataFrame, metric: str) -> None:
    for system in SYSTEMS:
        found = table[table.system == system].groupby("load")[metric].agg(["mean", "min", "max"])
        axes.plot(found.index, found["mean"], color=SYSTEM[system], marker=MARKER[system], label=system)
        axes.fill_between(found.index, found["min"], found["max"], color=SYSTEM[system], alpha=0.2, linewidth=0)


def exhibit_offline(table: pd.DataFrame) -> Figure:
    """Throughput with all requests there, a panel per model; lines span the seeds."""
    models = list(dict.fromkeys(table.model))
    figure, grid = plt.subplots(1, len(models), figsize=(4.6 * len(models), 3.8), squeeze=False, layout="constrained")
    for axes, model in zip(grid[0], models, strict=True):
        part = table[table.model == model]
        found = part.groupby("system").requests_per_s.agg(["mean", "min", "max"]).loc[list(SYSTEMS)]
        layouts = part.groupby("system").layout.first()
        errors = [found["mean"] - found["min"], found["max"] - found["mean"]]
        axes.bar(
            [f"{s}\n{layouts[s]}" for s in SYSTEMS], found["mean"], yerr=errors, color=[SYSTEM[s] for s in SYSTEMS]
        )
        axes.grid(visible=False, axis="x")
        axes.set(ylabel="requests/s (simulated)")
        axes.set_title(f"{model}, {part.gpus.iloc[0]} × {part.device.iloc[0]}", loc="left")
        axes.tick_params(axis="x", labelsize=7)
    return figure


def exhibit_map(table: pd.DataFrame) -> Figure:
    """Throughput over Nexus's by output length, a panel per model; layouts stand where Seesaw's change."""
    models = list(dict.fromkeys(table.model))
    figure, grid = plt.subplots(
        1, len(models), figsize=(5 * len(models), 4), squeeze=False, sharey=True, layout="constrained"
    )
    for axes, model in zip(grid[0], models, strict=True):
        part = table[table.model == model]
        base = part[part.system == NEXUS].set_index("output_tokens").requests_per_s
        for system in SYSTEMS:
            mine = part[part.system == system].set_index("output_tokens")
            axes.plot(mine.index, mine.requests_per_s / base, color=SYSTEM[system], marker=MARKER[system], label=system)
            if system == SEESAW:
                for tokens, row in mine[mine.layout != mine.layout.shift()].iterrows():
                    at = (float(str(tokens)), row.requests_per_s / base[tokens])
                    away = (0, -15 if tokens == mine.index[0] else 9)
                    axes.annotate(row.layout, at, xytext=away, textcoords="offset points", fontsize=8, ha="center")
        axes.set(xscale="log", xlabel="output tokens (prompts of 2,000)")
        axes.set_xticks(base.index, [f"{tokens:g}" for tokens in base.index])
        axes.set_xticks([], minor=True)
        axes.margins(x=0.15, y=0.1)
        axes.set_title(f"{model}, {part.gpus.iloc[0]} × {part.device.iloc[0]}", loc="left")
    grid[0][0].set_ylabel("throughput over Nexus's best replicas")
    grid[0][0].legend(fontsize=8)
    return figure


def exhibit_capacity(table: pd.DataFrame) -> Figure:
    """Tokens of keys and values that fit, as a heat map over both bit widths."""
    found = table.assign(thousands=table.kv_tokens / 1e3).pivot_table("thousands", "w_bits", "kv_bits")
    return _heat_map(
        found, "thousand cached tokens that fit", f"{table.model.iloc[0]} on one {table.device.iloc[0]}", ".0f"
    )


def exhibit_bits(table: pd.DataFrame) -> Figure:
    """Throughput over that of 16 and 16 bits, as a heat map over both bit widths."""
    fp16 = table[table.arithmetic == "fp16"]
    rate: Any = fp16.groupby(["w_bits", "kv_bits"]).requests_per_s.mean().unstack()
    title = f"{table.model.iloc[0]} on one {table.device.iloc[0]}, all requests at once"
    return _heat_map(rate / rate.loc[16, 16], "throughput over 16 / 16 bits", title, ".2f")


def _heat_map(table: pd.DataFrame, label: str, title: str, digits: str) -> Figure:
    figure, axes = plt.subplots(figsize=(5.6, 4), layout="constrained")
    ordered = table.sort_index(ascending=False).sort_index(axis=1, ascending=False)
    sns.heatmap(ordered, annot=True, fmt=digits, cmap="viridis", cbar_kws={"label": label}, ax=axes)
    axes.set(xlabel="bits of keys and values", ylabel="bits of weights")
    axes.tick_params(axis="y", rotation=0)
    axes.set_title(title, fontsize=10)
    return figure


def exhibit_bits_latency(table: pd.DataFrame) -> Figure:
    """Time to first token and between tokens at a low rate, in four corners of the grid."""
    figure, grid = plt.subplots(1, 2, figsize=(8.5, 3.4), layout="constrained")
    table = table.assign(bits=[f"{w:g} / {kv:g}" for w, kv in zip(table.w_bits, table.kv_bits, strict=True)])
    for axes, column, label in zip(grid, ("ttft_mean_s", "tbt_mean_s"), ("first token", "between tokens"), strict=True):
        found = 1e3 * table.groupby("bits", sort=False)[column].mean()
        bars = axes.bar(found.index, found, color=_C[0])
        axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=8)
        axes.grid(visible=False, axis="x")
        axes.margins(y=0.12)
        axes.set(xlabel="bits of weights / cache", ylabel=f"mean time {'to ' if 'first' in label else ''}{label} (ms)")
    title = f"{table.model.iloc[0]} on one {table.device.iloc[0]}, {table.rate_per_s.iloc[0]:g} requests/s"
    figure.suptitle(title, fontsize=11, fontweight="bold")
    return figure
