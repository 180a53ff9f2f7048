"""Drawings of the real engine's exhibits, under the names of the functions in `engine_experiments`."""

from __future__ import annotations

from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from paperlab.seesaw.engine.trace import Trace

PHASES = {"prefill": "#0173b2", "mixed": "#cc78bc", "decode": "#de8f05", "load": "#cc3311", "other": "#949494"}
PARTS = {"compute": "#0173b2", "network": "#de8f05", "wait": "#cccccc"}
POLICIES = {"seesaw": "Seesaw", "reshard-prefill-first": "prefill first", "reshard-decode-first": "decode first"}


def gantt(trace: Trace) -> Figure:
    """The whole run above, and below the end of the first prefill phase with its layers and their copies."""
    figure, (whole, part) = plt.subplots(2, 1, figsize=(10, 6.4), height_ratios=(6, 8), layout="constrained")
    trace.draw(whole)
    whole.set_title("the whole run", loc="left", fontsize=10, pad=24)
    turn = trace.log.switches[0]
    trace.draw(part, max(0.0, turn.start_s - 0.06), turn.end_s + 0.03, layers=True)
    part.set_title("around the first re-sharding, with layers", loc="left", fontsize=10, pad=24)
    return figure


def exhibit_phase_times(table: pd.DataFrame) -> Figure:
    """Stacked means by phase; whiskers are the least and largest makespan."""
    figure, axes = plt.subplots(figsize=(8, 3.8), layout="constrained")
    columns = {f"{phase}_s": phase for phase in PHASES}
    ways = table.groupby("way", sort=False)
    ways[list(columns)].mean().rename(columns=columns).plot.bar(
        stacked=True, ax=axes, color=list(PHASES.values()), rot=0
    )
    total = ways.makespan_s
    middle = total.mean()
    axes.errorbar(range(len(middle)), middle, [middle - total.min(), total.max() - middle], fmt="none", ecolor="0.2",
                  capsize=4, label="least to largest")  # fmt: skip
    axes.grid(axis="x", visible=False)
    axes.set(xlabel="", ylabel="makespan (s)")
    axes.legend(title=None, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure


def exhibit_breakdown(table: pd.DataFrame) -> Figure:
    """Shares of the ranks' time in each layout, one panel per phase."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    columns = {f"{part}_s": part for part in PARTS}
    for axes, phase in zip(panels, ("prefill", "decode"), strict=True):
        means = table[table.phase == phase].groupby("layout")[list(columns)].mean().rename(columns=columns)
        means.plot.bar(stacked=True, ax=axes, color=list(PARTS.values()), rot=0, legend=phase == "decode")
        axes.grid(axis="x", visible=False)
        axes.set(title=phase, xlabel="", ylabel="seconds, sum of both ranks", ylim=(0, 1.05 * means.sum(axis=1).max()))
    panels[1].legend(title=None, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure


def exhibit_reload(table: pd.DataFrame) -> Figure:
    """Seconds of a reload and of swapping against the batch, medians and every run."""
    figure, axes = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
    for column, label in {"reload_s": "reload of the weights", "swap_s": "swap-out and swap-in"}.items():
        medians = 1e3 * table.groupby("sequences")[column].median()
        (line,) = axes.plot(medians.index, medians, marker="o", label=label)
        axes.scatter(table.sequences, 1e3 * table[column], s=9, color=line.get_color(), alpha=0.6)
    axes.scatter([], [], s=9, color="0.4", label="one run (large: median)")
    ticks = sorted(table.sequences.unique())
    axes.set(xscale="log", xlabel="sequences of 128 tokens", ylabel="time of the slowest rank (ms)", ylim=(0, None))
    axes.set_xticks(ticks, ticks)
    axes.minorticks_off()
    axes.legend()
    return figure


def exhibit_schedulers(table: pd.DataFrame) -> Figure:
    """Makespan, transitions and decode batch against the host's tier, by scheduler."""
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    named = table.assign(policy=table.policy.map(POLICIES))
    labels = {"makespan_s": "makespan (s)", "transitions": "re-shardings", "decode_batch": "sequences per decode step"}
    for axes, (column, label) in zip(panels, labels.items(), strict=True):
        sns.lineplot(named, x="host_share", y=column, hue="policy", style="policy", markers=True, dashes=False, ax=axes,
                     errorbar=("pi", 100), legend=column == "makespan_s")  # fmt: skip
        axes.set(xlabel="host memory over what all prompts need", ylabel=label, ylim=(0, None))
        axes.set_xticks(sorted(table.host_share.unique()))
    panels[0].legend(title=None, fontsize=8)
    return figure


def exhibit_overlap(table: pd.DataFrame) -> Figure:
    """Makespan over the same round's without copies, by layout."""
    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    shown: Any = table[table.copies != "none"]
    sns.stripplot(shown, x="copies", y="ratio", hue="layout", dodge=True, size=7, ax=axes)
    axes.axhline(1, color="0.4", linewidth=0.8)
    axes.axhline(1 + table.copy_share.iloc[0], color="0.4", linewidth=0.8, linestyle=":")
    axes.text(-0.48, 1 + table.copy_share.iloc[0], "all copies waited for", fontsize=8, va="bottom", color="0.3")
    low, high = min(0.9, 0.95 * shown.ratio.min()), max(1.4, 1.05 * shown.ratio.max())
    axes.set(xlabel="", ylabel="makespan over that without copies", ylim=(low, high))
    axes.legend(title=None, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def exhibit_prediction(table: pd.DataFrame) -> Figure:
    """Simulated against measured makespans of unseen runs, with a band of 20 %."""
    figure, axes = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
    shown = table.rename(columns={"way": "layouts"})
    sns.scatterplot(shown, x="measured_s", y="simulated_s", hue="layouts", style="workload", s=50, ax=axes)
    high = 1.1 * max(table.measured_s.max(), table.simulated_s.max())
    axes.plot([0, high], [0, high], color="0.5", linewidth=0.8)
    axes.fill_between([0, high], [0, 0.8 * high], [0, 1.2 * high], color="0.9", zorder=0, label="±20 %")
    axes.set(xlim=(0, high), ylim=(0, high), xlabel="measured makespan (s)", ylabel="simulated makespan (s)")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
