"""Offline batches, latency by stage, the controls that the paper does not print, and what the penalties decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from paperlab.nexus.studies.serving_study import LDC, MIXED, Scenario, with_constants
from paperlab.serving.grid import Cell, run_cells

TIMEOUT = 3.0  # times the vLLM-like makespan; the paper's rule is unknown
STAGES = ("execution", "scheduler", "waiting")
CONTROLS: dict[str, tuple[str, dict[str, float]]] = {
    "vLLM-like": ("vllm-like", {}),
    "vLLM-like with SPF, no partition": ("spf-chunked", {}),
    "static 30/70, SPF": ("nexus-wo-sc", {"split_percent": 30.0}),
    "static 50/50, SPF": ("nexus-wo-sc", {"split_percent": 50.0}),
    "static 70/30, SPF": ("nexus-wo-sc", {"split_percent": 70.0}),
    "reactive split, SPF": ("reactive", {}),
    "Nexus": ("nexus", {}),
    "Nexus, slacks 2.0 and 1.5": ("nexus", {"alpha": 2.0, "beta": 1.5}),
}


def makespans(jobs: Mapping[Scenario, Sequence[int]], systems: Sequence[str], seed: int, workers: int) -> pd.DataFrame:
    """Return makespan_s per scenario, number of jobs and system, with `timed_out`; the paper's Fig. 11."""
    points = [(scenario, count) for scenario, counts in jobs.items() for count in counts]
    base = run_cells([scenario.cell("vllm-like", None, count, seed) for scenario, count in points], workers)
    limits = dict(zip(points, TIMEOUT * base.makespan_s, strict=True))
    cells = [
        scenario.cell(system, None, count, seed, until_s=limits[scenario, count])
        for scenario, count in points
        for system in systems
    ]
    found = run_cells(cells, workers)
    found["jobs"] = found.finished + found.refused + found.unfinished
    found["timed_out"] = found.unfinished > 0
    columns = ["scenario", "gpus", "jobs", "system", "makespan_s", "requests_per_s", "unfinished", "timed_out"]
    return found[[*columns, "preemptions"]]


def stages(grid: pd.DataFrame) -> pd.DataFrame:
    """Return seconds per output token by stage at the middle rates of a grid, mean over seeds."""
    order = grid.groupby("scenario").rate_per_s.rank("dense")  # 1 for the lowest rate
    first = (grid.groupby("scenario").rate_per_s.transform("nunique") + 1) // 2
    chosen = grid[order.between(first, first + 1)]
    columns = {f"{stage}_per_token_s": stage for stage in STAGES}
    keys = ["scenario", "rate_per_s", "system"]
    means = chosen.groupby(keys, sort=False)[list(columns)].mean().rename(columns=columns).reset_index()
    return means.melt(keys, var_name="stage", value_name="seconds_per_token")


def controls(rates: Sequence[float], requests: int, seeds: Sequence[int], workers: int) -> pd.DataFrame:
    """Return metrics of the arms of `CONTROLS` on LDC and Mixed, from low load to overload; column `arm`."""
    cells = []
    for scenario in (LDC, MIXED):
        for rate in rates:
            for arm, (system, options) in CONTROLS.items():
                for seed in seeds:
                    cell = scenario.cell(system, rate, requests, seed, policy_options=options)
                    cells.append(_labeled(cell, arm=arm))
    return run_cells(cells, workers)


def penalties(
    values: Sequence[float], rates: Sequence[float], requests: int, seeds: Sequence[int], workers: int
) -> pd.DataFrame:
    """Return LDC's grid for vLLM-like, SPF without partition and Nexus under each penalty, one at a time.

    Columns `penalty` (`mixed batches` or `side by side`) and `factor` come in front.
    """
    cells = []
    for name, field in (("mixed batches", "mixed_penalty"), ("side by side", "corun_penalty")):
        for factor in values:
            for rate in rates:
                for system in ("vllm-like", "spf-chunked", "nexus"):
                    for seed in seeds:
                        options = with_constants(**{field: factor})
                        cell = LDC.cell(system, rate, requests, seed, options=options)
                        cells.append(_labeled(cell, penalty=name, factor=factor))
    return run_cells(cells, workers)


def _labeled(cell: Cell, **columns: Any) -> Cell:
    return replace(cell, columns={**columns, **cell.columns})
