"""The figure of each exhibit, drawn from its table; same names as in `experiments.py`."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from paperlab.aquant.studies.drawing import intervals

_COLORS = sns.color_palette("colorblind")


def exhibit_border(table: pd.DataFrame) -> Figure:
    """Left: borders along the activation. Right: the staircases they make, shifted apart."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for index, ((name, part), color) in enumerate(zip(table.groupby("border", sort=False), _COLORS, strict=False)):
        left.plot(part.u, part.threshold, color=color, label=name)
        right.plot(part.u, part.level + 0.06 * index, color=color, label=name)
    for value in (0, 1):
        left.axhline(value, color="0.5", linewidth=0.8, linestyle=":")
    left.set(title="The border, a function of the activation", xlabel="activation u, in steps", ylabel="border B")
    right.set(title="What becomes of 2-bit rounding", xlabel="activation u, in steps", ylabel="level (lines set apart)")
    right.set_yticks(range(int(table.level.max()) + 1))
    left.legend(loc="upper left", bbox_to_anchor=(0, 0.88))
    return figure


def exhibit_product_error(table: pd.DataFrame) -> Figure:
    """Error along the activation, a panel per border, with the mean as a dashed line."""
    groups = list(table.groupby("border", sort=False))
    figure, panels = plt.subplots(1, len(groups), figsize=(10, 3.6), sharey=True, layout="constrained")
    for axes, (name, part), color in zip(panels, groups, _COLORS, strict=False):
        axes.plot(part.u, part.error, ".", color=color, markersize=1.5)
        axes.axhline(0, color="0.4", linewidth=0.8)
        axes.axhline(part.error.mean(), color="k", linewidth=1.2, linestyle="--", label="mean")
        axes.set(xlabel="activation u, in steps")
        axes.set_title(
            f"{name}\nmean {part.error.mean():+.3f}, mean |error| {part.error.abs().mean():.3f}", fontsize=10
        )
    panels[0].set_ylabel("x̂ŵ − xw, in steps·|w|")
    panels[0].legend(loc="upper left")
    return figure


def exhibit_motivation(table: pd.DataFrame) -> Figure:
    """Accuracy against output error for every rounding of activations; weights are rounded to nearest in all."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    sns.scatterplot(table, x="output_error", y="top1", hue="rounding", style="rounding", s=70, ax=axes)
    axes.set(xlabel="mean squared error of the logits", ylabel="top-1 (%)")
    axes.set_title("Roundings of activations: N1, W2A2, nearest weights")
    axes.legend(title=None, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def table_accuracy(table: pd.DataFrame) -> Figure:
    """Top-1 of every arm, a point per net, a panel per network and task."""
    groups = list(table.groupby(["network", "task"], sort=False))
    figure, panels = plt.subplots(1, len(groups), figsize=(5.5 * len(groups), 4), squeeze=False, layout="constrained")
    for axes, ((network, task), part) in zip(panels[0], groups, strict=True):
        sns.stripplot(part, x="top1", y="arm", hue="net_seed", palette="colorblind", ax=axes, legend=False, jitter=0.15)
        means = part.groupby("arm", sort=False).top1.mean()
        axes.plot(means.to_numpy(), range(len(means)), "k|", markersize=16)
        floats = part.drop_duplicates("net_seed").float_top1.mean()
        axes.axvline(floats, color="0.4", linestyle=":", linewidth=1)
        axes.text(floats, 0.02, "float ", ha="right", fontsize=8, transform=axes.get_xaxis_transform())
        axes.set(title=f"{network}, {task}, W2A2", xlabel="top-1 (%), one point per net", ylabel="")
    return figure


def table_differences(table: pd.DataFrame) -> Figure:
    """Paired differences with their intervals; those that cross zero are not resolved."""
    labels = [f"{row.network}, {row.task}: {row.arm} − {row.over}" for row in table.itertuples()]
    return intervals(table, labels, "Paired differences at W2A2")


def exhibit_border_cost(table: pd.DataFrame) -> Figure:
    """Time of each quantizer over that of its convolution, layer by layer."""
    shown = table.assign(share=table.time_s / table.conv_s)
    figure, axes = plt.subplots(figsize=(8, 0.5 * table.layer.nunique() + 1.8), layout="constrained")
    sns.pointplot(shown, y="layer", x="share", hue="arm", linestyle="none", dodge=0.5, errorbar=None, ax=axes)
    axes.set(
        xscale="log", xlabel="time over the convolution's, batch 1, one thread", ylabel="layer",
        title=f"What rounding costs beside the convolution, {table.device.iloc[0]}",
    )  # fmt: skip
    axes.axvline(1, color="0.4", linewidth=0.8)
    axes.legend(title=None, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def exhibit_learned_borders(table: pd.DataFrame) -> Figure:
    """The learned borders of up to six quantizers, a line per channel."""
    groups = list(table.groupby("quantizer", sort=False))[:6]
    rows = -(-len(groups) // 3)
    figure, panels = plt.subplots(
        rows, 3, figsize=(10, 2.8 * rows), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for axes in panels.flat[len(groups) :]:
        axes.axis("off")
    for axes, (name, part) in zip(panels.flat, groups, strict=False):
        for _, line in part.groupby("channel"):
            axes.plot(line.u, line.border, color=_COLORS[0], alpha=0.5, linewidth=0.8)
        axes.axhline(0.5, color="0.3", linewidth=0.8, linestyle=":")
        axes.set(title=str(name), xlabel="activation u, in steps", ylabel="border B")
        axes.title.set_fontsize(9)
    return figure
