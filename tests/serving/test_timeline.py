"""Timelines: the table is the log, the trace is what the viewers' format asks for, the drawing shows every lane."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from matplotlib import pyplot as plt

from paperlab.serving import simulate, timeline, workload
from paperlab.serving.events import Move
from tests.serving.test_metrics import by_hand


@pytest.fixture
def log():
    log = by_hand()
    log.moves.append(Move("swap", 5.0, 5.5, (1,), "gpu0", "host", 2))
    log.about["lanes"] = {"main": "gpu0", "swap": "host"}
    return log


def test_spans_are_the_log(log):
    table = timeline.spans(log)
    assert list(table.kind) == ["prefill", "mixed", "copy", "decode"]
    assert list(table.lane) == ["main", "main", "swap", "main"]
    assert table.kv_used.tolist() == [2, 3, 2, 4]


def test_the_trace_is_valid_and_complete(log, tmp_path):
    path = timeline.save_trace(log, tmp_path / "trace.json")
    events = json.loads(path.read_text())["traceEvents"]
    complete = [event for event in events if event["ph"] == "X"]
    assert sorted((event["ts"], event["dur"]) for event in complete)[0] == (0.5e6, 1.5e6)
    assert len(complete) == 4
    names = {event["args"]["name"]: event["tid"] for event in events if event["ph"] == "M"}
    assert set(names) == {"main", "swap"}
    assert {event["tid"] for event in complete} == set(names.values())
    assert {event["name"] for event in events if event["ph"] == "i"} == {"arrive", "refuse", "preempt", "finish"}
    for event in events:
        assert {"ph", "name", "pid"} <= set(event)
        assert event["ph"] == "M" or event["ts"] >= 0


def test_the_drawing_shows_lanes_in_their_order(log):
    _, axes = plt.subplots()
    timeline.draw(axes, log)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["swap", "main"]
    assert len(axes.collections) == 4
    plt.close("all")


def test_a_window_leaves_out_what_lies_outside(log):
    _, axes = plt.subplots()
    timeline.draw(axes, log, 5.6, 8.0)
    assert len(axes.collections) == 1
    plt.close("all")


def test_memory_over_time(log):
    _, axes = plt.subplots()
    timeline.draw_memory(axes, log)
    (line,) = axes.lines
    assert line.get_xdata().tolist() == [0.5, 2.0, 6.0]
    assert line.get_ydata().tolist() == [20, 30, 40]
    plt.close("all")


def test_a_trace_of_a_real_run_keeps_the_format():
    """Complete events of a thread do not overlap, times are finite numbers, and all refer to named threads."""
    work = workload("sharegpt", rate_per_s=8.0, requests=60, seed=1)
    log = simulate("fastserve-like", model="llama3.1-8b", device="l20", workload=work, kv_tokens=8_000)
    events = timeline.trace_events(log)
    json.dumps(events, allow_nan=False)
    named = {event["tid"] for event in events if event["ph"] == "M"}
    complete = [event for event in events if event["ph"] == "X"]
    assert len(complete) == len(log.steps) + len(log.moves)
    assert log.moves
    for thread in named:
        mine = sorted((event["ts"], event["dur"]) for event in complete if event["tid"] == thread)
        for (start, duration), (following, _) in pairwise(mine):
            assert duration > 0
            assert start + duration <= following + 1e-3
