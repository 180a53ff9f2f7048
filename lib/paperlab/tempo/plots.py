"""The figure of each exhibit, drawn from its table; same names as in `experiments.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

from paperlab.tempo.ops.gelu_fit import minimum

_KEPT, _TRANSIENT = "#0173b2", "0.88"
_NOTE = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1}
_COLORS = sns.color_palette("colorblind")
TECHNIQUE_COLORS = dict(zip(("GELU", "LayerNorm", "attention", "softmax output"), _COLORS, strict=False))


def exhibit_gelu_curve(table: pd.DataFrame) -> Figure:
    """Left: the two sides of GELU's minimum. Right: the derivative as a function of the output, one branch a side."""
    erf = table[table.form == "erf"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    lowest = minimum("none")
    for side, color in (("left", _COLORS[1]), ("right", _COLORS[0])):
        part = erf[erf.side == side]
        left.plot(part.x, part.y, color=color, label=f"{side} of the minimum")
        right.plot(part.y, part.slope, color=color, label=f"{side} of the minimum")
    left.plot(lowest.x, lowest.y, "ko", markersize=5)
    left.text(lowest.x, lowest.y - 0.1, f"x* = {lowest.x:.4f}", ha="center", va="top", fontsize=9)
    left.set(
        title="GELU takes most values below 0 twice", xlabel="x", ylabel="y = GELU(x)", ylim=(-0.6, 2), xlim=(-4, 2)
    )
    right.set(title="y and one bit determine the derivative", xlabel="y", ylabel="dy/dx", xlim=(-0.2, 1.5))
    left.legend(loc="upper left")
    return figure


def exhibit_gelu_error(table: pd.DataFrame) -> Figure:
    """Largest error of the derivative along x, on a logarithmic scale."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    shown = table[table.x.between(-6, 5)].assign(max_error=table.max_error.clip(lower=1e-9))
    sns.lineplot(shown, x="x", y="max_error", hue="evaluator", ax=axes, linewidth=1.2)
    axes.set(yscale="log", ylim=(1e-9, 10), xlabel="x", ylabel="largest |error| of dy/dx, fp32")
    axes.set_title("A polynomial in y cannot follow the square root at the minimum", pad=42)
    axes.legend(title=None, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure


def exhibit_layernorm_error(table: pd.DataFrame) -> Figure:
    """Relative error of dgamma by case, a panel per dtype; a missing bar is NaN."""
    shown = table[(table.quantity == "dgamma") & table.dtype.isin(["float32", "bfloat16"])].copy()
    shown["case"] = [
        "one γ = 0" if row.one_gamma_zero else f"γ = {row.gamma:g}\nβ = {row.beta:g}" for row in shown.itertuples()
    ]
    figure, panels = plt.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
    for axes, dtype in zip(panels, ("float32", "bfloat16"), strict=True):
        part = shown[shown.dtype == dtype]
        sns.barplot(part, x="case", y="relative_l2", hue="arm", ax=axes, legend=dtype == "float32")
        axes.set(yscale="log", title=f"y stored in {dtype}", xlabel="", ylabel="relative L2 error of dγ")
        axes.tick_params(axis="x", labelsize=8)
        broken = ", ".join(part[part.relative_l2.isna()].arm.unique())
        axes.set_xlabel(f"NaN for {broken} where one γ = 0" if broken else "", fontsize=9)
    panels[0].legend(title=None, loc="upper left")
    return figure


def figure_4(table: pd.DataFrame) -> Figure:
    """Data flow of softmax, dropout and the product with V; blue tensors are kept, with their bytes per BAS²."""
    figure, panels = plt.subplots(1, 3, figsize=(11, 4.4), layout="constrained")
    for axes, (arm, part) in zip(panels, table.groupby("arm", sort=False), strict=True):
        sizes = list(part.bytes_per_bas2)
        inner_to_outer = {"P": 4.0, "mask": 1.0, "dropped P": 4.0, "scores": 4.0}
        _draw_flow(axes, dict(list(inner_to_outer.items())[: len(sizes)]))
        axes.set_title(f"{arm}\n{sum(sizes):.0f} bytes per element of the map", fontsize=10)
    return figure


def _draw_flow(axes: Axes, kept: dict[str, float]) -> None:
    boxes = {
        "scores": (0.25, 0.9),
        "P": (0.25, 0.63),
        "mask": (0.78, 0.63),
        "dropped P": (0.25, 0.36),
        "output": (0.25, 0.09),
    }
    for name, (x, y) in boxes.items():
        filled = name in kept
        label = f"{name}\nkept, {kept[name]:.0f} B" if filled else name
        style = {"boxstyle": "round,pad=0.45", "facecolor": _KEPT if filled else _TRANSIENT, "edgecolor": "none"}
        axes.text(x, y, label, ha="center", va="center", fontsize=9, color="white" if filled else "0.25", bbox=style)
    for text, start, end in (("softmax", 0.84, 0.72), ("dropout", 0.55, 0.45), ("times V", 0.28, 0.16)):
        axes.annotate("", (0.25, end), (0.25, start), arrowprops={"arrowstyle": "->", "color": "0.3"})
        axes.text(0.28, (start + end) / 2, text, fontsize=8, color="0.3", va="center")
    axes.annotate("", (0.37, 0.38), (0.7, 0.58), arrowprops={"arrowstyle": "->", "color": "0.3"})
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.axis("off")


def exhibit_activation_ratio(table: pd.DataFrame) -> Figure:
    """Ratio baseline over Tempo against S, for both baselines, with the limits for long sequences."""
    shown = table[table.dtype == "fp32"]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    lines = (
        ("ratio_paper_era", "paper-era baseline (torch ≤ 1.10)", 13 / 5),
        ("ratio_modern", "modern baseline", 9 / 5),
        ("ratio_modern_bit_mask", "modern baseline, 1-bit GELU mask", 9 / 5),
    )
    for (column, label, limit), color in zip(lines, _COLORS, strict=False):
        axes.plot(shown.S, shown[column], "o-", color=color, label=label)
        axes.axhline(limit, color="0.4", linestyle=":", linewidth=1)
    axes.text(shown.S.max(), 13 / 5, "limit 13/5", ha="right", va="bottom", fontsize=8)
    axes.text(shown.S.max(), 9 / 5, "limit 9/5", ha="right", va="bottom", fontsize=8)
    axes.set(xscale="log", xlabel="sequence length S", ylabel="bytes kept, baseline / Tempo", ylim=(1, 2.75))
    axes.set_xticks(shown.S, shown.S.astype(str))
    axes.minorticks_off()
    axes.set_title("The factor of two needs the paper's era: BERT-Large layer, fp32")
    axes.legend(loc="lower right")
    return figure


def exhibit_ablation(table: pd.DataFrame) -> Figure:
    """Stacked shares saved by each technique against S at the width nearest BERT-Large's, a panel per era."""
    width = 1024 if 1024 in set(table.H) else table.H.iloc[0]
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axes, (era, part) in zip(panels, table[width == table.H].groupby("era", sort=False), strict=True):
        wide = part.pivot(index="S", columns="technique", values="percent")[list(TECHNIQUE_COLORS)]
        bottom = np.zeros(len(wide))
        for technique, color in TECHNIQUE_COLORS.items():
            label = "dropout recomputation" if technique == "attention" else technique
            axes.bar(wide.index.astype(str), wide[technique], bottom=bottom, color=color, label=label)
            bottom += wide[technique].to_numpy()
        axes.set(title=f"{era} baseline, H = {width}", xlabel="sequence length S")
    panels[0].set_ylabel("% of a layer's bytes saved")
    panels[1].legend(loc="upper left")
    return figure


def exhibit_bert_large(table: pd.DataFrame) -> Figure:
    """GiB kept by BERT-Large's 24 layers, a panel per batch and sequence length."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True, layout="constrained")
    for axes, ((batch, seq), part) in zip(panels, table.groupby(["B", "S"]), strict=True):
        axes.grid(visible=False, axis="y")
        axes.barh([f"{arm} alone" if arm in TECHNIQUE_COLORS else arm for arm in part.arm], part.GiB, color=_COLORS[0])
        axes.bar_label(axes.containers[0], fmt="%.1f", padding=3, fontsize=8)
        axes.set(title=f"BERT-Large, B = {batch}, S = {seq}, fp32", xlabel="GiB kept by 24 layers")
        axes.margins(x=0.12)
    panels[0].invert_yaxis()
    return figure


def exhibit_max_batch(table: pd.DataFrame) -> Figure:
    """Modeled largest batch by arm, a panel per sequence length, a color per card."""
    lengths = sorted(table.S.unique())
    figure, panels = plt.subplots(1, len(lengths), figsize=(4.2 * len(lengths), 4), squeeze=False, layout="constrained")
    for index, (axes, seq) in enumerate(zip(panels[0], lengths, strict=True)):
        part = table[seq == table.S].assign(card=table.card + ", " + table.GiB.astype(str) + " GiB")
        sns.barplot(part, y="arm", x="largest_batch", hue="card", ax=axes, legend=index == len(lengths) - 1)
        for bars in axes.containers:
            axes.bar_label(bars, fontsize=7, padding=2)
        axes.set(title=f"S = {seq}", xlabel="largest batch (model)", ylabel="")
        axes.margins(x=0.12)
        if index:
            axes.set_yticklabels([])
    panels[0][-1].legend(title=None, loc="upper left", bbox_to_anchor=(1, 1))
    figure.suptitle("BERT-Large pre-training, fp32 with AdamW: what the capacity model says", fontsize=11)
    return figure


def exhibit_loss(table: pd.DataFrame) -> Figure:
    """Left: raw losses of baseline and Tempo, first seed. Right: each arm's distance from the baseline by step."""
    first = table[table.seed == table.seed.min()]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for arm, color, width in (("baseline", "0.75", 3), ("Tempo", _COLORS[0], 0.9)):
        part = first[first.arm == arm]
        left.plot(part.step, part.loss, label=arm, color=color, linewidth=width)
    left.set(title="Training loss, raw", xlabel="step", ylabel="loss (nats)")
    left.legend()
    others = first[first.arm != "baseline"].assign(gap=first.gap.clip(lower=1e-8))
    for (arm, part), color in zip(others.groupby("arm", sort=False), [*_COLORS[:6], _COLORS[7]], strict=False):
        dashed = "--" if arm.startswith("control") else "-"
        # The bit mask changes no value, so its line lies on Tempo's: the wide one stays visible below it.
        right.plot(part.step, part.gap, dashed, color=color, label=arm, linewidth=2.5 if arm == "Tempo" else 0.8)
    for limit, text in ((1e-5, "allowed in 100 steps"), (1e-3, "allowed in 400 steps")):
        right.axhline(limit, color="0.4", linewidth=0.8, linestyle=":")
        right.text(right.get_xlim()[1], limit, text, ha="right", va="bottom", fontsize=7, bbox=_NOTE)
    right.set(
        yscale="log",
        title="Distance from the baseline",
        xlabel="step",
        ylabel="|loss difference| (nats), 0 drawn at 1e-8",
    )
    right.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def exhibit_step_time(table: pd.DataFrame) -> Figure:
    """Step time over the plain model's, with the range over rounds."""
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    ratio, low, high = 1 / table.speedup, 1 / table.speedup_high, 1 / table.speedup_low
    axes.barh(table.arm, ratio, xerr=[ratio - low, high - ratio], color=_COLORS[0], error_kw={"linewidth": 1})
    axes.axvline(1, color="0.4", linewidth=0.8)
    axes.grid(visible=False, axis="y")
    first = table.iloc[0]
    axes.set(
        xlabel="step time / that of the plain model (lines: range over rounds)",
        title=f"{first.model}, B = {first.batch}, S = {first.seq_len}, fp32",
    )
    axes.invert_yaxis()
    return figure


def exhibit_auto_tempo(table: pd.DataFrame) -> Figure:
    """Layers converted by each technique as the budget shrinks, with the bytes that remain."""
    figure, axes = plt.subplots(figsize=(7.5, 4), layout="constrained")
    names = {"gelu": "GELU", "layernorm": "LayerNorm", "attention": "dropout recomputation"}
    shown = table.assign(
        budget=(100 * table.budget_fraction).map("{:.0f} %".format), technique=table.technique.map(names)
    )
    sns.barplot(shown, x="budget", y="layers_converted", hue="technique", ax=axes, palette=_COLORS[:3])
    for position, (_, part) in enumerate(shown.groupby("budget", sort=False)):
        row = part.iloc[0]
        text = f"{row.retained_GiB:.1f} GiB\n+{row.overhead_ms:.1f} ms"
        axes.text(position, 1.03 * row.layers, text, ha="center", va="bottom", fontsize=8)
    axes.set(ylim=(0, 1.25 * table.layers.max()), ylabel=f"layers converted, of {table.layers.max()}")
    axes.set_yticks(range(0, table.layers.max() + 1, max(1, table.layers.max() // 4)))
    axes.set_xlabel("budget between everything converted (0 %) and nothing (100 %)")
    axes.set_title("Auto-Tempo converts the cheapest layers first")
    axes.legend(title=None, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def exhibit_peers(table: pd.DataFrame) -> Figure:
    """Bytes one layer keeps, in units of BSH, sorted."""
    shown = table.sort_values("bytes_per_bsh")
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    colors = [_COLORS[0] if "Tempo" in arm else "0.65" for arm in shown.arm]
    axes.barh(shown.arm, shown.bytes_per_bsh, color=colors)
    axes.bar_label(axes.containers[0], fmt="%.0f", padding=3, fontsize=8)
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="bytes kept by one layer per element of a hidden state", title="BERT-Large layer, S = 512, fp32")
    axes.margins(x=0.08)
    return figure
