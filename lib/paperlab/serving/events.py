"""The append-only log that both executors write; metrics, timelines and traces are read from it alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from paperlab.serving.request import Request
from paperlab.serving.work import StepShape

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


class Step(NamedTuple):
    """One iteration of a compute lane, seconds on the executor's clock."""

    lane: str
    start_s: float
    end_s: float
    scheduler_s: float  # spent deciding, just before start_s
    share: float  # of the device
    shape: StepShape
    requests: tuple[int, ...]  # ids in the batch
    emitted: tuple[int, ...]  # ids whose next token came out at end_s
    kv_used: int  # blocks in use in the lane's pool at start_s, the step's own included
    target: str = ""  # the pool that the keys and values were written through to, if any


class Move(NamedTuple):
    """One copy of keys and values between pools."""

    lane: str
    start_s: float
    end_s: float
    requests: tuple[int, ...]
    source: str
    target: str
    blocks: int


class Switch(NamedTuple):
    """One reconfiguration of a device."""

    lane: str
    start_s: float
    end_s: float
    source: str
    target: str


class Note(NamedTuple):
    """Something that happened at an instant: `arrive`, `finish`, `preempt`, `refuse`, or a policy's own word."""

    time_s: float
    kind: str
    request_id: int | None = None
    detail: str = ""
    tokens: int = 0  # of a `preempt`: computed before, to be computed anew


@dataclass
class EventLog:
    """Everything that happened in one run.

    `about` describes the run (system, model, device, evidence, pools, seed …); its entries become columns of
    `summary()`.
    """

    about: dict[str, Any] = field(default_factory=dict)
    requests: dict[int, Request] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def note(self, time_s: float, kind: str, request_id: int | None = None, detail: str = "", tokens: int = 0) -> None:
        """Append a note."""
        self.notes.append(Note(time_s, kind, request_id, detail, tokens))

    @property
    def end_s(self) -> float:
        """When the last thing ended."""
        ends = [item.end_s for items in (self.steps, self.moves, self.switches) for item in items[-2:]]
        return max(ends, default=self.notes[-1].time_s if self.notes else 0.0)

    def summary(self) -> pd.DataFrame:
        """Return one tidy row of metrics; see `metrics.summary`."""
        from paperlab.serving import metrics

        return metrics.summary(self)

    def per_request(self) -> pd.DataFrame:
        """Return one row per request; see `metrics.per_request`."""
        from paperlab.serving import metrics

        return metrics.per_request(self)

    def save_trace(self, path: Path | str) -> None:
        """Write a Chrome/Perfetto trace; see `timeline.save_trace`."""
        from paperlab.serving import timeline

        timeline.save_trace(self, path)
