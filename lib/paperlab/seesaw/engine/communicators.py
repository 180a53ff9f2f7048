"""Who talks to whom: groups for every tensor-parallel degree, made once; all traffic is counted here.

A rank's `Links` in a layout only pick from the groups that exist, so a re-sharding makes no communicator.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from paperlab.seesaw.layout import Layout, Shard

TIMEOUT = timedelta(minutes=10)  # the driver sees a death at once and ends all ranks; this only stops a stray one
SENDS_UNDER_WAY = 2  # hidden states that may still be on their way when the next micro-batch is computed
# torch 2.13 renamed it.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class Communicators:
    """One process's groups: for each divisor d of the ranks, those of d neighbors.

    `via_host` is for several ranks on one GPU, which NCCL refuses: tensors travel through the host and gloo then.
    """

    def __init__(self, rank: int, ranks: int, device: torch.device, via_host: bool = False) -> None:
        self.rank, self.ranks, self.device, self.via_host = rank, ranks, device, via_host
        self._groups: dict[tuple[int, int], dist.ProcessGroup] = {}
        for size in (d for d in range(2, ranks + 1) if ranks % d == 0):
            for first in range(0, ranks, size):
                self._groups[first, size] = dist.new_group(list(range(first, first + size)), TIMEOUT)
        if device.type == "cuda" and not via_host:
            self._connect()

    def _connect(self) -> None:
        """Use every group and pair once: NCCL connects at the first call, which must not fall into a phase."""
        one = torch.zeros(1, device=self.device)
        for (first, size), group in self._groups.items():
            if first <= self.rank < first + size:
                dist.all_reduce(one, group=group)
        for step in (d for d in range(1, self.ranks) if self.ranks % d == 0):
            for source in range(self.ranks - step):
                if self.rank == source:
                    dist.send(one, source + step)
                elif self.rank == source + step:
                    dist.recv(one, source)
        torch.cuda.synchronize(self.device)

    def group(self, first: int, size: int) -> dist.ProcessGroup | None:
        """Return the group of `size` ranks from `first` on; None where it is one rank."""
        return self._groups[first, size] if size > 1 else None


class Links:
    """One rank's neighbors in one layout: its tensor-parallel group, and the stages before and behind.

    counts: all_reduce, all_reduce_bytes, all_gather, sent, sent_bytes. network_s: seconds within all-reduces, waiting
    for slower ranks included; 0 with NCCL, whose collectives run on streams of their own. bus_Bps: bus rate of an
    emulated link: an all-reduce then takes at least the time of a ring over it.
    """

    def __init__(
        self, communicators: Communicators, layout: Layout, shard: Shard, first: int, bus_Bps: float | None = None
    ) -> None:
        """`first` is the first rank of the replica."""
        self._via_host, self._bus_Bps, self.size = communicators.via_host, bus_Bps, layout.tp
        self._timed = communicators.device.type == "cpu" or communicators.via_host
        self._group = communicators.group(first + shard.stage * layout.tp, layout.tp)
        rank = first + shard.rank
        self._before, self._behind = rank - layout.tp, rank + layout.tp
        self._sending: list[tuple[dist.Work, Tensor]] = []
        self._arriving: deque[tuple[dist.Work, Tensor]] = deque()
        self.counts: Counter[str] = Counter()
        self.network_s = 0.0

    def all_reduce(self, x: Tensor) -> Tensor:
        """Sum `x` over the tensor-parallel ranks, in place; returns it."""
        if self.size == 1:
            return x
        begin_s = time.perf_counter()
        y = x.cpu() if self._via_host else x
        dist.all_reduce(y, group=self._group)
        if self._via_host:
            x.copy_(y)
        if self._bus_Bps:
            ring_s = 2 * (self.size - 1) / self.size * x.nbytes / self._bus_Bps
            time.sleep(max(0.0, begin_s + ring_s - time.perf_counter()))
        if self._timed:
            self.network_s += time.perf_counter() - begin_s
        self.counts["all_reduce"] += 1
        self.counts["all_reduce_bytes"] += x.nbytes
        return x

    def all_gather(self, x: Tensor) -> Tensor:
        """Return every tensor-parallel rank's `x`, stacked."""
        if self.size == 1:
            return x[None]
        y = x.cpu() if self._via_host else x
        full = y.new_empty((self.size, *y.shape))
        _all_gather(full.flatten(0, 1), y.contiguous(), group=self._group)
        self.counts["all_gather"] += 1
        return full.to(x.device)

    def send(self, x: Tensor) -> None:
        """Send hidden states to the next stage's rank of the same place; returns while they are on their way."""
        while len(self._sending) >= SENDS_UNDER_WAY:
            self._sending.pop(0)[0].wait()
        y = x.cpu() if self._via_host else x.contiguous()
        work = dist.isend(y, self._behind)
        assert work is not None  # this rank belongs to the group
        self._sending.append((work, y))
        self.counts["sent"] += 1
        self.counts["sent_bytes"] += x.nbytes

    def expect(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        """Post the receipt of the hidden states after those already expected; any thread may.

        gloo's sender answers a posted receipt, and its thread waits for a core while both ranks compute: posted only
        when needed, each hand-over would cost a time slice. NCCL receives in stream order, when `receive` asks.
        """
        if self._timed:
            y = torch.empty(tuple(shape), dtype=dtype)
            work = dist.irecv(y, self._before)
            assert work is not None  # this rank belongs to the group
            self._arriving.append((work, y))

    def receive(self, x: Tensor) -> Tensor:
        """Return the hidden states of the stage before, of the shape and device of `x`, which may be filled."""
        if not self._timed:
            dist.recv(x, self._before)
            return x
        work, y = self._arriving.popleft()
        work.wait()
        return x.copy_(y) if self._via_host else y

    def flush(self) -> None:
        """Wait until everything sent has left."""
        for work, _ in self._sending:
            work.wait()
        self._sending.clear()

    def drain(self) -> dict[str, int]:
        """Return the counts since the last call."""
        found, self.counts = dict(self.counts), Counter()
        return found


class NoLinks(Links):
    """The links of a shard that is replayed alone: collectives do nothing, so only its own work is timed."""

    def __init__(self, layout: Layout) -> None:
        self.size, self.counts, self.network_s, self._sending = layout.tp, Counter(), 0.0, []

    def all_reduce(self, x: Tensor) -> Tensor:
        """Return `x` as it is."""
        return x

    def all_gather(self, x: Tensor) -> Tensor:
        """Return `x` alone."""
        return x[None]

    def send(self, x: Tensor) -> None:
        """Drop `x`."""

    def receive(self, x: Tensor) -> Tensor:
        """Return `x` as it is."""
        return x
