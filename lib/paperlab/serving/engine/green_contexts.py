"""Real partitions of a GPU's multiprocessors (Nexus §4.2): green contexts through the CUDA driver.

One split of the device's multiprocessors yields a group and a remainder, and both are used: two separately made green
contexts would each be cut from the whole device and overlap. Only multiprocessors are divided; L2, bandwidth and work
queues stay shared. What the driver grants is compared with what was asked for, and a kernel that records where its
programs run confirms it. Written against cuda-bindings 12.8 to 13; it has not run on a GPU yet.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from paperlab.hardware import sm_granularity


class PartitionError(RuntimeError):
    """The multiprocessors cannot be divided as asked for."""


def layouts(multiprocessors: int, compute_capability: str) -> tuple[int, ...]:
    """Return every size that the first lane's group can have, such that the remainder is no smaller than a group.

    Raises:
        PartitionError: too few multiprocessors for two groups.
    """
    smallest, step = sm_granularity(compute_capability)
    found = tuple(range(smallest, multiprocessors - smallest + 1, step))
    if not found:
        raise PartitionError(f"{multiprocessors} multiprocessors do not make two groups of {smallest}")
    return found


def nearest_layout(known: tuple[int, ...], multiprocessors: int, first_share: float) -> int:
    """Return the layout whose first group is closest to `first_share` of the device (ties: the smaller)."""
    return min(known, key=lambda count: (abs(count - first_share * multiprocessors), count))


@dataclass
class Partition:
    """Two streams on disjoint multiprocessors; `counts` are those that the driver granted."""

    counts: tuple[int, int]
    streams: tuple[Any, Any]
    _driver: Any = field(repr=False)
    _handles: list[tuple[str, Any]] = field(repr=False)

    def close(self) -> None:
        """Destroy the streams and contexts; nothing may run on them any more."""
        while self._handles:
            destroy, handle = self._handles.pop()
            _call(self._driver, destroy, handle)


def load_driver() -> Any:
    """Return `cuda.bindings.driver`; PartitionError where it is not installed."""
    try:
        return importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        raise PartitionError(f"green contexts need the cuda-bindings package ({error})") from None


def make_partition(first_count: int, device: torch.device, driver: Any | None = None) -> Partition:
    """Divide `device` into a group of `first_count` multiprocessors and the whole rest, with a stream on each.

    `driver` stands in for `cuda.bindings.driver` in tests.

    Raises:
        PartitionError: the driver refuses, or grants other sizes than asked for.
    """
    driver = load_driver() if driver is None else driver
    index = device.index or 0
    _call(driver, "cuInit", 0)
    handle = _call(driver, "cuDeviceGet", index)
    whole = _call(driver, "cuDeviceGetDevResource", handle, driver.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM)
    # One split; the third argument asks for no special alignment.
    groups, _, rest = _call(driver, "cuDevSmResourceSplitByCount", 1, whole, 0, first_count)
    counts = (groups[0].sm.smCount, rest.sm.smCount)
    wanted = (first_count, whole.sm.smCount - first_count)
    if counts != wanted:
        raise PartitionError(f"asked for groups of {wanted} multiprocessors, the driver grants {counts}")
    made = Partition(counts, (None, None), driver, [])
    try:
        made.streams = tuple(_stream(driver, handle, part, made._handles, device) for part in (groups[0], rest))
    except PartitionError:
        made.close()
        raise
    return made


@cache
def shared_partition(first_count: int, device: torch.device) -> Partition:
    """Return the partition of `device` with this first group, made and checked once per process."""
    made = make_partition(first_count, device)
    check_disjoint(made)
    return made


def _stream(
    driver: Any, device_handle: Any, resource: Any, handles: list[tuple[str, Any]], device: torch.device
) -> Any:
    description = _call(driver, "cuDevResourceGenerateDesc", [resource], 1)
    default_stream = driver.CUgreenCtxCreate_flags.CU_GREEN_CTX_DEFAULT_STREAM
    context = _call(driver, "cuGreenCtxCreate", description, device_handle, default_stream)
    handles.append(("cuGreenCtxDestroy", context))
    # Non-blocking: a blocking stream would wait for the legacy default stream, and so for the other lane.
    non_blocking = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
    stream = _call(driver, "cuGreenCtxStreamCreate", context, non_blocking, 0)
    handles.append(("cuStreamDestroy", stream))
    return torch.cuda.ExternalStream(int(stream), device=device)


def _call(driver: Any, name: str, *arguments: Any) -> Any:
    """Call a driver function and return what it yields beside the status."""
    function = getattr(driver, name, None)
    if function is None:
        raise PartitionError(f"this cuda-bindings has no {name}; green contexts need CUDA 12.4 or later")
    status, *results = function(*arguments)
    if int(status) != 0:
        raise PartitionError(f"{name}: {getattr(status, 'name', status)}")
    return results[0] if len(results) == 1 else tuple(results)


def check_disjoint(partition: Partition) -> tuple[frozenset[int], frozenset[int]]:
    """Run a kernel on both streams at once and return the multiprocessors that each used.

    Raises:
        PartitionError: one was used by both, or a lane used more than it was granted.
    """
    from paperlab.serving.engine.probe import start_probe

    programs = 16 * sum(partition.counts)
    started = [start_probe(stream, programs) for stream in partition.streams]
    for stream in partition.streams:
        stream.synchronize()
    return judge(partition.counts, [frozenset(where.tolist()) for where in started])


def judge(counts: tuple[int, int], used: list[frozenset[int]]) -> tuple[frozenset[int], frozenset[int]]:
    """Return `used` if it agrees with a partition into `counts`; PartitionError otherwise."""
    first, second = used
    if common := first & second:
        raise PartitionError(f"multiprocessors {sorted(common)[:4]} were used by both lanes: no partition")
    for name, seen, count in (("first", first, counts[0]), ("second", second, counts[1])):
        if len(seen) > count:
            raise PartitionError(f"the {name} lane used {len(seen)} multiprocessors; it was granted {count}")
    return first, second
