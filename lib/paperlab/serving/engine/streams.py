"""Where the lanes of a policy issue their work: threads on a CPU, streams on a GPU.

The CUDA part has not run on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, Protocol

import torch

from paperlab.hardware import sm_granularity
from paperlab.serving.cluster import Lane
from paperlab.serving.engine.green_contexts import (
    Partition,
    PartitionError,
    layouts,
    nearest_layout,
    shared_partition,
)

Sharing = Literal["green", "unpartitioned"]


class Streams(Protocol):
    """`on(lane, share)` enters the lane's stream and has waited for its work when it is left.

    `partition` goes into the log: `green contexts`, `unpartitioned`, or `none` where no two lanes share a device.
    """

    partition: str

    def on(self, lane: str, share: float) -> AbstractContextManager[None]:
        """Return a context in which the lane's work is issued."""


class CpuStreams:
    """Lanes are threads of one core each; a lane's share of the device has no meaning here.

    Lanes then show real interleaving, contention for memory and the scheduler's cost, but no partition: two cores
    are split one to one whatever a policy asks for.
    """

    def __init__(self, lanes: Iterable[Lane]) -> None:
        self.partition = "unpartitioned" if sharing_lanes(lanes) else "none"

    @contextmanager
    def on(self, lane: str, share: float) -> Iterator[None]:
        """Do nothing: a CPU's work is done when the call returns."""
        yield


class CudaStreams:
    """A stream per lane, and for two lanes on one device a pair of streams per layout, all made ahead.

    A lane with a share of 1 runs on a stream of the whole device. A switch of the layout therefore costs nothing: the
    lane's next iteration is issued on another stream, after this one's work has ended.
    """

    def __init__(
        self,
        lanes: Iterable[Lane],
        device: torch.device,
        sharing: Sharing = "green",
        make: Callable[[int, torch.device], Partition] = shared_partition,
    ) -> None:
        """Make the streams; `make` stands for the driver in tests.

        Raises:
            PartitionError: lanes share the device and it cannot be divided; `unpartitioned` must be asked for.
        """
        lanes = list(lanes)
        self.device = device
        self._whole = {lane.name: torch.cuda.Stream(device) for lane in lanes}
        self._places = {name: place for place, name in enumerate(sharing_lanes(lanes))}
        self._partitions: dict[int, Partition] = {}
        self.partition = "none"
        if self._places:
            self.partition = "unpartitioned" if sharing == "unpartitioned" else "green contexts"
        if self.partition == "green contexts":
            self._divide(make)

    def _divide(self, make: Callable[[int, torch.device], Partition]) -> None:
        if len(self._places) > 2:
            raise PartitionError(f"{len(self._places)} lanes share {self.device}; green contexts divide it in two")
        properties = torch.cuda.get_device_properties(self.device)
        self._multiprocessors = properties.multi_processor_count
        capability = f"{properties.major}.{properties.minor}"
        self._step = sm_granularity(capability)[1]
        for count in layouts(self._multiprocessors, capability):
            self._partitions[count] = make(count, self.device)

    def stream(self, lane: str, share: float) -> Any:
        """Return the stream for `lane` with `share` of the device, rounded to the layouts' step.

        Raises:
            PartitionError: the share is further than half a step from every layout.
        """
        if share >= 1 or not self._partitions or lane not in self._places:
            return self._whole[lane]
        place = self._places[lane]
        first_share = share if place == 0 else 1 - share
        count = nearest_layout(tuple(self._partitions), self._multiprocessors, first_share)
        if abs(count - first_share * self._multiprocessors) > self._step / 2:
            granted = (count if place == 0 else self._multiprocessors - count) / self._multiprocessors
            raise PartitionError(f"lane {lane}: share is {share:.3f}; the nearest possible is {granted:.3f}")
        return self._partitions[count].streams[place]

    @contextmanager
    def on(self, lane: str, share: float) -> Iterator[None]:
        """Issue on the lane's stream, and wait for it, since a commit means that the work is done."""
        stream = self.stream(lane, share)
        with torch.cuda.device(self.device), torch.cuda.stream(stream):
            yield
            stream.synchronize()


def sharing_lanes(lanes: Iterable[Lane]) -> list[str]:
    """Return the names of the compute lanes that share a device with another, in their order."""
    compute = [lane for lane in lanes if lane.kind == "compute"]
    resources = [lane.resource for lane in compute]
    return [lane.name for lane in compute if resources.count(lane.resource) > 1]
