"""FastServe-like: a skip-join multi-level feedback queue over iterations, with swapping to host memory.

After FastServe (arXiv 2305.05920) as the Nexus paper describes its re-implementation on vLLM: chunked prefill, swapping
to the host, recomputation where the host is full. A request enters the first queue whose quantum covers its prefill
time (skip-join), sinks one queue when its quantum is used up, and rises to the top when it has starved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from paperlab.serving.cluster import Cluster, Lane
from paperlab.serving.deployment import Deployment
from paperlab.serving.policies.feedback_queue import FeedbackQueue
from paperlab.serving.policy import DEVICE, BatchBuilder, Limits, Policy, register
from paperlab.serving.request import Sequence
from paperlab.serving.work import IDLE, Copy, Decision, StepShape

HOST = "host"


@dataclass(slots=True)
class _Blocked:
    """The first of the line that found no blocks, and who is left out of the batch so that it will find some."""

    rank: int
    leaving: set[Sequence]


@register
class FastServe(Policy):
    """Highest queue first, oldest first within a queue; lower queues give up their memory to higher ones."""

    name = "fastserve-like"
    lanes = (Lane("main", DEVICE), Lane("swap", HOST, "copy"))

    def __init__(
        self,
        limits: Limits | None = None,
        levels: int = 6,
        quantum_s: float = 0.1,
        starvation_s: float = 30.0,
        watermark: float = 0.05,
        prefill_s_per_token: float | None = None,
    ) -> None:
        """Set the queues.

        Args:
            limits: caps of one iteration.
            levels: queues; each has twice the quantum of the one above.
            quantum_s: of the highest queue.
            starvation_s: unserved for so long, a request rises to the highest queue.
            watermark: share of the pool below which the lowest priority is swapped out ahead of need.
            prefill_s_per_token: estimate that places a new prompt; default: arithmetic at half of the device's peak.
        """
        super().__init__(limits)
        if not 0 <= watermark < 1:
            raise ValueError(f"fastserve-like: watermark is {watermark}; give a share from 0 to below 1")
        self.queue = FeedbackQueue(levels, quantum_s, starvation_s, prefill_s_per_token or 0.0)
        self.watermark = watermark
        self._estimated = prefill_s_per_token is None

    def bind(self, deployment: Deployment) -> None:
        """Estimate prefill time per token; only the entry queue depends on it."""
        if self._estimated:
            flops = sum(item.flops for item in deployment.cost.demands(StepShape(prefill_tokens=1, logits=0)))
            self.queue.prefill_s_per_token = flops / (0.5 * deployment.device.peak(deployment.dtype))

    def schedule(self, lane: str, cluster: Cluster) -> Decision:
        """Return the next batch, or what to swap."""
        self.queue.update(cluster)
        return self._swap(cluster) if lane == "swap" else self._compute(lane, cluster)

    def _compute(self, lane: str, cluster: Cluster) -> Decision:
        line = self.queue.line()
        batch = BatchBuilder(cluster, lane, self.limits)
        blocked: _Blocked | None = None
        for rank, sequence in enumerate(line):
            if batch.full:
                break
            if sequence.lane is not None or (blocked and sequence in blocked.leaving):
                continue
            if sequence.pool == DEVICE:
                fits = batch.add(sequence)
            elif blocked:
                continue  # nobody overtakes the first that waits for memory
            elif sequence.pool == HOST:
                fits = self._reserve(batch, self._blocks_needed(sequence, cluster))
            else:
                fits = batch.add(sequence)
            if not fits and not blocked:
                blocked = _Blocked(rank, self._leaving(cluster, line, rank, batch))
                if blocked.leaving:
                    batch.free_blocks = 0  # kept for it; those below go on as far as their blocks reach
        if not batch.chunks and line and not cluster.jobs and self._swap(cluster).work is None:
            self._recompute(batch, line)
        return batch.decision()

    @staticmethod
    def _reserve(batch: BatchBuilder, blocks: int) -> bool:
        """Keep blocks for a sequence that the swap lane will bring back."""
        if blocks > batch.free_blocks:
            return False
        batch.free_blocks -= blocks
        return True

    def _leaving(self, cluster: Cluster, line: list[Sequence], rank: int, batch: BatchBuilder) -> set[Sequence]:
        """Return the lowest of the line that must go to the host so that the one at `rank` finds blocks, or nobody."""
        lacking = self._blocks_needed(line[rank], cluster) - batch.free_blocks
        room, leaving = cluster.pools[HOST].free, set()
        for sequence in self._below(line, rank):
            if sequence.lane is None:
                room -= len(sequence.blocks)
                if room < 0:
                    break
                leaving.add(sequence)
            lacking -= len(sequence.blocks)  # those on the way out count too
            if lacking <= 0:
                return leaving
        return set()

    def _below(self, line: list[Sequence], rank: int) -> Iterator[Sequence]:
        """Yield, lowest first, who may lose its memory to the one at `rank`.

        That is whoever stands in a lower queue; for one that has started and only needs to grow, whoever is behind it.
        """
        rival = line[rank]
        for behind in range(len(line) - 1, rank, -1):
            sequence = line[behind]
            if sequence.pool != DEVICE:
                continue
            if rival.pool != DEVICE and self.queue.level(sequence) <= self.queue.level(rival):
                return
            yield sequence

    def _recompute(self, batch: BatchBuilder, line: list[Sequence]) -> None:
        """Where nothing runs and nothing can be swapped, the host being full, the lowest are computed anew."""
        first = next((sequence for sequence in line if sequence.pool != HOST), None)
        if first is not None:
            holders = [sequence for sequence in line if sequence.pool == DEVICE and sequence is not first]
            batch.add_preempting(first, holders)

    def _swap(self, cluster: Cluster) -> Decision:
        """Bring back the best parked sequence of the next batch, or make room for the best one that lacks it."""
        pool, line = cluster.pools[DEVICE], self.queue.line()
        reserve = int(self.watermark * pool.blocks) if cluster.active else 0
        free, tokens = pool.free, self.limits.token_budget
        for rank, sequence in enumerate(line[: self.limits.max_sequences]):
            if tokens <= 0:
                break  # what does not get into the next batch needs no room yet
            tokens -= min(sequence.pending, tokens)
            if sequence.lane is not None:
                continue
            needed = self._blocks_needed(sequence, cluster)
            if needed > free - (0 if sequence.pool == DEVICE else reserve):
                out = self._swap_out(cluster, self._below(line, rank))
                if out.work is not None:
                    return out
                break
            if sequence.pool == HOST:
                return Decision(Copy((sequence,), DEVICE))
            free -= needed
        first = next((rank for rank, sequence in enumerate(line) if sequence.pool == DEVICE), None)
        if pool.free <= reserve and first is not None:
            return self._swap_out(cluster, self._below(line, first))
        return IDLE

    @staticmethod
    def _swap_out(cluster: Cluster, candidates: Iterator[Sequence]) -> Decision:
        """Swap out the first candidate that is not in flight, if the host has room for it."""
        for sequence in candidates:
            if sequence.lane is None:
                fits = len(sequence.blocks) <= cluster.pools[HOST].free
                return Decision(Copy((sequence,), HOST)) if fits else IDLE
        return IDLE

    def _blocks_needed(self, sequence: Sequence, cluster: Cluster) -> int:
        """Return the blocks of the device that the next chunk of `sequence` takes on top of those it has there."""
        tokens = sequence.computed + min(sequence.pending, self.limits.token_budget)
        needed = cluster.pools[DEVICE].blocks_for(tokens)
        return needed - len(sequence.blocks) if sequence.pool == DEVICE else needed
