"""Sweeps at paper scale: Figs. 12-14, and the ablation that the paper does not print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pandas as pd

from paperlab.lab.workers import in_processes
from paperlab.seesaw.estimate import estimate_s
from paperlab.seesaw.hardware import node
from paperlab.seesaw.layout import Layout
from paperlab.seesaw.search import CHUNKS
from paperlab.seesaw.simulation import RESHARDING, Run, run
from paperlab.seesaw.workloads import workload
from paperlab.serving.events import EventLog
from paperlab.serving.lengths import fixed
from paperlab.serving.workload import Workload
from paperlab.transformer import preset

PHASES = ("prefill", "mixed", "decode", "other")
RATIO_PROMPT = 3000
RATIO_LAYOUTS = ("T4P2", "T2P4", "P8", "P8→T4P2")
LINK_LAYOUTS = ("D2P4", "D2T2P2", "D2T4", "P8", "T2P4", "T4P2", "T8", "D2P4→D2T4")


def phase_times(log: EventLog) -> dict[str, float]:
    """Return the makespan divided among prefill, mixed and decode steps, and none: an instant counts for all under way.

    Where steps of several kinds are under way in the pipeline, they share the instant evenly.
    """
    edges = [(step.start_s, 1, step.shape.kind) for step in log.steps] + [
        (step.end_s, -1, step.shape.kind) for step in log.steps
    ]
    found, running, last_s = dict.fromkeys(PHASES, 0.0), dict.fromkeys(PHASES, 0), 0.0
    for time_s, change, kind in sorted(edges):
        total = sum(running.values())
        for name in PHASES[:3]:
            if running[name]:
                found[name] += (time_s - last_s) * running[name] / total
        if not total:
            found["other"] += time_s - last_s
        running[kind], last_s = running[kind] + change, time_s
    found["other"] += log.end_s - last_s
    return found


def run_times(requests: int, seed: int) -> pd.DataFrame:
    """Return Fig. 12: makespan by phase of four schedules, CodeLLaMA-34B on 4 A10s, arXiv.

    Chunked prefill is tuned for TP2PP2 and off for TP4 and PP4, as in the paper; every static layout with every chunk
    size stands in `static_makespans`.
    """
    work = workload("arxiv", requests, seed)
    runs = {"tp4": _static("T4"), "pp4": _static("P4"), "p4→t4": run("codellama-34b", "A10", "P4→T4")}
    runs["tp2pp2+chunked"] = min(
        (_static("T2P2", chunk) for chunk in CHUNKS if chunk), key=lambda item: item.simulate(work).end_s
    )
    rows = []
    for name, item in runs.items():
        log = item.simulate(work)
        steps = [step.shape.kind for step in log.steps]
        for phase, seconds in phase_times(log).items():
            rows.append((name, item.chunk_tokens, phase, seconds, log.end_s, steps.count(phase)))
    return pd.DataFrame(rows, columns=["schedule", "chunk_tokens", "phase", "seconds", "makespan_s", "steps"])


def static_makespans(requests: int, seed: int) -> pd.DataFrame:
    """Return the makespan of every static layout and chunk size in that setting."""
    from paperlab.seesaw.search import static_runs

    work = workload("arxiv", requests, seed)
    rows = [(str(item.prefill), item.chunk_tokens, item.gpu_tokens, item.simulate(work).end_s)
            for item in static_runs(preset("codellama-34b"), node("A10"), 4)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["layout", "chunk_tokens", "kv_tokens", "makespan_s"])
    return frame.sort_values("makespan_s", ignore_index=True)


def _static(layout: str, chunk: int = 0) -> Run:
    return run("codellama-34b", "A10", layout, chunk_tokens=chunk)


def by_ratio(ratios: Sequence[float], requests: int, workers: int) -> pd.DataFrame:
    """Return Fig. 13: throughput of 70B on 8 A10s against output over input, 3,000 tokens in, static chunks tuned."""
    points = [(ratio, layout, requests) for ratio in ratios for layout in RATIO_LAYOUTS]
    frame = pd.DataFrame(
        in_processes(_ratio_point, points, workers),
        columns=["ratio", "output_tokens", "layout", "chunk_tokens", "requests_per_s"],
    )
    best = frame.groupby("ratio")["requests_per_s"].transform("max")
    return frame.assign(normalized=frame["requests_per_s"] / best)


def _ratio_point(point: tuple[float, str, int]) -> tuple[float, int, str, int, float]:
    ratio, layout, requests = point
    output = max(1, round(ratio * RATIO_PROMPT))
    work = workload(fixed(RATIO_PROMPT, output), requests)
    chosen, makespan_s = _tuned("llama2-70b", layout, work)
    return ratio, output, layout, chosen.chunk_tokens, requests / makespan_s


def _tuned(model: str, layout: str, work: Workload) -> tuple[Run, float]:
    """Return the best run of a layout and its makespan; of a static one, with the chunk size of the best forecast."""
    if "→" in layout:
        chosen = run(model, "A10", layout)
        return chosen, chosen.simulate(work).end_s
    choices = [run(model, "A10", layout, chunk_tokens=chunk) for chunk in CHUNKS]
    chosen = min(choices, key=lambda item: estimate_s(item, work.requests))
    return chosen, chosen.simulate(work).end_s


def by_link(factors: Sequence[float], requests: int, seed: int, workers: int) -> pd.DataFrame:
    """Return Fig. 14: throughput of CodeLLaMA-34B on 8 A10s, arXiv, with all-reduces so many times as fast."""
    points = [(factor, layout) for factor in factors for layout in LINK_LAYOUTS]
    rows = in_processes(partial(_link_point, requests, seed), points, workers)
    frame = pd.DataFrame(rows, columns=["factor", "layout", "chunk_tokens", "requests_per_s"])
    best = frame.groupby("factor")["requests_per_s"].transform("max")
    return frame.assign(over_best=frame["requests_per_s"] / best, is_best=frame["requests_per_s"] == best)


def _link_point(requests: int, seed: int, point: tuple[float, str]) -> tuple[float, str, int, float]:
    factor, layout = point
    work = workload("arxiv", requests, seed)
    on = node("A10")
    fast = replace(on, all_reduce=on.all_reduce.scaled(factor))
    first, _, second = layout.partition("→")
    pair = Layout.parse(second) if second else None
    runs = [
        Run(preset("codellama-34b"), fast, Layout.parse(first), pair, chunk) for chunk in ((0,) if second else CHUNKS)
    ]
    chosen = min(runs, key=lambda item: estimate_s(item, work.requests))
    return factor, layout, chosen.chunk_tokens, requests / chosen.simulate(work).end_s


def ablation(host_GiB: Sequence[float], requests: int, seed: int, workers: int) -> pd.DataFrame:
    """Return the ablation the paper does not print: policies x host memory, 70B on 8 A10s, P8 to T4P2, arXiv."""
    points = [("reshard-prefill-first", host_GiB[0]), ("reshard-decode-first", host_GiB[0])]
    points += [("seesaw", size) for size in host_GiB]
    frame = pd.DataFrame(in_processes(partial(_ablation_point, requests, seed), points, workers))
    return frame.assign(over_best=frame["makespan_s"] / frame["makespan_s"].min())


def _ablation_point(requests: int, seed: int, point: tuple[str, float]) -> dict[str, object]:
    policy, size = point
    assert policy in RESHARDING
    log = run("llama2-70b", "A10", "P8→T4P2", policy=policy, host_kv_bytes=size * 2**30).simulate(
        workload("arxiv", requests, seed)
    )
    groups = 2  # of T4P2: a step serves half of the resident sequences
    batches = [groups * len(step.requests) for step in log.steps if step.shape.kind == "decode"]
    loading_s = sum(switch.end_s - switch.start_s for switch in log.switches)
    return {
        "policy": policy, "host_GiB": size, "makespan_s": log.end_s, "transitions": len(log.switches),
        "mean_decode_batch": sum(batches) / max(1, len(batches)), "resharding_s": loading_s,
        "swapped_out": sum(move.target.startswith("host") for move in log.moves),
        "refused": sum(note.kind == "refuse" for note in log.notes),
    }  # fmt: skip
