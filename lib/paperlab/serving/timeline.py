"""Timelines: what each lane did when, as a table, a drawing, and a trace for Perfetto or Chrome's trace viewer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperlab.lab.files import write_atomic
from paperlab.serving.metrics import kv_usage

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from paperlab.serving.events import EventLog

KINDS = ("prefill", "decode", "mixed", "copy")
COLORS = {"prefill": "#0173b2", "decode": "#de8f05", "mixed": "#949494", "copy": "#029e73"}
MICRO = 1e6  # trace times are in microseconds


def spans(log: EventLog) -> pd.DataFrame:
    """Return what ran: lane, start_s, end_s, kind (of `KINDS`), share of the device, requests, tokens, kv_used."""
    import pandas as pd

    rows: list[tuple[Any, ...]] = [
        (s.lane, s.start_s, s.end_s, s.shape.kind, s.share, len(s.requests), s.shape.tokens, s.kv_used)
        for s in log.steps
    ]
    rows += [(m.lane, m.start_s, m.end_s, "copy", 1.0, len(m.requests), 0, m.blocks) for m in log.moves]
    columns = ["lane", "start_s", "end_s", "kind", "share", "requests", "tokens", "kv_used"]
    return pd.DataFrame(rows, columns=columns).sort_values(["start_s", "lane"], ignore_index=True)


def draw(axes: Axes, log: EventLog, start_s: float = 0.0, end_s: float | None = None, *, legend: bool = True) -> None:
    """Draw the lanes between two times; a bar's height is its share of the device."""
    from matplotlib.patches import Patch

    end_s = log.end_s if end_s is None else end_s
    table = spans(log)
    table = table[(table["end_s"] > start_s) & (table["start_s"] < end_s)]
    lanes = [lane for lane in log.about.get("lanes", sorted(table["lane"].unique())) if lane in set(table["lane"])]
    for row in table.to_dict("records"):
        low = len(lanes) - 1 - lanes.index(row["lane"]) - 0.4
        bar, color = (row["start_s"], row["end_s"] - row["start_s"]), COLORS[row["kind"]]
        axes.broken_barh([bar], (low, 0.8 * row["share"]), facecolor=color, edgecolor="white", linewidth=0.3)
    axes.set(xlim=(start_s, end_s), ylim=(-0.6, len(lanes) - 0.4), xlabel="time (s)")
    axes.set_yticks(range(len(lanes)), lanes[::-1])
    axes.grid(axis="y", visible=False)
    if legend:
        kinds = [kind for kind in KINDS if kind in set(table["kind"])]
        axes.legend(
            handles=[Patch(color=COLORS[kind], label=kind) for kind in kinds],
            loc="lower right", bbox_to_anchor=(1, 1), ncols=len(kinds), fontsize=8, handlelength=1,
        )  # fmt: skip


def draw_memory(axes: Axes, log: EventLog, start_s: float = 0.0, end_s: float | None = None) -> None:
    """Draw the use of each device's pool of keys and values over the same time, in percent of its blocks."""
    for pool, table in kv_usage(log).groupby("pool"):
        axes.step(table["time_s"], 100 * table["usage"], where="post", label=pool, linewidth=1)
    axes.set(xlim=(start_s, log.end_s if end_s is None else end_s), ylim=(0, 103), xlabel="time (s)")
    axes.set_ylabel("KV blocks in use (%)")
    if len(axes.lines) > 1:
        axes.legend(fontsize=8)


def trace_events(log: EventLog) -> list[dict[str, Any]]:
    """Return the log as Chrome trace events: a thread per lane, an arrow's instant per note, counters for memory."""
    table = spans(log)
    threads = {lane: index for index, lane in enumerate(sorted(table["lane"].unique()))}
    process = {"pid": 0}
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "thread_name", "tid": tid, "args": {"name": lane}, **process}
        for lane, tid in threads.items()
    ]
    for row in table.to_dict("records"):
        start, duration = row["start_s"] * MICRO, (row["end_s"] - row["start_s"]) * MICRO
        arguments = {name: row[name] for name in ("share", "requests", "tokens", "kv_used")}
        place = {"tid": threads[row["lane"]], **process}
        events.append({"ph": "X", "name": row["kind"], "ts": start, "dur": duration, "args": arguments, **place})
        if row["kind"] != "copy":
            counter = {"ph": "C", "name": f"blocks used, {row['lane']}", "ts": start}
            events.append({**counter, "args": {"blocks": row["kv_used"]}, **process})
    for note in log.notes:
        about = {"request": note.request_id, "detail": note.detail}
        events.append(
            {"ph": "i", "s": "p", "name": note.kind, "ts": note.time_s * MICRO, "tid": 0, "args": about, **process}
        )
    return events


def save_trace(log: EventLog, path: Path | str) -> Path:
    """Write a trace that ui.perfetto.dev and chrome://tracing open; returns its path."""
    described = {key: str(value) for key, value in log.about.items()}
    text = json.dumps({"traceEvents": trace_events(log), "displayTimeUnit": "ms", "otherData": described})
    return write_atomic(Path(path), text)
