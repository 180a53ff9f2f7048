"""The executor of a policy over a pool of ranks: one thread, whose events are the ranks' reports.

It is the simulator's loop with processes in place of prices. A job ends when every rank of its replica has reported
all its parts: a micro-batch that is written through when it is computed and written.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from paperlab.seesaw.engine.messages import ChunkOrder, Forward, Load, Report, Span, Swap
from paperlab.seesaw.engine.pool import RankPool
from paperlab.serving.cluster import Cluster, Job
from paperlab.serving.events import EventLog
from paperlab.serving.policy import Policy
from paperlab.serving.request import Request, Sequence
from paperlab.serving.simulator import Stalled
from paperlab.serving.work import Compute, Copy, Decision, StepShape


@dataclass
class Pending:
    """A job under way: the (rank, part) pairs that have not been reported, and the tokens that came out."""

    lane: str
    missing: set[tuple[int, str]]
    emitted: dict[int, int] = field(default_factory=dict)


@dataclass
class MicroBatch:
    """One iteration as the driver saw it: the layout it ran in, its shape, and when it began and ended."""

    layout: str
    shape: StepShape
    begun_s: float
    ended_s: float = 0.0


@dataclass
class Record:
    """What the ranks did in one run: spans in the order of their reports, and counts by rank.

    `origin_s` is the run's first moment; `micro_batches` are by job.
    """

    origin_s: float = 0.0
    spans: list[Span] = field(default_factory=list)
    counts: dict[int, Counter[str]] = field(default_factory=dict)
    peak_weight_bytes: dict[int, int] = field(default_factory=dict)
    micro_batches: dict[int, MicroBatch] = field(default_factory=dict)

    def add(self, report: Report) -> None:
        """Take a report in."""
        self.spans += report.spans
        self.counts.setdefault(report.rank, Counter()).update(report.counts)
        if report.value is not None:
            self.peak_weight_bytes[report.rank] = report.value


class Driver:
    """Serves one set of requests by one policy over one cluster whose devices are replicas of ranks."""

    def __init__(
        self,
        policy: Policy,
        cluster: Cluster,
        pool: RankPool,
        replica_ranks: int,
        tokens: dict[int, list[int]],
        stop_tokens: frozenset[int],
    ) -> None:
        """`tokens` holds the prompts by request id and grows by what is generated."""
        self.policy, self.cluster, self.pool, self.tokens = policy, cluster, pool, tokens
        self.record = Record()
        self._replica_ranks, self._stop_tokens = replica_ranks, stop_tokens
        self._pending: dict[int, Pending] = {}
        self._numbers = itertools.count()

    def run(self, requests: Iterable[Request], configurations: Mapping[str, str]) -> EventLog:
        """Serve `requests`, which are all there, to the end; returns the cluster's log.

        `configurations` tell which layout each device's ranks have loaded now ("" for none): where the policy begins
        with another, it is loaded before the clock starts.

        Raises:
            Stalled: the policy leaves requests lying though nothing runs.
            RankError: a rank failed; the pool has ended.
        """
        self._prepare(configurations)
        self.record = Record(origin_s=time.perf_counter())
        for request in requests:
            self.cluster.arrive(request)
        while True:
            self.cluster.dispatch(self._decide, self._begin)
            if not self._pending:
                break
            self._hear(self.pool.receive())
        if self.cluster.unfinished:
            raise Stalled(f"{self.policy.name}: {self.cluster.unfinished} requests left and nothing to run")
        self.cluster.check()  # every block is free again
        return self.cluster.log

    def _prepare(self, configurations: Mapping[str, str]) -> None:
        missing = set()
        for device, wanted in self.cluster.configurations.items():
            if configurations.get(device, "") != wanted:
                missing |= {(rank, "loaded") for rank in self._send(device, Load(-1, wanted))}
        while missing:
            report = self.pool.receive()
            missing.remove((report.rank, report.part))

    def _ranks(self, device: str) -> range:
        first = int(device.removeprefix("gpu")) * self._replica_ranks
        return range(first, first + self._replica_ranks)

    def _send(self, device: str, order: object, channel: str = "main") -> range:
        ranks = self._ranks(device)
        for rank in ranks:
            self.pool.send(rank, order, channel)
        return ranks

    def _decide(self, lane: str) -> tuple[Decision, float]:
        began_s = time.perf_counter()
        decision = self.policy.schedule(lane, self.cluster)
        self.cluster.now_s = self._now_s()
        return decision, time.perf_counter() - began_s

    def _begin(self, lane: str, job: Job) -> None:
        """Give the ranks their orders."""
        number, work = next(self._numbers), job.work
        if isinstance(work, Copy):
            device, channel, order = self._swap(number, work, job.incoming)
            parts = {(rank, "copied") for rank in self._send(device, order, channel)}
        else:
            device = self.cluster.lanes[lane].resource
            if isinstance(work, Compute):
                assert job.shape is not None
                layout, begun_s = self.cluster.configurations[device], time.perf_counter()
                self.record.micro_batches[number] = MicroBatch(layout, job.shape, begun_s)
                chunks = tuple(self._chunk(*chunk) for chunk in work.chunks)
                ranks = self._send(device, Forward(number, job.shape.kind, chunks, work.target is not None))
                names = ["compute", "written"] if work.target else ["compute"]
            else:
                ranks, names = self._send(device, Load(number, work.target)), ["loaded"]
            parts = {(rank, name) for rank in ranks for name in names}
        self._pending[number] = Pending(lane, parts)

    def _chunk(self, sequence: Sequence, count: int) -> ChunkOrder:
        request, first = sequence.request.request_id, sequence.computed
        ids = self.tokens[request][first : first + count]
        return ChunkOrder(request, first, count, count == sequence.pending, list(sequence.blocks), ids)

    @staticmethod
    def _swap(number: int, work: Copy, incoming: list[list[int]]) -> tuple[str, str, Swap]:
        """Return device, channel and order of a copy between a replica's tiers."""
        source = [block for sequence in work.sequences for block in sequence.blocks]
        target = [block for blocks in incoming for block in blocks]
        if work.target.startswith("host"):
            return work.target.replace("host", "gpu"), "out", Swap(number, target, source)
        return work.target, "in", Swap(number, source, target)

    def _hear(self, report: Report) -> None:
        """Take in a rank's report, and end the job where it was the last one."""
        self.record.add(report)
        pending = self._pending[report.job]
        pending.missing.remove((report.rank, report.part))
        pending.emitted.update(report.emitted)
        if pending.missing:
            return
        del self._pending[report.job]
        if report.job in self.record.micro_batches:
            self.record.micro_batches[report.job].ended_s = time.perf_counter()
        self.cluster.now_s = self._now_s()
        for request, token in pending.emitted.items():
            self.tokens[request].append(token)
        stopped = [request for request, token in pending.emitted.items() if token in self._stop_tokens]
        self.cluster.finish(pending.lane, stopped)

    def _now_s(self) -> float:
        return time.perf_counter() - self.record.origin_s
