"""The what-if drawings of `91_across_systems`: memory per GPU, load, and bits, each with its crossover."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from paperlab.across.bits import Server
from paperlab.across.fleet import SYSTEMS
from paperlab.across.plots import ARM, METRICS, SYSTEM
from paperlab.across.training import ARMS, Workload, best_plan
from paperlab.serving.work import StepShape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from paperlab.mist.models import Attention

CONTEXT = 1024  # tokens of each sequence that decodes


def draw_memory(axes: Axes, capacity_GiB: float, attention: Attention = "flash") -> None:
    """Draw predicted throughput of GPT-7B on 8 L4 with another memory size, without and with Tempo, under Mist."""
    work = Workload("l4", "7b", 2048, attention, capacity_GiB=capacity_GiB)
    plans = {arm: best_plan(work, arm, "Mist") for arm in ARMS}
    rates = [p.global_batch / p.prediction.iteration_s if p and p.prediction else 0.0 for p in plans.values()]
    bars = axes.bar(list(plans), rates, color=[ARM[arm] for arm in plans])
    counts = [sum(s.checkpointed for s in plan.stages) if plan else None for plan in plans.values()]
    labels = [
        f"{rate:.2f}\n{n} layers again" if n is not None else "does not fit"
        for rate, n in zip(rates, counts, strict=True)
    ]
    axes.bar_label(bars, labels=labels, fontsize=8)
    gain = f"{rates[1] / rates[0] - 1:+.1%}" if rates[0] else "-"
    axes.set(ylabel="sequences/s (predicted)", ylim=(0, 5.2))
    axes.set_title(f"{capacity_GiB:g} GiB, {attention}: {gain}", fontsize=10)


def draw_load(axes: Axes, load: float, metric: str, table: pd.DataFrame) -> None:
    """Draw one latency of the four systems at one load of `exhibit_loads`' table, a group of bars per model."""
    found = table[np.isclose(table.load, load)].groupby(["model", "system"])[metric].mean().unstack()[list(SYSTEMS)]
    found.plot.bar(ax=axes, color=[SYSTEM[system] for system in SYSTEMS], rot=0, legend=False)
    axes.set(xlabel="", ylabel=METRICS[metric], ylim=(0, 1.05 * table[metric].max()))
    axes.set_yscale("symlog", linthresh=table[metric].min())
    axes.set_title(f"load {load:g}: " + ", ".join(map(str, found.idxmin(axis=1))), fontsize=9)
    axes.legend(fontsize=7)


def draw_bits(axes: Axes, w_bits: float, kv_bits: float) -> None:
    """Draw decoding tokens per second over the batch, up to the batch that fits, beside the plain model's."""
    for server, color in ((Server(), "0.6"), (Server(w_bits=w_bits, kv_bits=kv_bits), SYSTEM[SYSTEMS[0]])):
        setup = server.deployment
        most = setup.kv_blocks * setup.block_size // CONTEXT
        batches = np.unique(np.geomspace(1, most, 24).astype(int))
        device = setup.device_model
        steps = [StepShape(0, 0, 0, int(b), int(b) * CONTEXT, int(b)) for b in batches]
        rates = [b / device.seconds(device.load(step)) for b, step in zip(batches, steps, strict=True)]
        axes.plot(batches, rates, color=color, label=f"{server.w_bits:g} / {server.kv_bits:g} bits")
        axes.plot(batches[-1], rates[-1], "o", color=color)
    axes.set(xscale="log", yscale="log", xlim=(0.9, 600), ylim=(8, 4000))
    axes.set(xlabel=f"sequences that decode, {CONTEXT} tokens each", ylabel="tokens/s (analytic)")
    axes.set_title(f"weights {w_bits:g}, cache {kv_bits:g} bits; dot: what fits", fontsize=9)
    axes.legend(fontsize=8)
