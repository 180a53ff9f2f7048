"""The figure of each of the tuner's exhibits, drawn from its table; same names as in `experiments.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from paperlab.mist.baselines import systems
from paperlab.mist.gantt import draw_gantt
from paperlab.mist.studies.end_to_end import MIST

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = sns.color_palette("colorblind")
SYSTEM_COLORS = {
    systems.MEGATRON_FORCED: "0.8", systems.MEGATRON_FREE: "0.55", systems.DEEPSPEED_FORCED: _COLORS[8],
    systems.DEEPSPEED_FREE: _COLORS[1], systems.DEEPSPEED_OFFLOAD: _COLORS[3], systems.UNIFORM: _COLORS[2],
    systems.ACESO: _COLORS[4], MIST: _COLORS[0],
}  # fmt: skip
RESOURCES = {"compute": _COLORS[0], "collective": _COLORS[2], "to_device": _COLORS[1], "to_host": _COLORS[4]}


def exhibit_search_space(table: pd.DataFrame) -> Figure:
    """Configurations, and evaluations that a pipeline can hold, per cumulative space, on a logarithmic scale."""
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for index, (column, label) in enumerate(
        (("configurations", "parallel size × memory policy"), ("reachable", "× stage, layers and checkpointed layers"))
    ):
        bars = axes.barh(np.arange(len(table)) + 0.4 * index, table[column], 0.4, color=_COLORS[index], label=label)
        axes.bar_label(bars, labels=[f"{value:,.0f}" for value in table[column]], padding=3, fontsize=8)
    axes.set_yticks(np.arange(len(table)) + 0.2, table.space)
    axes.grid(axis="y", visible=False)
    axes.set(xscale="log", xlabel="choices", title="Search space of GPT-22B on 4 × 8 GPUs, 512 sequences")
    axes.set_xlim(right=40 * table.reachable.max())
    axes.invert_yaxis()
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.2), ncols=2)
    return figure


def exhibit_schedule(table: pd.DataFrame) -> Figure:
    """1F1B over time: a row per stage, a numbered box per pass of a micro-batch."""
    figure, axes = plt.subplots(figsize=(10, 0.6 * table.stage.nunique() + 1.4), layout="constrained")
    draw_gantt(axes, table)
    axes.set_title("The tuned GPT-7B plan, first eight micro-batches (numbers)", loc="left")
    axes.set_xlabel("seconds")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=3)
    return figure


def exhibit_slots(table: pd.DataFrame) -> Figure:
    """What runs side by side in each slot of a middle block: parts stacked as if in turn, a mark for all together."""
    shown = table[table.stage.isin([table.stage.min(), table.stage.max()])]
    labels = [f"stage {row.stage}: {row.slot} micro-batch" for row in shown.itertuples()]
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(shown) + 1.2), layout="constrained")
    left = np.zeros(len(shown))
    for name, color in RESOURCES.items():
        text = name.replace("to_", "copy to ")
        axes.barh(labels, shown[f"{name}_ms"], left=left, color=color, label=text, height=0.65)
        left += shown[f"{name}_ms"].to_numpy()
    axes.plot(shown.together_ms, labels, "k|", markersize=16, markeredgewidth=2, label="all at once (model)")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("milliseconds of one block")
    axes.set_title("Stacked: one after the other. Mark: overlapped", loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def exhibit_memory(table: pd.DataFrame) -> Figure:
    """What fills the device at both peaks of every stage, largest parts named."""
    shown = table.assign(GiB=table.MiB / 1024, at="stage " + table.stage.astype(str) + "\n" + table.phase)
    wide = shown.pivot_table(index="at", columns="part", values="GiB", aggfunc="sum", sort=False).fillna(0.0)
    order = wide.sum().sort_values(ascending=False).index
    wide = pd.concat([wide[order[:8]], wide[order[8:]].sum(axis=1).rename("everything else")], axis=1)
    figure, axes = plt.subplots(figsize=(10, 4.2), layout="constrained")
    wide.plot.bar(stacked=True, ax=axes, width=0.75, rot=0, color=[*_COLORS[:8], "0.7"])
    axes.grid(axis="x", visible=False)
    axes.set(ylabel="GiB on one GPU", xlabel="", title="Both peaks of every stage of the tuned GPT-7B plan")
    axes.tick_params(axis="x", labelsize=8)
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], names[::-1], loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _held_out(axes: Axes, table: pd.DataFrame, x: str) -> None:
    sns.barplot(table.assign(percent=100 * table.mean_error), x=x, y="percent", hue="model", ax=axes, errorbar=None)
    for bars in axes.containers:
        axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)  # type: ignore[arg-type]
    axes.margins(y=0.1)
    axes.set(xlabel="", ylabel="mean error on held-out points (%)")
    axes.legend(title=None, loc="upper left", bbox_to_anchor=(1, 1))


def exhibit_interference(table: pd.DataFrame) -> Figure:
    """Held-out error of the fitted model and of two simpler ones, per published set of factors."""
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    names = {"l4": "L4 cluster", "a100": "A100 cluster", "l4_readme": "README's L4 node"}
    _held_out(axes, table.assign(of=table.points_of.map(names)), "of")
    axes.set_title("Made-up points with 1 % noise, from the factors published for each")
    return figure


def exhibit_interference_cpu(table: pd.DataFrame) -> Figure:
    """The same on points measured here."""
    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    _held_out(axes, table.assign(of=""), "of")
    axes.set_title("A matrix product beside two copies, in threads of this machine", loc="left", fontsize=10)
    return figure


def exhibit_pipeline_formula(table: pd.DataFrame) -> Figure:
    """Error of both formulas against the event simulation, a row per scenario."""
    figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    scenarios = list(table.scenario.unique())
    for index, (formula, part) in enumerate(table.groupby("formula", sort=False)):
        percent = (100 * part.error).groupby(part.scenario)
        of = percent.quantile(np.array([0, 0.25, 0.5, 0.75, 1])).unstack().loc[scenarios]
        at = np.arange(len(scenarios)) + 0.3 * index
        axes.hlines(at, of[0.0], of[1.0], color=_COLORS[index], linewidth=1)
        axes.hlines(at, of[0.25], of[0.75], color=_COLORS[index], linewidth=6, alpha=0.6)
        axes.plot(of[0.5], at, "o", color=_COLORS[index], markersize=5, label=formula)
    axes.set_yticks(np.arange(len(scenarios)) + 0.15, scenarios)
    axes.invert_yaxis()
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set(xlabel="error against event-driven 1F1B (%): median, quartiles, all draws", ylabel="")
    axes.legend(title=None, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def exhibit_fronts(table: pd.DataFrame) -> Figure:
    """Points that α-sampling keeps of each front, and what the best plan loses by it."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    kept = table.groupby("alphas").points_per_cell.mean()
    left.bar([str(count) for count in kept.index], kept, color=_COLORS[0], label="kept by sampling")
    front = table.front_per_cell.mean()
    left.axhline(front, color=_COLORS[1], label=f"on the full front ({front:.0f})")
    left.set(xlabel="number of weights α tried", ylabel="points kept per front", ylim=(0, 1.35 * front))
    left.grid(axis="x", visible=False)
    left.legend(loc="upper left")
    sns.stripplot(table.assign(percent=100 * table.loss), x="alphas", y="percent", ax=right, color=_COLORS[0])
    right.set(xlabel="number of weights α tried", ylabel="iteration time lost (%)", ylim=(-0.2, None))
    return figure


def _end_to_end(table: pd.DataFrame, title: str) -> Figure:
    families = list(table.family.unique())
    width, rows = 4 + max(3.0, 1.4 * table["size"].nunique()), len(families)
    figure, panels = plt.subplots(rows, 1, figsize=(width, 3.2 * rows + 0.8), squeeze=False, layout="constrained")
    for axes, family in zip(panels[:, 0], families, strict=True):
        part = table[table.family == family]
        labels = part["size"].str.upper() + "\n" + part.gpus.astype(str) + " GPUs"
        sns.barplot(part.assign(at=labels), x="at", y="over_forced", hue="system", ax=axes, palette=SYSTEM_COLORS)
        axes.bar_label(axes.containers[-1], fmt="%.2f", fontsize=8, padding=2)
        axes.axhline(1, color="0.3", linewidth=0.8)
        axes.set(title=f"{family.upper() if family == 'gpt' else family.title()}, {title}", xlabel="")
        axes.set_ylabel("speed over Megatron-LM-like,\nrecompute forced (predicted)", fontsize=9)
        axes.get_legend().remove()
        axes.margins(y=0.1)
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, fontsize=8)
    return figure


def figure_11(table: pd.DataFrame) -> Figure:
    """Predicted speeds on L4 without flash attention, the Aceso-like search included; no bar: nothing fits."""
    return _end_to_end(table, "L4, no flash attention")


def exhibit_l4_flash(table: pd.DataFrame) -> Figure:
    """The same with flash attention."""
    return _end_to_end(table, "L4, flash attention")


def exhibit_a100(table: pd.DataFrame) -> Figure:
    """The same on A100, from an assumed roofline."""
    return _end_to_end(table, "A100, flash attention")


def exhibit_breakdown(table: pd.DataFrame) -> Figure:
    """Predicted speed of the best plan over that of the smallest space, as dimensions are added."""
    figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    bars = axes.barh(table.space, table.iteration_s.iloc[0] / table.iteration_s, color=_COLORS[0])
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.set(xlabel="predicted speed over that of the first space", title="GPT on L4: the best plan as the space grows")
    axes.grid(axis="y", visible=False)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    return figure


def figure_16(table: pd.DataFrame) -> Figure:
    """Tuning time on this machine, evaluation and solver, with the number of configurations evaluated."""
    figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    axes.barh(table.space, table.evaluation_s, color=_COLORS[0], label="evaluating configurations")
    axes.barh(table.space, table.solver_s, left=table.evaluation_s, color=_COLORS[1], label="solving for stages")
    for index, (seconds, count) in enumerate(zip(table.tuning_s, table.evaluated, strict=True)):
        axes.text(seconds, index, f"  {count:,} evaluated", va="center", fontsize=8)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="seconds on this machine", title="Tuning time as the space grows")
    axes.set_xlim(right=1.45 * table.tuning_s.max())
    axes.invert_yaxis()
    axes.legend(loc="lower left", bbox_to_anchor=(0.5, 0.55))
    return figure
