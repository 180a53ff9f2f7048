"""When jobs end: on a device that lanes share, on a link, and in a pipeline of stages. The simulator's resources.

A resource is told what begins on it and what has ended, and answers with `Running` entries whose `end_s` may move
while they run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from paperlab.hardware import LinkSpec
from paperlab.serving.cluster import Job
from paperlab.serving.device_model import DeviceModel, Load
from paperlab.serving.work import Compute, Copy, Reconfigure, StepShape


@dataclass(slots=True)
class Running:
    """A job under way: `remaining` of it was left at `updated_s`, at a rate of one job per `duration_s`."""

    duration_s: float
    updated_s: float
    load: Load | None = None
    share: float = 1.0
    remaining: float = 1.0

    @property
    def end_s(self) -> float:
        """When it ends, as things stand."""
        return self.updated_s + self.remaining * self.duration_s


class Timing(ABC):
    """One resource of the simulator."""

    @abstractmethod
    def begin(self, lane: str, job: Job, now_s: float) -> Running:
        """Take in a job; entries handed out before may change."""

    def end(self, lane: str, now_s: float) -> None:  # noqa: B027 - most resources do not care
        """Hear that the lane's job has ended."""


class SharedDevice(Timing):
    """A device whose lanes run side by side: whenever one starts or ends, all rates are set anew.

    The rest of each iteration proceeds at the new rate (processor sharing).
    """

    def __init__(self, model: DeviceModel) -> None:
        self.model = model
        self._running: dict[str, Running] = {}

    def begin(self, lane: str, job: Job, now_s: float) -> Running:
        """Price an iteration, beside what runs already."""
        if not isinstance(job.work, Compute) or job.shape is None:
            raise TypeError(f"lane {lane}: a shared device computes; {type(job.work).__name__} needs a pipeline")
        running = self._running[lane] = Running(1.0, now_s, self.model.load(job.shape), job.work.share)
        self._reprice(now_s)
        return running

    def end(self, lane: str, now_s: float) -> None:
        """Leave more of the device to the others."""
        del self._running[lane]
        self._reprice(now_s)

    def _reprice(self, now_s: float) -> None:
        beside = list(self._running.values())
        if not beside:
            return
        durations = self.model.durations([(item.load, item.share) for item in beside])  # type: ignore[misc]
        for item, duration_s in zip(beside, durations, strict=True):
            item.remaining -= (now_s - item.updated_s) / item.duration_s
            item.updated_s, item.duration_s = now_s, duration_s


class Link(Timing):
    """A link that copies blocks of `block_bytes`."""

    def __init__(self, spec: LinkSpec, block_bytes: float) -> None:
        self.spec, self.block_bytes = spec, block_bytes

    def begin(self, lane: str, job: Job, now_s: float) -> Running:
        """Time a copy."""
        assert isinstance(job.work, Copy)
        return Running(self.spec.time_s(self.block_bytes * sum(len(blocks) for blocks in job.incoming)), now_s)


class StagePrices(Protocol):
    """What one configuration of a pipeline costs."""

    stages: int

    @property
    def load_s(self) -> float:
        """Seconds to bring every stage's weights in from host memory."""

    def compute_s(self, step: StepShape) -> list[float]:
        """Return the seconds of an iteration at each stage."""

    def write_through_s(self, step: StepShape) -> list[float]:
        """Return the seconds that each stage's link to the host needs for the keys and values of `step`."""

    def tail_s(self, step: StepShape) -> float:
        """Return the seconds of the last layer's part of that copy, which nothing is left to hide."""


class Visit(NamedTuple):
    """One iteration, copy or load at one stage."""

    lane: str
    stage: int
    kind: str  # prefill, decode, mixed, swap-out or load
    start_s: float
    end_s: float


class Pipeline(Timing):
    """Stages in a row, each first come, first served: a tandem queue.

    An iteration visits the stages in order and waits at each until those before it have left. So as many iterations
    can be under way as there are lanes. What is written through to the host is copied layer by layer behind the
    computation of its own stage: the copy may start once the stage has, cannot end before the stage's last layer is
    out, and waits for earlier copies; the iteration ends when both have. A reconfiguration empties the pipeline.
    """

    def __init__(
        self, configurations: Mapping[str, StagePrices], initial: str, heard: Callable[[Visit], None] | None = None
    ) -> None:
        """Start in configuration `initial`; `heard` is told of every visit, for drawings."""
        self.configurations, self.heard = configurations, heard
        self._use(initial, 0.0)

    def begin(self, lane: str, job: Job, now_s: float) -> Running:
        """Send an iteration through the stages, or load another configuration."""
        work = job.work
        if isinstance(work, Reconfigure):
            end_s = now_s + self.configurations[work.target].load_s
            self._use(work.target, end_s)
            for stage in range(self._prices.stages):
                self._tell(lane, stage, "load", now_s, end_s)
            return Running(end_s - now_s, now_s)
        assert isinstance(work, Compute)
        assert job.shape is not None
        end_s = self._walk(lane, job.shape, work.target is not None, now_s)
        return Running(end_s - now_s, now_s)

    def _use(self, configuration: str, free_s: float) -> None:
        if configuration not in self.configurations:
            known = ", ".join(self.configurations)
            raise ValueError(f"configuration is {configuration!r}; this pipeline has {known}")
        self._prices = self.configurations[configuration]
        self._stage_free_s = [free_s] * self._prices.stages
        self._link_free_s = [free_s] * self._prices.stages

    def _walk(self, lane: str, step: StepShape, write_through: bool, now_s: float) -> float:
        prices, free_s = self._prices, self._stage_free_s
        copies_s = prices.write_through_s(step) if write_through else None
        tail_s = prices.tail_s(step) if write_through else 0.0
        clock_s = end_s = now_s
        for stage, seconds in enumerate(prices.compute_s(step)):
            start_s = clock_s if clock_s > free_s[stage] else free_s[stage]
            clock_s = free_s[stage] = start_s + seconds
            if self.heard:
                self._tell(lane, stage, step.kind, start_s, clock_s)
            if copies_s is not None:
                begun_s = max(self._link_free_s[stage], start_s)
                done_s = self._link_free_s[stage] = max(begun_s + copies_s[stage], clock_s + tail_s)
                end_s = max(end_s, done_s)
                self._tell(lane, stage, "swap-out", begun_s, done_s)
        return max(end_s, clock_s)

    def _tell(self, lane: str, stage: int, kind: str, start_s: float, end_s: float) -> None:
        if self.heard:
            self.heard(Visit(lane, stage, kind, start_s, end_s))


def resources(
    devices: Mapping[str, DeviceModel], links: Mapping[str, LinkSpec], block_bytes: float
) -> dict[str, Timing]:
    """Return the resources of a cluster of whole devices and links, by name."""
    shared: dict[str, Timing] = {name: SharedDevice(model) for name, model in devices.items()}
    return shared | {name: Link(spec, block_bytes) for name, spec in links.items()}
