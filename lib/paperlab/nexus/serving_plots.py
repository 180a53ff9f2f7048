"""Drawings of whole systems under load; `plots` offers them beside the others."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

NAMES = {
    "vllm-like": "vLLM-like",
    "spf-chunked": "vLLM-like + SPF",
    "sglang-like": "SGLang-like",
    "fastserve-like": "FastServe-like",
    "vllm-pd-like": "vLLM-P/D-like (2 GPUs)",
    "nexus": "Nexus",
}
_ORDER = list(NAMES.values())
PALETTE = dict(zip(_ORDER, sns.color_palette("colorblind", len(_ORDER)), strict=True))
_ARMS = {
    "PF-DF-Wo-SC": ("first come, static 50/50 (PF-DF-Wo-SC)", (4, 2)),
    "PF-DF-W-SC": ("first come, dynamic (PF-DF-W-SC)", (4, 2)),
    "Nexus-Wo-SC": ("shortest first, static 50/50 (Nexus-Wo-SC)", ""),
    "Nexus": ("Nexus: shortest first, dynamic", ""),
}
_STAGES = {"execution": "#0173b2", "scheduler": "#de8f05", "waiting": "#949494"}
_MARKERS = dict(zip(_ORDER, "oXsP^D", strict=True))
_METRICS = {
    "normalized_latency_mean_s": "normalized latency,\nmean (s/token)",
    "normalized_latency_p95_s": "normalized latency,\nP95 (s/token)",
    "ttft_mean_s": "TTFT, mean (s)",
    "ttft_p95_s": "TTFT, P95 (s)",
    "tbt_mean_s": "TBT, mean (s)",
    "tbt_p95_s": "TBT, P95 (s)",
}


def figure_9(table: pd.DataFrame) -> Figure:
    """A row per workload, a column per metric, a line per system; bands span the seeds."""
    return _against_rate(table, list(_METRICS), _named(table))


def figure_10(table: pd.DataFrame) -> Figure:
    """The same for the large model on two devices, means above and 95th percentiles below."""
    figure, panels = plt.subplots(2, 3, figsize=(11, 5.6), sharex=True, layout="constrained")
    for row, kind in enumerate(("mean", "p95")):
        for axes, metric in zip(panels[row], ("normalized_latency", "ttft", "tbt"), strict=True):
            _lines(axes, table, f"{metric}_{kind}_s", _named(table))
    _shared_legend(figure, panels.flat)
    return figure


def figure_11(table: pd.DataFrame) -> Figure:
    """Makespan by number of jobs and system; hatched bars timed out with jobs left."""
    shown = table.assign(name=_named(table))
    scenarios = list(shown.scenario.unique())
    figure, panels = plt.subplots(
        1, len(scenarios), figsize=(5.2 * len(scenarios), 3.8), squeeze=False, layout="constrained"
    )
    for axes, scenario in zip(panels[0], scenarios, strict=True):
        part = shown[shown.scenario == scenario]
        sns.barplot(part, x="jobs", y="makespan_s", hue="name", palette=PALETTE, hue_order=_present(part.name), ax=axes)
        for container, name in zip(axes.containers, _present(part.name), strict=True):
            late = part[part.name == name].timed_out.to_numpy()
            for bar, timed_out in zip(container, late, strict=False):
                bar.set_hatch("xx" if timed_out else "")
        axes.set(title=scenario, xlabel="jobs, all present at time 0", ylabel="makespan (s)")
    _shared_legend(figure, panels[0])
    return figure


def figure_12(table: pd.DataFrame) -> Figure:
    """Normalized latency stacked by stage, a panel per workload and rate."""
    keys = ["scenario", "rate_per_s"]
    groups = list(table.groupby(keys, sort=False))
    columns = 2
    rows = -(-len(groups) // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(10, 2.4 * rows), squeeze=False, sharey=True, layout="constrained"
    )
    stages = [stage for stage in _STAGES if table[table.stage == stage].seconds_per_token.any()]
    for axes, ((scenario, rate), part) in zip(panels.flat, groups, strict=False):
        wide = part.assign(name=_named(part)).pivot_table(index="name", columns="stage", values="seconds_per_token")
        wide = wide.reindex(_present(_named(table))[::-1])[stages]  # the first system on top
        wide.plot.barh(stacked=True, ax=axes, legend=False, width=0.7, color=[_STAGES[stage] for stage in stages])
        axes.set_title(f"{scenario}, {rate:g} requests/s", fontsize=10)
        axes.set(xlabel="seconds per output token", ylabel="")
        axes.grid(axis="y", visible=False)
        axes.locator_params(axis="x", nbins=5)
    for axes in list(panels.flat)[len(groups) :]:
        axes.set_visible(False)
    _shared_legend(figure, panels.flat)
    return figure


def figure_13(table: pd.DataFrame) -> Figure:
    """Mean TTFT and TBT against the rate for the four arms of the ablation."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    order = [name for name, _ in _ARMS.values()]
    arms = table.arm.map({arm: name for arm, (name, _) in _ARMS.items()})
    colors = dict(zip(order, [*sns.color_palette("colorblind", 3), PALETTE["Nexus"]], strict=True))
    for axes, metric in zip(panels, ("ttft_mean_s", "tbt_mean_s"), strict=True):
        sns.lineplot(
            table.assign(arm=arms), x="rate_per_s", y=metric, hue="arm", style="arm", palette=colors, ax=axes,
            hue_order=order[::-1], style_order=order[::-1], dashes=dict(_ARMS.values()), errorbar=("pi", 100),
            markers=dict(zip(order, "oXsD", strict=True)),
        )  # fmt: skip
        axes.set(xlabel="requests per second", ylabel=_METRICS[metric], ylim=(0, None))
    _shared_legend(figure, panels, columns=2)
    return figure


def exhibit_controls(table: pd.DataFrame) -> Figure:
    """Mean TTFT and TBT of the controls at each rate, on logarithmic scales."""
    scenarios = list(table.scenario.unique())
    figure, panels = plt.subplots(
        len(scenarios), 2, figsize=(11, 3.4 * len(scenarios)), squeeze=False, layout="constrained"
    )
    for row, scenario in zip(panels, scenarios, strict=True):
        part = table[table.scenario == scenario]
        rates = part.rate_per_s.nunique()
        for axes, metric in zip(row, ("ttft_mean_s", "tbt_mean_s"), strict=True):
            sns.pointplot(
                part, x=metric, y="arm", hue="rate_per_s", ax=axes, linestyle="none", palette="viridis",
                errorbar=("pi", 100), legend=axes is panels[0][1], dodge=rates > 1 and 0.4, markersize=6,
                markers=[*"os^DvPX*"][:rates],
            )  # fmt: skip
            axes.set(xscale="log", title=scenario, xlabel=_METRICS[metric], ylabel="")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        row[1].tick_params(labelleft=False)
    panels[0][1].legend(title="requests/s", fontsize=8)
    return figure


def exhibit_penalties(table: pd.DataFrame) -> Figure:
    """Mean normalized latency against the rate; a panel per penalty and factor."""
    panels_of = list(table.groupby(["penalty", "factor"], sort=False))
    columns = table.factor.nunique()
    rows = -(-len(panels_of) // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(3.6 * columns, 3 * rows), squeeze=False, sharex=True, sharey=True, layout="constrained"
    )
    for axes, ((penalty, factor), part) in zip(panels.flat, panels_of, strict=False):
        _lines(axes, part, "normalized_latency_mean_s", _named(part))
        axes.set(title=f"{penalty}: ×{factor:g}", ylim=(0, 1.05 * table.normalized_latency_mean_s.max()))
    _shared_legend(figure, panels.flat)
    return figure


def exhibit_sweeps(table: pd.DataFrame) -> Figure:
    """Mean TTFT and mean TBT of each value, relative to the first of its sweep."""
    metrics = ["ttft_mean_s", "tbt_mean_s"]
    shown = table.groupby(["sweep", "value"], sort=False)[metrics].mean().reset_index()  # over the seeds
    for metric in metrics:
        first = shown.groupby("sweep", sort=False)[metric].transform("first")
        shown[metric] = shown[metric] / first
    is_default = shown["sweep"] != shown["sweep"].shift()
    values = shown["value"].replace("inf", "∞").where(~is_default, shown["value"] + " (base)")
    rows = range(len(shown))
    figure, axes = plt.subplots(figsize=(9, 0.24 * len(shown) + 1), layout="constrained")
    axes.plot(shown.ttft_mean_s, rows, "o", markersize=9, markerfacecolor="none", label="mean TTFT")
    axes.plot(shown.tbt_mean_s, rows, "o", markersize=4, label="mean TBT")
    axes.axvline(1, color="0.5", linewidth=1, zorder=0)
    for row in shown.index[is_default][1:]:
        axes.axhline(row - 0.5, color="0.85", linewidth=0.8)
    axes.set_yticks(rows, shown["sweep"] + ": " + values, fontsize=8)
    axes.set(xscale="log", xlabel="relative to the base, the first value of its sweep", ylim=(len(shown) - 0.5, -0.5))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.grid(axis="y", visible=False)
    axes.legend(title=None)
    return figure


def _against_rate(table: pd.DataFrame, metrics: Sequence[str], names: pd.Series) -> Figure:
    scenarios = list(table.scenario.unique())
    size = (2.9 * len(metrics), 2.7 * len(scenarios) + 0.4)
    figure, panels = plt.subplots(len(scenarios), len(metrics), figsize=size, squeeze=False, layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)
    for row, scenario in zip(panels, scenarios, strict=True):
        part = table[table.scenario == scenario]
        for axes, metric in zip(row, metrics, strict=True):
            _lines(axes, part, metric, names[part.index])
        row[0].set_title(scenario, loc="left", fontsize=10)
    _shared_legend(figure, panels.flat)
    return figure


def _lines(axes: Axes, table: pd.DataFrame, metric: str, names: pd.Series) -> None:
    sns.lineplot(
        table.assign(name=names), x="rate_per_s", y=metric, hue="name", style="name", palette=PALETTE, dashes=False,
        markers=_MARKERS, hue_order=_present(names), style_order=_present(names), errorbar=("pi", 100), ax=axes,
    )  # fmt: skip
    axes.set(xlabel="requests per second", ylabel=_METRICS[metric])
    axes.set_ylim(bottom=0)


def _named(table: pd.DataFrame) -> pd.Series:
    return table.system.map(NAMES)


def _present(names: pd.Series | pd.Index) -> list[str]:
    return [name for name in _ORDER if name in set(names)]


def _shared_legend(figure: Figure, panels: Sequence[Axes], columns: int = 6) -> None:
    """One legend above all panels in place of one in each."""
    handles, labels = [], []
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            if label not in labels:
                handles.append(handle)
                labels.append(label)
        if (legend := axes.get_legend()) is not None:
            legend.remove()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(columns, len(labels)))
