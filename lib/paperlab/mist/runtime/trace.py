"""What ran when: spans per lane from real timestamps, for the schedule figure and for checks of overlap."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from paperlab.lab.files import write_json

if TYPE_CHECKING:
    import pandas as pd

LANES = ("compute", "pipeline", "swap-in", "swap-out", "unshard", "reduce", "optimizer")
Stamp = float | torch.cuda.Event


@dataclass(frozen=True)
class Span:
    """One piece of work on one lane of one rank; times in seconds of the machine's monotonic clock.

    `module` counts the stage's modules from 0 and `microbatch` the iteration's micro-batches; -1 where neither applies.
    """

    rank: int
    lane: str
    label: str
    iteration: int
    module: int
    microbatch: int
    start_s: float
    stop_s: float

    @property
    def duration_s(self) -> float:
        """Length of the span in seconds."""
        return self.stop_s - self.start_s


class Trace:
    """Collects spans of one rank from all its threads or streams; disabled, it costs one comparison per span.

    On CUDA stamps are events of the current stream, turned into seconds when the spans are read.
    """

    def __init__(self, rank: int, device: torch.device, enabled: bool = True) -> None:
        self.rank, self.enabled, self.iteration = rank, enabled, 0
        self._gpu = device.type == "cuda"
        self._raw: list[tuple[str, str, int, int, int, Stamp, Stamp]] = []
        self._lock = threading.Lock()
        self._origin_s, self._origin = time.perf_counter(), self.stamp()

    def stamp(self) -> Stamp:
        """Return this moment, on CUDA that of the current stream."""
        if not self._gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @contextmanager
    def span(self, lane: str, label: str, module: int = -1, microbatch: int = -1) -> Iterator[None]:
        """Record the body as one span; without a label it is none."""
        if not (self.enabled and label):
            yield
            return
        start, iteration = self.stamp(), self.iteration
        yield
        with self._lock:
            self._raw.append((lane, label, iteration, module, microbatch, start, self.stamp()))

    def spans(self) -> list[Span]:
        """Return all spans in the order of their start."""
        if self._gpu:
            torch.cuda.synchronize()
        with self._lock:
            found = [Span(self.rank, *row[:5], *map(self._seconds, row[5:])) for row in self._raw]
        return sorted(found, key=lambda span: span.start_s)

    def _seconds(self, stamp: Stamp) -> float:
        if isinstance(stamp, float):
            return stamp
        assert isinstance(self._origin, torch.cuda.Event)
        return self._origin_s + 1e-3 * self._origin.elapsed_time(stamp)


def spans_table(spans: list[Span]) -> pd.DataFrame:
    """Return spans as a table, one row each, times counted from the earliest start."""
    import pandas as pd

    table = pd.DataFrame([asdict(span) for span in spans], columns=list(Span.__dataclass_fields__))
    origin_s = table.start_s.min()
    return table.assign(start_s=table.start_s - origin_s, stop_s=table.stop_s - origin_s)


def export_chrome(spans: list[Span], path: str | Path) -> Path:
    """Write spans in Chrome's trace format (open in Perfetto): a process per rank, a thread per lane."""
    events: list[dict[str, Any]] = [
        {
            "name": span.label, "ph": "X", "pid": span.rank, "tid": LANES.index(span.lane),
            "ts": 1e6 * span.start_s, "dur": 1e6 * span.duration_s,
            "args": {"iteration": span.iteration, "module": span.module, "microbatch": span.microbatch},
        }
        for span in spans
    ]  # fmt: skip
    names = [
        {"name": "thread_name", "ph": "M", "pid": rank, "tid": index, "args": {"name": lane}}
        for rank in sorted({span.rank for span in spans})
        for index, lane in enumerate(LANES)
    ]
    return write_json(Path(path), json.loads(json.dumps({"traceEvents": names + events})))
