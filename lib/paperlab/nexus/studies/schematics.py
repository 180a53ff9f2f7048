"""What the paper's schematics (Figs. 1, 3, 7) show, read off the code: lanes, one device's split, who calls whom."""

from __future__ import annotations

import sys
from collections import Counter
from types import FrameType
from typing import Any

import pandas as pd

from paperlab.hardware import device
from paperlab.nexus.layouts import layouts, nearest
from paperlab.nexus.policy import Nexus
from paperlab.nexus.saturation import PUBLISHED_DECODE
from paperlab.nexus.studies.contention_study import CHUNK, chunk
from paperlab.nexus.studies.saturation_study import published_model
from paperlab.nexus.studies.serving_study import DEVICE, LDC
from paperlab.serving import make_policy, simulate, workload
from paperlab.serving.deployment import deployment
from paperlab.serving.events import EventLog
from paperlab.serving.simulator import Simulator

# Fig. 1d: whether TTFT, TBT and utilization are good
PAPER_TICKS = {
    "vllm-like": (False, False, True),
    "vllm-pd-like": (True, True, False),
    "nexus": (True, True, True),
}


def system_lanes() -> pd.DataFrame:
    """Return the lanes of Fig. 1's three designs: system, lane, resource, kind, share of its device at the start."""
    setup, rows = deployment(LDC.model, DEVICE), []
    for system in PAPER_TICKS:
        policy = make_policy(system)
        policy.bind(setup)
        for lane in policy.lanes:
            layout = policy.layout if isinstance(policy, Nexus) else None
            share = layout.share(lane.name) if layout else 1.0
            rows.append((system, lane.name, lane.resource, lane.kind, share))
    return pd.DataFrame(rows, columns=["system", "lane", "resource", "kind", "share"])


def evolution(rate_per_s: float, requests: int, seed: int) -> pd.DataFrame:
    """Return mean TTFT and TBT and how busy the devices are, for Fig. 1d's designs, beside the paper's ticks.

    `busy` is the share of the multiprocessors that had work, over all devices and the run up to its last arrival.
    """
    rows = []
    for system, ticks in PAPER_TICKS.items():
        log = LDC.cell(system, rate_per_s, requests, seed).run()
        found = log.summary().iloc[0]
        gpus = len({log.about["lanes"][step.lane] for step in log.steps})
        rows.append((system, gpus, found.ttft_mean_s, found.tbt_mean_s, _busy(log) / gpus, *ticks))
    measures = ["ttft_mean_s", "tbt_mean_s", "busy"]
    ticks_of = ["paper_ttft_good", "paper_tbt_good", "paper_utilization_good"]
    return pd.DataFrame(rows, columns=["system", "gpus", *measures, *ticks_of])


def _busy(log: EventLog) -> float:
    """Return the mean number of devices' worth of multiprocessors at work until the last arrival."""
    end_s = max(request.arrival_s for request in log.requests.values())
    held = sum(step.share * max(0.0, min(step.end_s, end_s) - step.start_s) for step in log.steps)
    return held / end_s


def device_splits(percents: tuple[int, ...] = (25, 50, 75)) -> pd.DataFrame:
    """Return Fig. 3's device under three layouts: whose each multiprocessor is, and decode's part of the bandwidth.

    Columns: prefill_percent, sms, prefill_sms, decode_bandwidth (of decode's attention, 0 to 1, by the cost model).
    """
    known, co_run = layouts(device(DEVICE)), published_model().co_run(chunk(CHUNK), PUBLISHED_DECODE)
    rows = []
    for percent in percents:
        layout = nearest(known, percent)
        bandwidth = co_run.decode_bandwidth(layout.share("prefill"))
        rows.append((layout.percent, layout.sms, layout.prefill_sms, bandwidth))
    return pd.DataFrame(rows, columns=["prefill_percent", "sms", "prefill_sms", "decode_bandwidth"])


def call_graph(rate_per_s: float, requests: int, seed: int) -> pd.DataFrame:
    """Return who calls whom while a run of Nexus is served: caller, callee (files), calls_per_iteration."""
    calls: Counter[tuple[str, str]] = Counter()
    serving = Simulator.run.__code__
    before, inside = sys.getprofile(), False

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal inside
        if frame.f_code is serving and event in ("call", "return"):
            inside = event == "call"
        elif event == "call" and inside and (callee := _file(frame)) and (caller := _caller(frame)) not in ("", callee):
            calls[caller, callee] += 1

    sys.setprofile(watch)
    try:
        log = simulate("nexus", model=LDC.model, device=DEVICE, workload=workload("ldc", rate_per_s, requests, seed))
    finally:
        sys.setprofile(before)
    rows = [(caller, callee, count / len(log.steps)) for (caller, callee), count in sorted(calls.items())]
    return pd.DataFrame(rows, columns=["caller", "callee", "calls_per_iteration"])


def _file(frame: FrameType) -> str:
    """Return a module of the library such as `nexus.policy`, or an empty string for other code."""
    name = frame.f_globals.get("__name__", "")
    return name.removeprefix("paperlab.") if name.startswith("paperlab.") else ""


def _caller(frame: FrameType) -> str:
    """Return the module of the nearest frame below `frame` that belongs to the library."""
    below = frame.f_back
    while below is not None and not _file(below):
        below = below.f_back
    return _file(below) if below is not None else ""
