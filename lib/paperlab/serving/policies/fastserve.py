"""FastServe-like: a skip-join multi-level feedback queue over iterations, with swapping to host memory.

After FastServe (arXiv 2305.05920) as the Nexus paper describes its re-implementation on vLLM: chunked prefill, swapping
to the host, recomputation where the host is full. A request enters the first queue whose quantum covers its prefill
time (skip-join), sinks one queue when its quantum is used up, and rises to the top when it has starved.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from paperlab.serving.cluster import Cluster, Lane
from paperlab.serving.deployment import Deployment
from paperlab.serving.kv import BlockPool
from paperlab.serving.policy import DEVICE, BatchBuilder, Limits, Policy, register
from paperlab.serving.request import Sequence
from paperlab.serving.work import IDLE, Copy, Decision, StepShape

HOST = "host"


@dataclass(slots=True)
class _Standing:
    """Where a request stands: its queue, what it used of its quantum, and when it was last served."""

    level: int
    used_s: float = 0.0
    served_s: float = 0.0


@register
class FastServe(Policy):
    """Highest queue first, oldest first within a queue."""

    name = "fastserve-like"
    lanes = (Lane("main", DEVICE), Lane("swap", HOST, "copy"))

    def __init__(
        self,
        limits: Limits | None = None,
        levels: int = 6,
        quantum_s: float = 0.1,
        starvation_s: float = 30.0,
        watermark: float = 0.05,
    ) -> None:
        """Set the queues.

        Args:
            limits: caps of one iteration.
            levels: queues; each has twice the quantum of the one above.
            quantum_s: of the highest queue.
            starvation_s: unserved for so long, a request rises to the highest queue.
            watermark: share of the pool below which the lowest priority is swapped out ahead of need.
        """
        super().__init__(limits)
        for name, value in (("levels", levels), ("quantum_s", quantum_s), ("starvation_s", starvation_s)):
            if not value > 0:
                raise ValueError(f"fastserve-like: {name} is {value}; it must be positive")
        if not 0 <= watermark < 1:
            raise ValueError(f"fastserve-like: watermark is {watermark}; give a share from 0 to below 1")
        self.quanta_s = [quantum_s * 2**level for level in range(levels)]
        self.starvation_s, self.watermark = starvation_s, watermark
        self._prefill_s_per_token = 0.0
        self._standing: dict[int, _Standing] = {}
        self._read = 0

    def bind(self, deployment: Deployment) -> None:
        """Estimate prefill time per token at half of the device's peak; only the entry queue depends on it."""
        flops = sum(item.flops for item in deployment.cost.demands(StepShape(prefill_tokens=1, logits=0)))
        self._prefill_s_per_token = flops / (0.5 * deployment.device.peak(deployment.dtype))

    def schedule(self, lane: str, cluster: Cluster) -> Decision:
        """Return the next batch, or what to swap."""
        self._account(cluster)
        return self._swap(cluster) if lane == "swap" else self._compute(lane, cluster)

    def level(self, sequence: Sequence, now_s: float) -> int:
        """Return the queue of `sequence`, 0 the highest; a new one is placed by its prefill time (skip-join)."""
        request = sequence.request
        standing = self._standing.get(request.request_id)
        if standing is None:
            first_s = request.prompt_tokens * self._prefill_s_per_token
            covering = [level for level, quantum_s in enumerate(self.quanta_s) if quantum_s >= first_s]
            level = covering[0] if covering else len(self.quanta_s) - 1
            standing = self._standing[request.request_id] = _Standing(level, served_s=request.arrival_s)
        if now_s - standing.served_s > self.starvation_s and standing.level:
            standing.level, standing.used_s, standing.served_s = 0, 0.0, now_s
        return standing.level

    def _account(self, cluster: Cluster) -> None:
        """Charge finished iterations to their requests and let those sink that have used their quantum."""
        steps = cluster.log.steps
        for step in steps[self._read :]:
            for request_id in step.requests:
                standing = self._standing.get(request_id)
                if standing is None:
                    continue
                standing.used_s += step.end_s - step.start_s
                standing.served_s = step.end_s
                if standing.used_s >= self.quanta_s[standing.level] and standing.level < len(self.quanta_s) - 1:
                    standing.level, standing.used_s = standing.level + 1, 0.0
        self._read = len(steps)

    def _rank(self, sequence: Sequence, now_s: float) -> tuple[int, tuple[float, int]]:
        return self.level(sequence, now_s), sequence.arrival_order

    def _ranked(self, sequences: Iterable[Sequence], now_s: float) -> list[Sequence]:
        return sorted(sequences, key=lambda item: self._rank(item, now_s))

    def _compute(self, lane: str, cluster: Cluster) -> Decision:
        line = self._ranked([*_idle(cluster), *cluster.waiting], cluster.now_s)
        batch = BatchBuilder(cluster, lane, self.limits)
        for sequence in line:
            if batch.full:
                break
            if not batch.add(sequence) and sequence.pool is None:
                break  # a prompt without memory waits for the swap lane; nobody overtakes it into the pool
        if not batch.chunks and line and not cluster.jobs and self._swap(cluster).work is None:
            # Nothing runs and nothing can be swapped, the host being full: the lowest are computed anew.
            batch.add_preempting(line[0], [item for item in line[1:] if item.pool is not None])
        return batch.decision()

    def _swap(self, cluster: Cluster) -> Decision:
        """Bring back the best parked sequence that fits beside those before it, or make room for the best one."""
        pool = cluster.pools[DEVICE]
        reserve = int(self.watermark * pool.blocks) if cluster.active else 0
        free = pool.free
        for sequence in self._ranked([*cluster.waiting, *cluster.parked.values()], cluster.now_s):
            needed = self._blocks_needed(sequence, pool)
            if needed + reserve > free:
                return self._swap_out(cluster, sequence)
            if sequence.pool == HOST:
                return Decision(Copy((sequence,), DEVICE))
            free -= needed
        return self._swap_out(cluster, None) if pool.free == 0 else IDLE

    def _blocks_needed(self, sequence: Sequence, pool: BlockPool) -> int:
        if sequence.pool == HOST:
            return len(sequence.blocks)
        return pool.blocks_for(min(sequence.pending, self.limits.token_budget))

    def _swap_out(self, cluster: Cluster, rival: Sequence | None) -> Decision:
        """Swap out the lowest on the device if it stands below `rival`; without one, if it is not alone."""
        idle = self._ranked(_idle(cluster), cluster.now_s)
        if not idle or len(cluster.active) < 2 or len(idle[-1].blocks) > cluster.pools[HOST].free:
            return IDLE
        lowest = idle[-1]
        if rival is not None and self.level(rival, cluster.now_s) >= self.level(lowest, cluster.now_s):
            return IDLE
        return Decision(Copy((lowest,), HOST))


def _idle(cluster: Cluster) -> list[Sequence]:
    return [item for item in cluster.active.values() if item.lane is None]
