"""The drawing of each exhibit, under the name of the function in `experiments` that makes its table.

Here analysis and mechanism; whole workloads are drawn in `sweep_plots` and found here too.
"""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from paperlab.seesaw.sweep_plots import (
    WORKLOADS,
    exhibit_calibration,
    exhibit_policies,
    figure_10,
    figure_11,
    figure_12,
    figure_13,
    figure_14,
    figure_15,
    rows_of,
)

__all__ = [
    "exhibit_calibration", "exhibit_policies", "figure_1", "figure_2", "figure_3", "figure_4", "figure_5", "figure_6",
    "figure_7", "figure_8", "figure_9", "figure_10", "figure_11", "figure_12", "figure_13", "figure_14", "figure_15",
]  # fmt: skip

BLUE, ORANGE, GREEN, GRAY = "#0173b2", "#de8f05", "#029e73", "#949494"
PARTS = {"communication": ORANGE, "compute": BLUE, "weight transfer": GREEN}
BARS = {"weight load": GREEN, "compute": BLUE, "all-reduce": ORANGE}
KINDS = {"prefill": BLUE, "swap-out": GREEN, "load": GRAY, "decode": ORANGE, "swap-in": "#cc78bc"}
TEXTS = {"load": "reload of the weights"}


def figure_1(table: pd.DataFrame) -> Figure:
    """Stacked shares per layout, over the slowest layout of the phase."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for axes, phase in zip(panels, ("prefill", "decode"), strict=True):
        part = table[table.phase == phase].sort_values("tp").pivot_table("normalized", "layout", "part", sort=False)
        part[list(PARTS)].plot.bar(stacked=True, ax=axes, color=list(PARTS.values()), legend=phase == "decode", rot=0)
        axes.set(title=phase, xlabel="", ylabel="time over the slowest layout's", ylim=(0, 1.05))
        axes.grid(axis="x", visible=False)
    panels[1].legend(title=None)
    return figure


def figure_2(table: pd.DataFrame) -> Figure:
    """Sequences in both tiers over time, one panel per policy, prefill phases shaded."""
    names = {
        "reshard-prefill-first": "(a) prefill first",
        "reshard-decode-first": "(b) decode first",
        "seesaw": "(c) Seesaw",
    }
    figure, panels = plt.subplots(3, 1, figsize=(9, 6), sharex=True, layout="constrained")
    for axes, (policy, title) in zip(panels, names.items(), strict=True):
        _tiers(axes, table[table.policy == policy])
        axes.set_title(title, loc="left", fontsize=10)
    panels[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=8)
    panels[-1].set_xlabel("time (s)")
    return figure


def figure_6(table: pd.DataFrame) -> Figure:
    """Both tiers over time and the phases of the transition-minimizing policy."""
    figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
    _tiers(axes, table)
    axes.set_xlabel("time (s)")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=8)
    return figure


def _tiers(axes: Axes, part: pd.DataFrame) -> None:
    axes.step(part.time_s, part.gpu, where="post", color=BLUE, linewidth=1, label="on the GPUs")
    axes.step(part.time_s, part.host, where="post", color=ORANGE, linewidth=1, label="on the host")
    high = max(part.gpu.max(), part.host.max())
    axes.fill_between(part.time_s, 0, high, where=part.phase == "prefill", step="post", color="0.9", label="prefill")
    axes.set(ylabel="sequences", xlim=(0, None), ylim=(0, 1.05 * high))
    axes.grid(visible=False)


def figure_3(table: pd.DataFrame) -> Figure:
    """Two GPUs, two micro-batches: bars by cause for T2 and P2 in each phase."""
    figure, panels = plt.subplots(2, 2, figsize=(11, 4.2), sharex="row", layout="constrained")
    for row, phase in zip(panels, ("prefill", "decode"), strict=True):
        for axes, layout in zip(row, ("T2", "P2"), strict=True):
            for item in rows_of(table[(table.phase == phase) & (table.layout == layout)]):
                span = [(1e3 * item.start_s, 1e3 * (item.end_s - item.start_s))]
                axes.broken_barh(
                    span, (0.6 - item.gpu, 0.8), facecolor=BARS[item.part], edgecolor="white", linewidth=0.3
                )
            axes.set_yticks([0, 1], ["GPU 1", "GPU 0"])
            axes.set_title(f"{phase}, {'TP 2' if layout == 'T2' else 'PP 2'}", fontsize=10)
            axes.grid(visible=False)
    for axes in panels.flat:
        axes.set_xlabel("time (ms)")
    handles = [Patch(color=color, label=part) for part, color in BARS.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=8)
    return figure


def figure_4(table: pd.DataFrame) -> Figure:
    """Prefill on 4, decode on 4 and on 8 GPUs, for each workload and interconnect."""
    bars = {"prefill_4": "prefill, 4 GPUs", "decode_4": "decode, 4 GPUs", "decode_8": "decode, 8 GPUs"}
    figure, panels = plt.subplots(1, 2, figsize=(11, 3.6), sharey=True, layout="constrained")
    for axes, link in zip(panels, ("nvlink", "pcie"), strict=True):
        part = table[table.interconnect == link]
        part = part.assign(lengths=part.prompt_tokens.astype(str) + " in, " + part.output_tokens.astype(str) + " out")
        long = part.melt("lengths", list(bars), "side", "rate").replace({"side": bars})
        sns.barplot(long, x="lengths", y="rate", hue="side", ax=axes, legend=link == "nvlink")
        axes.set(
            title=f"8 × A100-40GB over {'NVLink' if link == 'nvlink' else 'PCIe'}",
            xlabel="",
            ylabel="requests per second",
        )
        axes.tick_params(axis="x", labelsize=8)
    panels[0].legend(title=None)
    return figure


def figure_5(table: pd.DataFrame) -> Figure:
    """A grid of layers x heads for each layout, colored by the GPU that holds it."""
    figure, panels = plt.subplots(1, 2, figsize=(7, 2.8), layout="constrained")
    for axes, layout in zip(panels, table.layout.unique(), strict=True):
        for row in rows_of(table[table.layout == layout]):
            (low, high), (first, last) = _ends(row.layers), _ends(row.kv_heads)
            color = (BLUE, ORANGE)[row.gpu]
            axes.broken_barh(
                [(first, last - first + 1)],
                (low, high - low + 1),
                facecolor=color,
                edgecolor="white",
                label=f"GPU {row.gpu}",
            )
        axes.set(title=f"{layout}: weights and cache", xlim=(0, 4), ylim=(2, 0), xlabel="heads", ylabel="layers")
        axes.set_xticks([0.5, 1.5, 2.5, 3.5], range(4))
        axes.set_yticks([0.5, 1.5], range(2))
        axes.grid(visible=False)
    panels[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def figure_7(table: pd.DataFrame) -> Figure:
    """The shared store as layers x heads: what each GPU writes and what each reads."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for axes, direction in zip(panels, table.direction.unique(), strict=True):
        for row in rows_of(table[table.direction == direction]):
            (low, high), (first, last) = _ends(row.layers), _ends(row.kv_heads)
            color = sns.color_palette("colorblind")[row.gpu]
            axes.broken_barh([(first, last - first + 1)], (low, high - low + 1), facecolor=color, edgecolor="white")
            text = f"GPU {row.gpu}: {row.bytes / 2**20:.0f} MiB"
            axes.text((first + last + 1) / 2, (low + high + 1) / 2, text, ha="center", va="center", fontsize=8,
                      color="white", weight="bold", rotation=0 if last - first > 2 else 90)  # fmt: skip
        axes.set(title=f"{direction} ({row.layout})", xlabel="key/value heads", ylabel="layers", ylim=(high + 1, 0))
        axes.grid(visible=False)
    return figure


def _ends(span: str) -> tuple[int, int]:
    first, _, last = str(span).partition("-")
    return int(first), int(last or first)


def figure_8(table: pd.DataFrame) -> Figure:
    """A Gantt of stages, host links and prefetcher around the re-sharding."""
    places = sorted(
        table.place.unique(), key=lambda place: (not place.startswith("stage"), "prefetcher" in place, place)
    )
    figure, axes = plt.subplots(figsize=(11, 4), layout="constrained")
    for row in rows_of(table):
        low = len(places) - 1 - places.index(row.place) - 0.4
        axes.broken_barh(
            [(row.start_s, row.end_s - row.start_s)],
            (low, 0.8),
            facecolor=KINDS[row.kind],
            edgecolor=KINDS[row.kind] if row.kind == "swap-in" else "white",  # too short to be seen in a white edge
            linewidth=0.8 if row.kind == "swap-in" else 0.2,
        )
    axes.set_yticks(range(len(places)), places[::-1])
    axes.set(xlabel="time (s)", xlim=(0, None))
    axes.grid(axis="y", visible=False)
    handles = [Patch(color=color, label=TEXTS.get(kind, kind)) for kind, color in KINDS.items()]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=5, fontsize=8)
    return figure


def figure_9(table: pd.DataFrame) -> Figure:
    """Densities of prompt and output lengths, one panel per workload."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
    for axes, name in zip(panels, ("arxiv", "sharegpt"), strict=True):
        sns.lineplot(table[table.workload == name], x="tokens", y="density", hue="side", ax=axes)
        axes.set(title=WORKLOADS[name], xlim=(0, 4200), ylim=(0, None), xlabel="tokens", ylabel="density per token")
        axes.legend(title=None)
    return figure
