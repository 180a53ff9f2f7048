"""vLLM-like: continuous batching with chunked prefill in mixed batches (vLLM v1, Sarathi-Serve)."""

from __future__ import annotations

from paperlab.serving.cluster import Cluster
from paperlab.serving.policy import BatchBuilder, Policy, register
from paperlab.serving.request import Sequence
from paperlab.serving.work import Decision


@register
class Chunked(Policy):
    """First come, first served. Running sequences first, then prompts into what is left of the token budget.

    Where a running sequence finds no block, the newest one is pre-empted and computed anew later.
    """

    name = "vllm-like"

    def schedule(self, lane: str, cluster: Cluster) -> Decision:
        """Return the next mixed batch."""
        batch = BatchBuilder(cluster, lane, self.limits)
        running = [sequence for sequence in cluster.active.values() if sequence.lane is None]
        # Decodes come first, so that a long prompt's chunk never takes the budget from them.
        running.sort(key=lambda sequence: not sequence.decoding)
        index = 0
        while index < len(running) and not batch.full:
            victims = running[index:]
            batch.add_preempting(running[index], victims)
            del running[index + len(victims) :]
            index += 1
        if not batch.preempted:
            self._admit(batch, self.queue(cluster))
        return batch.decision()

    def queue(self, cluster: Cluster) -> list[Sequence]:
        """Return the waiting prompts in the order of admission."""
        return cluster.waiting

    def _admit(self, batch: BatchBuilder, queue: list[Sequence]) -> None:
        for sequence in queue:
            if batch.full or not batch.add(sequence):
                return
