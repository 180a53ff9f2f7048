"""Lanes, and what a busy one is doing."""

from __future__ import annotations

from dataclasses import dataclass, field

from paperlab.serving.work import StepShape, Work


@dataclass(frozen=True)
class Lane:
    """An independent issue queue: it does one thing at a time.

    A compute lane belongs to a device and works on the pool of the device's name; several lanes may share a device.
    A copy lane belongs to a link.
    """

    name: str
    resource: str
    kind: str = "compute"

    def __post_init__(self) -> None:
        if self.kind not in ("compute", "copy"):
            raise ValueError(f"lane {self.name}: kind is {self.kind!r}; use compute or copy")


@dataclass(slots=True)
class Job:
    """What a busy lane is doing."""

    work: Work
    start_s: float
    scheduler_s: float
    shape: StepShape | None = None  # of a Compute
    incoming: list[list[int]] = field(default_factory=list)  # of a Copy: target blocks, one list per sequence
    kv_used: int = 0
