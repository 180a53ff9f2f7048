"""One sweep for every point that the paper leaves open, and for its constants; all simulated.

Each value runs the same requests. What the control did is read from the log's notes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pandas as pd

from paperlab.serving.events import EventLog
from paperlab.serving.grid import Cell
from paperlab.serving.policy import Limits

# Name -> label -> what to change: fields of `Settings`, or token_budget, max_sequences, system, kv_tokens. The first
# label is the default.
SWEEPS: dict[str, dict[str, dict[str, Any]]] = {
    "saturation curve": {name: {"curve": name} for name in ("slope", "exponential")},
    "hysteresis": {f"{delta:g}": {"delta_points": delta} for delta in (5.0, 0.0, 2.0, 10.0, math.inf)},
    "controller period": {str(k): {"period": k} for k in (1, 4, 16, 64)},
    "contention": {name: {"contention": name} for name in ("bytes", "rate", "none")},
    "contention in the optimum": {"as in the latency": {}, "left out": {"contention_in_optimum": False}},
    "infeasible": {
        "clamp": {"contention_in_optimum": False},  # the case that makes it matter
        "keep": {"contention_in_optimum": False, "infeasible": "keep"},
    },
    "idle peer": {"whole device": {}, "keeps the split": {"idle_peer_full": False}},
    "thin batches": {"in proportion": {}, "full tiles of 128": {"tile_rows": 128}},
    "slacks": {
        f"alpha {alpha:g}, beta {beta:g}": {"alpha": alpha, "beta": beta}
        for alpha, beta in ((1.3, 1.1), (1.1, 1.1), (1.3, 1.5), (2.0, 1.5))
    },
    "aging": {f"{gamma:g}": {"gamma_tokens_per_s": gamma} for gamma in (15.0, 0.0, 1.5, 150.0, math.inf)},
    "static split": {
        f"{share}/{100 - share}": {"system": "nexus-wo-sc", "split_percent": share} for share in (50, 30, 70)
    },
    "token budget": {str(budget): {"token_budget": budget} for budget in (2048, 512, 8192)},
    "sequence cap": {str(cap): {"max_sequences": cap} for cap in (256, 32)},
    "victims": {"newest": {"kv_tokens": 24_000}, "prefill first": {"kv_tokens": 24_000, "victims": "prefill-first"}},
    "KV switch": {
        f"{switch:.0%} of {tokens // 1000}k tokens": {"kv_switch": switch, "kv_tokens": tokens}
        for tokens in (200_000, 60_000, 24_000)
        for switch in (0.7, 0.4)
    },
    "switching": {
        "asynchronous, buffered": {},
        "asynchronous": {"delta_points": 0.0},
        "barrier": {"delta_points": 0.0, "barrier": True},
    },
}
METRICS = ["ttft_mean_s", "ttft_p95_s", "tbt_mean_s", "tbt_p95_s", "normalized_latency_mean_s", "requests_per_s"]


def sweep(name: str, cell: Cell, seeds: Iterable[int]) -> pd.DataFrame:
    """Return one row per value and seed of the sweep called `name` around `cell`, a run of `nexus`.

    Columns: sweep, value, seed, the metrics, preemptions, and those of `control_row`.

    Raises:
        ValueError: there is no such sweep; the message lists the names.
    """
    if name not in SWEEPS:
        raise ValueError(f"no sweep {name!r}; there are {', '.join(SWEEPS)}")
    rows = []
    for label, changes in SWEEPS[name].items():
        for seed in seeds:
            variant = changed(replace(cell, seed=seed), changes)
            log = variant.run()
            summary = log.summary().iloc[0]
            kept = {metric: summary[metric] for metric in [*METRICS, "preemptions"]}
            rows.append(
                {
                    "sweep": name,
                    "value": label,
                    "seed": seed,
                    **kept,
                    **control_row(log, variant.policy_options.get("split_percent", 50.0)),
                }
            )
    return pd.DataFrame(rows)


def changed(cell: Cell, changes: Mapping[str, Any]) -> Cell:
    """Return `cell` with the changes of one entry of `SWEEPS`."""
    left = dict(changes)
    limits = {key: left.pop(key) for key in ("token_budget", "max_sequences") if key in left}
    options = {key: left.pop(key) for key in ("kv_tokens",) if key in left}
    return replace(
        cell,
        system=left.pop("system", cell.system),
        limits=Limits(
            **{"token_budget": cell.limits.token_budget, "max_sequences": cell.limits.max_sequences, **limits}
        ),
        options={**cell.options, **options},
        policy_options={**cell.policy_options, **left},
    )


def control_row(log: EventLog, start_percent: float = 50.0) -> dict[str, float]:
    """Return layout_switches, prefill_percent (mean over time of the layout in force) and decode_first.

    `decode_first` is the part of the time in which decode was the target (KV usage above the switch).
    """
    layouts = [(note.time_s, _percent(note.detail)) for note in log.notes if note.kind == "layout"]
    targets = [(note.time_s, float(note.detail == "decode")) for note in log.notes if note.kind == "target"]
    return {
        "layout_switches": len(layouts),
        "prefill_percent": _mean_over_time(layouts, start_percent, log.end_s),
        "decode_first": _mean_over_time(targets, 0.0, log.end_s),
    }


def _percent(detail: str) -> float:
    words = detail.split()  # prefill 46 of 92 multiprocessors
    return 100 * int(words[1]) / int(words[3])


def _mean_over_time(changes: list[tuple[float, float]], start: float, end_s: float) -> float:
    path = [(0.0, start), *changes, (end_s, math.nan)]
    return sum(value * (after - time_s) for (time_s, value), (after, _) in pairwise(path)) / end_s
