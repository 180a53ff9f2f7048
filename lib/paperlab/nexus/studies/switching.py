"""The three switching mechanisms of Fig. 8 on one workload: what each lane holds over time, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from paperlab.serving.events import EventLog
from paperlab.serving.grid import Cell

MECHANISMS: dict[str, dict[str, Any]] = {
    "(a) barrier": {"barrier": True, "delta_points": 0.0},
    "(b) asynchronous": {"delta_points": 0.0},
    "(c) asynchronous, buffered": {},
}


def runs(cell: Cell) -> dict[str, EventLog]:
    """Return the log of `cell`, a run of `nexus`, under each mechanism."""
    return {name: _with_options(cell, options).run() for name, options in MECHANISMS.items()}


def timeline(logs: dict[str, EventLog], start_s: float, end_s: float) -> pd.DataFrame:
    """Return the iterations of a stretch of time: columns mechanism, lane, start_s, end_s, share."""
    rows = [
        (name, step.lane, step.start_s, step.end_s, step.share)
        for name, log in logs.items()
        for step in log.steps
        if step.end_s > start_s and step.start_s < end_s
    ]
    return pd.DataFrame(rows, columns=["mechanism", "lane", "start_s", "end_s", "share"])


def busiest(log: EventLog, seconds: float) -> float:
    """Return the start of the stretch of that length with the most layout switches."""
    times = np.array([note.time_s for note in log.notes if note.kind == "layout"])
    if not len(times):
        return 0.0
    count = np.searchsorted(times, times + seconds) - np.arange(len(times))
    return max(0.0, float(times[np.argmax(count)]) - 0.1)


def comparison(logs: dict[str, EventLog]) -> pd.DataFrame:
    """Return per mechanism how often it switched, and how much of the time both lanes together held what share.

    Columns: mechanism, layout_switches, switches_per_s, overcommitted (part of the time above the whole device),
    barrier_wait (part of the time in which one lane ran and the other had promised to wait), ttft_mean_s, tbt_mean_s.
    """
    rows = []
    for name, log in logs.items():
        summary = log.summary().iloc[0]
        switches, total_s = int(summary.layout_switches), summary.makespan_s
        over_s = sum(seconds for seconds, held in _held(log) if held > 1 + 1e-9)
        cells = (switches, switches / total_s, over_s / total_s, _waited_s(log) / total_s)
        rows.append((name, *cells, summary.ttft_mean_s, summary.tbt_mean_s))
    columns = ["mechanism", "layout_switches", "switches_per_s", "overcommitted", "barrier_wait"]
    return pd.DataFrame(rows, columns=[*columns, "ttft_mean_s", "tbt_mean_s"])


def _held(log: EventLog) -> list[tuple[float, float]]:
    """Return (seconds, sum of the shares that the lanes hold) for each stretch between events."""
    changes = sorted(
        [(step.start_s, step.share) for step in log.steps] + [(step.end_s, -step.share) for step in log.steps]
    )
    held, stretches = 0.0, []
    for (time_s, change), (next_s, _) in pairwise(changes):
        held += change
        stretches.append((next_s - time_s, held))
    return stretches


def _waited_s(log: EventLog) -> float:
    """Return the seconds from each `barrier` note to the switch that it waits for."""
    since, total_s = None, 0.0
    for note in log.notes:
        if note.kind == "barrier":
            since = note.time_s
        elif note.kind == "layout" and since is not None:
            total_s, since = total_s + note.time_s - since, None
    return total_s


def _with_options(cell: Cell, options: Mapping[str, Any]) -> Cell:
    return replace(cell, policy_options={**cell.policy_options, **options})
