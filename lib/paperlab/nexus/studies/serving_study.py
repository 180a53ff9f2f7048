"""Systems against arrival rates: the grids behind Figs. 9 to 13, what they sustain, and the largest gains in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from paperlab.serving.constants import constants
from paperlab.serving.grid import Cell, run_cells

DEVICE = "L20"
ONE_GPU = ("vllm-like", "sglang-like", "fastserve-like", "nexus")
FIVE = (*ONE_GPU, "vllm-pd-like")
ABLATION = {
    "pf-df-wo-sc": "PF-DF-Wo-SC",
    "pf-df-w-sc": "PF-DF-W-SC",
    "nexus-wo-sc": "Nexus-Wo-SC",
    "nexus": "Nexus",
}
THRESHOLDS_S = (0.2, 0.5, 1.0)  # mean normalized latency that counts as sustained; the paper's is unknown


@dataclass(frozen=True)
class Scenario:
    """A row of Fig. 9, or Fig. 10: a workload on a model, on `gpus` devices."""

    label: str
    lengths: str
    model: str
    gpus: int = 1

    def cell(self, system: str, rate_per_s: float | None, requests: int, seed: int, **changes: Any) -> Cell:
        """Return one simulation. A system on two devices by itself is not tensor-parallel on top."""
        tp = 1 if system == "vllm-pd-like" else self.gpus
        columns = {"scenario": self.label, "gpus": 2 if system == "vllm-pd-like" else self.gpus}
        cell = Cell(
            system, self.model, DEVICE, self.lengths, rate_per_s, requests, seed, options={"tp": tp}, columns=columns
        )
        return replace(cell, **changes)


LDC = Scenario("LDC, Qwen2.5-3B", "ldc", "qwen2.5-3b")
ARXIV = Scenario("arXiv, Qwen2.5-3B", "arxiv", "qwen2.5-3b")
MIXED = Scenario("Mixed, Llama-3.1-8B", "mixed", "llama3.1-8b")
LARGE = Scenario("Mixed, Qwen2.5-14B, 2 GPUs", "mixed", "qwen2.5-14b", gpus=2)


def rate_grid(
    rates: Mapping[Scenario, Sequence[float]],
    systems: Sequence[str],
    requests: int,
    seeds: Sequence[int],
    workers: int,
    **changes: Any,
) -> pd.DataFrame:
    """Return a row of metrics per scenario, system, rate and seed."""
    cells = [
        scenario.cell(system, rate, requests, seed, **changes)
        for scenario, points in rates.items()
        for rate in points
        for system in systems
        for seed in seeds
    ]
    return run_cells(cells, workers)


def with_constants(**changes: Any) -> dict[str, Any]:
    """Return `Cell` options whose device constants differ from the stored ones in `changes`, at tp = 1."""
    return {"tp": 1, "constants": replace(constants(DEVICE), **changes)}


def sustained(grid: pd.DataFrame, thresholds_s: Sequence[float] = THRESHOLDS_S) -> pd.DataFrame:
    """Return the highest rate that each system sustains: mean normalized latency within a threshold.

    Latencies are averaged over seeds and joined by straight lines between the grid's rates. `bound` says `at least`
    where the highest rate of the grid is still sustained, `below` where not even the lowest is. Columns: scenario,
    system, threshold_s, rate_per_s, bound.
    """
    rows = []
    means = grid.groupby(["scenario", "system", "rate_per_s"]).normalized_latency_mean_s.mean()
    for pair in dict.fromkeys(zip(grid.scenario, grid.system, strict=True)):
        curve = means[pair]
        rates = curve.index.to_numpy()
        latency = np.maximum.accumulate(curve.to_numpy())
        for threshold in thresholds_s:
            rows.append((*pair, threshold, *_crossing(rates, latency, threshold)))
    return pd.DataFrame(rows, columns=["scenario", "system", "threshold_s", "rate_per_s", "bound"])


def _crossing(rates: np.ndarray, latency: np.ndarray, threshold: float) -> tuple[float, str]:
    if latency[-1] <= threshold:
        return float(rates[-1]), "at least"
    if latency[0] > threshold:
        return float(rates[0]), "below"
    first = int(np.argmax(latency > threshold))
    slope = (threshold - latency[first - 1]) / (latency[first] - latency[first - 1])
    return float(rates[first - 1] + slope * (rates[first] - rates[first - 1])), ""


def throughput_gains(capacity: pd.DataFrame, system: str = "nexus") -> pd.DataFrame:
    """Return how many times the rate of each other system `system` sustains, per scenario and threshold.

    A ratio with a bound on either side is itself a bound, and `bounded` tells. Columns: scenario, threshold_s, over,
    gain, bounded.
    """
    keys = ["scenario", "threshold_s"]
    ours = capacity[capacity.system == system]
    others = capacity[capacity.system != system].merge(ours, on=keys, suffixes=("", "_ours"))
    others["gain"] = others.rate_per_s_ours / others.rate_per_s
    others["bounded"] = (others.bound != "") | (others.bound_ours != "")
    return others.rename(columns={"system": "over"})[[*keys, "over", "gain", "bounded"]].reset_index(drop=True)


def latency_gains(grid: pd.DataFrame, system: str = "nexus") -> pd.DataFrame:
    """Return how many times larger each other system's latencies are than those of `system`, seed by seed.

    Columns: scenario, rate_per_s, over, metric, gain (median over seeds), low and high (extremes).
    """
    metrics = [f"{name}_{kind}_s" for name in ("ttft", "tbt", "normalized_latency") for kind in ("mean", "p95")]
    keys = ["scenario", "rate_per_s", "seed"]
    long = grid.melt([*keys, "system"], metrics, var_name="metric", value_name="seconds")
    ours = long[long.system == system].drop(columns="system")
    long = long[long.system != system].merge(ours, on=[*keys, "metric"], suffixes=("", "_ours"))
    long["gain"] = long.seconds / long.seconds_ours
    found = long.groupby(["scenario", "rate_per_s", "system", "metric"], sort=False).gain.agg(["median", "min", "max"])
    names = {"system": "over", "median": "gain", "min": "low", "max": "high"}
    return found.reset_index().rename(columns=names)
