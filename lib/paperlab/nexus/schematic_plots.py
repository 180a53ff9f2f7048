"""Drawings of the schematics, Figs. 1, 3 and 7; `plots` offers them beside the others."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from paperlab.nexus.serving_plots import NAMES
from paperlab.serving.timeline import COLORS

LANE_COLORS = {"main": COLORS["mixed"], "prefill": COLORS["prefill"], "decode": COLORS["decode"]}
LANE_TEXTS = {"main": "mixed batches", "prefill": "prefill", "decode": "decode"}
MEMORY_COLOR = "#ece133"
# Where each file of Fig. 7 stands and what it does there. Files that only hold data are left out.
PLACES = {
    "serving.simulator": (0.0, 0.8, "virtual clock"),
    "serving.timing": (0.6, 0.0, "when jobs end"),
    "serving.device_model": (1.8, 0.0, "how long it takes"),
    "serving.cluster": (1.2, 0.8, "queues, memory, log"),
    "nexus.policy": (0.6, 2.4, "two lanes"),
    "nexus.scheduler": (1.5, 1.5, "order of prompts"),
    "serving.policy": (2.75, 1.5, "one batch in budget"),
    "nexus.control": (1.7, 3.2, "who sets the split"),
    "nexus.layouts": (2.0, 2.4, "splits that exist"),
    "nexus.search": (3.1, 2.6, "split under a slack"),
    "nexus.cost_model": (4.2, 3.2, "latency at a share"),
    "nexus.belief": (4.4, 1.8, "saturation curves"),
    "serving.cost": (3.0, 0.0, "FLOPs and bytes"),
}


def figure_1(table: pd.DataFrame) -> Figure:
    """Each design's devices side by side: lanes above, as wide as their share, and the pool they work on below."""
    systems = list(table.system.unique())
    widths = [table[(table.system == name) & (table.kind == "compute")].resource.nunique() for name in systems]
    figure, panels = plt.subplots(
        1, len(systems), figsize=(2.6 * sum(widths), 2.4), width_ratios=widths, layout="constrained"
    )
    for axes, system, width in zip(panels, systems, widths, strict=True):
        _draw_devices(axes, table[table.system == system])
        axes.set(title=NAMES[system], xlim=(-0.05, 1.2 * width - 0.1), ylim=(-0.1, 1.15))
        axes.axis("off")
    return figure


def _draw_devices(axes: Axes, lanes: pd.DataFrame) -> None:
    compute = lanes[lanes.kind == "compute"]
    for index, (resource, on_device) in enumerate(compute.groupby("resource", sort=False)):
        left = 1.2 * index
        axes.add_patch(Rectangle((left, 0), 1, 1, facecolor="none", edgecolor="0.4"))
        axes.text(left + 0.5, 1.03, str(resource).replace("gpu", "GPU "), ha="center", fontsize=8, color="0.4")
        for lane in on_device.to_dict("records"):
            _box(
                axes,
                (left + 0.03, 0.45, lane["share"] - 0.06, 0.48),
                LANE_TEXTS[lane["lane"]],
                LANE_COLORS[lane["lane"]],
            )
            left += lane["share"]
        _box(axes, (1.2 * index + 0.03, 0.07, 0.94, 0.3), "weights, paged KV cache", MEMORY_COLOR)
    for index, copy in enumerate(lanes[lanes.kind == "copy"].to_dict("records")):
        arrow = {"arrowstyle": "->", "lw": 2, "color": "0.3"}
        axes.annotate("", (1.2 * index + 1.24, 0.22), (1.2 * index + 0.96, 0.22), arrowprops=arrow)
        axes.text(1.2 * index + 1.1, -0.1, f"{copy['lane']} of KV", ha="center", fontsize=8)


def figure_3(table: pd.DataFrame) -> Figure:
    """A square per multiprocessor, colored by lane, and below it the bandwidth, which no layout divides."""
    figure, panels = plt.subplots(1, len(table), figsize=(3.1 * len(table), 2.6), layout="constrained")
    columns = 23
    for axes, row in zip(panels, table.to_dict("records"), strict=True):
        for sm in range(row["sms"]):
            color = LANE_COLORS["prefill" if sm < row["prefill_sms"] else "decode"]
            place = (sm % columns, 5.5 - sm // columns)
            axes.add_patch(Rectangle(place, 0.85, 0.85, facecolor=color, edgecolor="none"))
        taken = columns * (1 - row["decode_bandwidth"])
        _box(axes, (0, 0, taken, 1.5), "prefill", LANE_COLORS["prefill"])
        _box(axes, (taken, 0, columns - taken, 1.5), "decode's attention", LANE_COLORS["decode"])
        axes.text(0, 6.7, f"{row['sms']} multiprocessors: {row['prefill_sms']} for prefill", fontsize=8)
        axes.text(0, 1.7, f"memory bandwidth: {100 * row['decode_bandwidth']:.0f} % for decode", fontsize=8)
        axes.set(title=f"prefill {row['prefill_percent']:.0f} %", xlim=(-0.3, columns + 0.3), ylim=(-0.2, 7.3))
        axes.axis("off")
    return figure


def figure_7(table: pd.DataFrame) -> Figure:
    """Files as boxes, calls as arrows from caller to callee with their number per iteration."""
    figure, axes = plt.subplots(figsize=(10.5, 4.8), layout="constrained")
    boxes = {name: _file_box(axes, name, *place) for name, place in PLACES.items()}
    for edge in table[table.caller.isin(PLACES) & table.callee.isin(PLACES)].to_dict("records"):
        (x0, y0, _), (x1, y1, _) = PLACES[edge["caller"]], PLACES[edge["callee"]]
        arrow = {
            "arrowstyle": "->", "color": "0.5", "connectionstyle": "arc3,rad=0.06",
            "patchA": boxes[edge["caller"]], "patchB": boxes[edge["callee"]], "shrinkA": 1, "shrinkB": 1,
        }  # fmt: skip
        axes.annotate("", (x1, y1), (x0, y0), arrowprops=arrow)
        axes.text(
            0.58 * x0 + 0.42 * x1 + 0.03 * (y1 - y0), 0.58 * y0 + 0.42 * y1 - 0.03 * (x1 - x0),
            f"{edge['calls_per_iteration']:.1f}", fontsize=7, ha="center", va="center", color="0.3",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
    axes.set(xlim=(-0.5, 4.9), ylim=(-0.25, 3.45))
    axes.axis("off")
    return figure


def _file_box(axes: Axes, name: str, x: float, y: float, text: str) -> FancyBboxPatch:
    color = LANE_COLORS["prefill" if name.startswith("nexus") else "main"]
    box = FancyBboxPatch((x - 0.38, y - 0.16), 0.76, 0.32, "round,pad=0.02", fc="white", ec=color, lw=1.5, zorder=3)
    axes.add_patch(box)
    axes.text(x, y + 0.06, name, ha="center", va="center", fontsize=8, weight="bold", zorder=4)
    axes.text(x, y - 0.09, text, ha="center", va="center", fontsize=7, color="0.3", zorder=4)
    return box


def _box(axes: Axes, place: tuple[float, float, float, float], text: str, color: str) -> None:
    left, bottom, width, height = place
    axes.add_patch(Rectangle((left, bottom), width, height, facecolor=color, edgecolor="white", alpha=0.85))
    ink = "black" if color == MEMORY_COLOR else "white"
    axes.text(left + width / 2, bottom + height / 2, text, ha="center", va="center", fontsize=8, color=ink)
