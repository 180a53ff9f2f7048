"""Whole workloads at paper scale: the twelve cells of Fig. 10, Fig. 11's interconnects, and what moves them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd

from paperlab.hardware import device
from paperlab.lab.workers import in_processes
from paperlab.seesaw.estimate import estimate_s
from paperlab.seesaw.hardware import Node, node
from paperlab.seesaw.search import resharding_runs, static_runs
from paperlab.seesaw.simulation import Run
from paperlab.seesaw.studies.published import A100, LABELS, MODELS
from paperlab.seesaw.workloads import workload
from paperlab.transformer import preset

KINDS = ("static", "re-sharding")


@dataclass(frozen=True)
class Cell:
    """One model on one node and workload; its best runs of either kind are simulated."""

    model: str
    node: Node
    gpus: int
    workload: str
    requests: int
    seed: int
    simulate: int


def best_runs(cell: Cell) -> list[dict[str, object]]:
    """Return a row for the best run of each kind: the fastest simulated of the `simulate` best forecasts.

    Forecasts of pairs are within a percent or two, those of static layouts within fifteen: of pairs one less is
    simulated.
    """
    work = workload(cell.workload, cell.requests, cell.seed)
    rows = []
    for kind, runs in zip(KINDS, (static_runs, resharding_runs), strict=True):
        candidates = list(runs(preset(cell.model), cell.node, cell.gpus))
        few = cell.simulate if kind == "static" else max(1, cell.simulate - 1)
        ranked = sorted(candidates, key=lambda run: estimate_s(run, work.requests))[:few]
        scored = [(run, run.simulate(work)) for run in ranked]
        run, log = min(scored, key=lambda pair: pair[1].end_s)
        rows.append({
            "device": cell.node.device.name, "node": cell.node.name, "workload": cell.workload, "model": cell.model,
            "seed": cell.seed, "kind": kind, "layout": _layout(run), "chunk_tokens": run.chunk_tokens,
            "makespan_s": log.end_s, "requests_per_s": cell.requests / log.end_s, "transitions": len(log.switches),
            "preemptions": sum(note.kind == "preempt" for note in log.notes), "candidates": len(candidates),
            "ideal_s": ideal_s(run, work.requests),
        })  # fmt: skip
    return rows


def ideal_s(run: Run, requests: Iterable[object]) -> float:
    """Return the least seconds that the GPUs' arithmetic alone takes: all FLOPs at the dense peak.

    A bound for every layout; the fraction reached is `ideal_s / makespan_s`.
    """
    from paperlab.transformer import forward_flops

    flops = 0.0
    for item in requests:
        prompt, output = item.prompt_tokens, item.output_tokens  # type: ignore[attr-defined]
        flops += forward_flops(run.model, prompt, logits=1, skip_masked=True).total
        flops += (output - 1) * forward_flops(run.model, 1, prompt + output // 2).total
    return float(flops / run.prefill.ranks / run.node.device.peak(run.node.dtype))


def cells(devices: Sequence[str], requests: dict[str, int], seeds: Sequence[int], simulate: int) -> list[Cell]:
    """Return Fig. 10's cells: three models, two workloads, on every device."""
    return [
        Cell(model, node(name), gpus, work, requests[work], seed, simulate)
        for name in devices
        for work in requests
        for model, gpus in MODELS.items()
        for seed in seeds
    ]


def table(todo: Sequence[Cell], workers: int) -> pd.DataFrame:
    """Return the best runs of every cell, with the speed-up of each kind over the static one of its cell."""
    rows = [row for rows in in_processes(best_runs, todo, workers) for row in rows]
    frame = pd.DataFrame(rows)
    keys = ["node", "workload", "model", "seed"]
    static = frame[frame["kind"] == "static"].set_index(keys)["requests_per_s"]
    frame["speedup"] = (
        frame["requests_per_s"].to_numpy() / static.loc[list(frame[keys].itertuples(index=False))].to_numpy()
    )
    frame["fraction_of_bound"] = frame["ideal_s"] / frame["makespan_s"]
    return frame.drop(columns="ideal_s")


def with_labels(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the paper's label of each cell and whether the layout is the same."""
    keys = zip(frame["device"], frame["workload"], frame["model"], frame["kind"], strict=True)
    labels = [LABELS[name, work, model][KINDS.index(kind)] for name, work, model, kind in keys]
    return frame.assign(paper_layout=labels, same_layout=frame["layout"] == labels)


def speedups(frame: pd.DataFrame) -> pd.DataFrame:
    """Return geometric mean, least and largest speed-up by device and over all cells.

    `mean_low` and `mean_high` are the least and largest geometric mean of one seed's cells.
    """
    pairs = frame[frame["kind"] == "re-sharding"]
    groups = [(name, part) for name, part in pairs.groupby("device")]
    rows = []
    for name, part in [*groups, ("all", pairs)]:
        logs = part["speedup"].map(math.log)
        means = logs.groupby(part["seed"]).mean().map(math.exp)
        row = (name, len(part) // len(means), len(means), math.exp(logs.mean()), means.min(), means.max())
        rows.append((*row, part["speedup"].min(), part["speedup"].max()))
    means_of = ["geometric_mean", "mean_low", "mean_high"]
    return pd.DataFrame(rows, columns=["device", "cells", "seeds", *means_of, "least", "largest"])


def interconnects(requests: dict[str, int], seeds: Sequence[int], simulate: int, workers: int) -> pd.DataFrame:
    """Return Fig. 11: LLaMA2-70B on 8 A100s over PCIe and NVLink, normalized to the best static over NVLink."""
    nodes = {kind: node("A100-SXM-40GB", kind) for kind in ("pcie", "nvlink")}
    todo = [
        Cell("llama2-70b", on, 8, work, requests[work], seed, simulate)
        for on in nodes.values() for work in requests for seed in seeds
    ]  # fmt: skip
    frame = table(todo, workers)
    frame["interconnect"] = frame["node"].map({on.name: kind for kind, on in nodes.items()})
    base = frame[(frame["interconnect"] == "nvlink") & (frame["kind"] == "static")]
    base_rate = base.set_index(["workload", "seed"])["requests_per_s"]
    frame["normalized"] = [
        rate / base_rate[work, seed]
        for rate, work, seed in zip(frame["requests_per_s"], frame["workload"], frame["seed"], strict=True)
    ]
    keys = zip(frame["workload"], frame["kind"], frame["interconnect"], strict=True)
    return frame.assign(paper_normalized=[A100[key] for key in keys])


VARIANTS = {
    "as calibrated": {},
    "all-reduce at half the rate": {"all_reduce": 0.5},
    "all-reduce at a quarter of the rate": {"all_reduce": 0.25},
    "all-reduce at twice the rate": {"all_reduce": 2.0},
    "arithmetic at 70 %": {"linear_flops_per_s": 0.7, "attention_flops_per_s": 0.7},
    "memory at 80 %": {"memory_Bps": 0.8},
    "prefill attention at half the rate": {"attention_flops_per_s": 0.5},
    "no host time per iteration": {"step_overhead_s": 0.0},
    "5 ms of host time per iteration": {"step_overhead_s": 5.0},
    "A10G in place of the A10": {},
}  # what each multiplies


def varied(on: Node, variant: str) -> Node:
    """Return `on` with one assumption changed."""
    if variant == "A10G in place of the A10":
        share = device("A10G").peak("fp16") / device("A10").peak("fp16")
        if on.device.name != "A10":
            return on
        return replace(
            on, linear_flops_per_s=on.linear_flops_per_s * share, attention_flops_per_s=on.attention_flops_per_s * share
        )
    changed: dict[str, object] = {}
    for name, factor in VARIANTS[variant].items():
        value = getattr(on, name)
        changed[name] = value.scaled(factor) if name == "all_reduce" else value * factor
    return replace(on, **changed)  # type: ignore[arg-type]


def sensitivity(todo: Sequence[Cell], workers: int) -> pd.DataFrame:
    """Return the forecast speed-ups of Fig. 10 under one changed assumption at a time, by device and over all.

    Forecasts take static layouts for up to 15 % slower than they are, so the speed-ups are too high; what counts is
    `over_calibrated`, the geometric mean over that of the unchanged node.
    """
    frames = []
    for variant, rows in zip(
        VARIANTS, in_processes(partial(_forecast, list(todo)), tuple(VARIANTS), workers), strict=True
    ):
        frames.append(speedups(pd.DataFrame(rows)).assign(variant=variant))
    frame = pd.concat(frames, ignore_index=True)
    base = frame[frame["variant"] == "as calibrated"].set_index("device")["geometric_mean"]
    frame["over_calibrated"] = frame["geometric_mean"] / frame["device"].map(base)
    return frame[["variant", "device", "cells", "geometric_mean", "over_calibrated", "least", "largest"]]


def _forecast(todo: list[Cell], variant: str) -> list[dict[str, object]]:
    rows = []
    for cell in todo:
        on, requests = varied(cell.node, variant), workload(cell.workload, cell.requests, cell.seed).requests
        least = [
            min(estimate_s(run, requests) for run in runs(preset(cell.model), on, cell.gpus))
            for runs in (static_runs, resharding_runs)
        ]
        speedup = least[0] / least[1]
        rows.append({"device": cell.node.device.name, "kind": "re-sharding", "seed": cell.seed, "speedup": speedup})
    return rows


def _layout(run: Run) -> str:
    return run.label if run.decode is not None else str(run.prefill)
