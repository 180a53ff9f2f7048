"""vLLM-like: continuous batching with chunked prefill in mixed batches (vLLM v1, Sarathi-Serve)."""

from __future__ import annotations

from paperlab.serving.cluster import Cluster
from paperlab.serving.policy import BatchBuilder, Limits, Policy, register
from paperlab.serving.request import Sequence
from paperlab.serving.work import Decision


@register
class Chunked(Policy):
    """First come, first served. One token for each decoding sequence, then prompts into what the budget leaves.

    Where a running sequence finds no block, the newest one is pre-empted and computed anew later; no prompt is admitted
    in that iteration. vLLM walks its running sequences in the order of admission; since only the newest can have an
    unfinished prompt there, that is decodes first.
    """

    name = "vllm-like"

    def schedule(self, lane: str, cluster: Cluster) -> Decision:
        """Return the next mixed batch."""
        batch = BatchBuilder(cluster, lane, self.limits)
        decoding, prompts = idle(cluster)
        add_decodes(batch, decoding, prompts)
        for sequence in self.order(prompts, cluster):
            if batch.full or sequence in batch.preempted:
                break
            if sequence.pool is None and batch.preempted:
                break
            if not batch.add(sequence):
                self._make_room(batch, sequence, prompts)
                break
        return batch.decision()

    def order(self, started: list[Sequence], cluster: Cluster) -> list[Sequence]:
        """Return unfinished prompts in the order of service: those part-way, then those waiting."""
        return [*started, *cluster.waiting]

    def _make_room(self, batch: BatchBuilder, first: Sequence, started: list[Sequence]) -> None:
        """Where prompts alone fill the pool, let the newest of the others go, so that the first can finish."""
        if not batch.chunks:
            batch.add_preempting(first, [item for item in started if item is not first])


@register
class ShortestPromptFirst(Chunked):
    """Chunked prefill with prompts by remaining length, aged by `gamma_tokens_per_s` as in Nexus.

    The control that separates the order of prompts from the partition of the device. A long prompt that has started may
    be overtaken; it keeps its memory meanwhile.
    """

    name = "spf-chunked"

    def __init__(self, limits: Limits | None = None, gamma_tokens_per_s: float = 15.0) -> None:
        super().__init__(limits)
        if not gamma_tokens_per_s >= 0:
            raise ValueError(f"spf-chunked: gamma_tokens_per_s is {gamma_tokens_per_s}; it must not be negative")
        self.gamma_tokens_per_s = gamma_tokens_per_s

    def order(self, started: list[Sequence], cluster: Cluster) -> list[Sequence]:
        """Return prompts by remaining tokens minus γ times their age; the clock cancels out of the comparison."""

        def score(sequence: Sequence) -> tuple[float, tuple[float, int]]:
            return sequence.pending + self.gamma_tokens_per_s * sequence.request.arrival_s, sequence.arrival_order

        return sorted([*started, *cluster.waiting], key=score)


def idle(cluster: Cluster) -> tuple[list[Sequence], list[Sequence]]:
    """Return the sequences with device memory that are not in flight: those that decode, and unfinished prompts."""
    decoding: list[Sequence] = []
    prompts: list[Sequence] = []
    for sequence in cluster.active.values():
        if sequence.lane is None:
            (decoding if sequence.decoding else prompts).append(sequence)
    return decoding, prompts


def add_decodes(batch: BatchBuilder, decoding: list[Sequence], expendable: list[Sequence]) -> None:
    """Add one token of each of `decoding`; where blocks run out, pre-empt from the end of `decoding + expendable`."""
    line = [*decoding, *expendable]
    for index, sequence in enumerate(decoding[: min(batch.tokens_left, batch.sequences_left)]):
        if index >= len(line):
            return  # the rest has been pre-empted
        if not batch.add(sequence):
            victims = line[index:]
            batch.add_preempting(sequence, victims)
            del line[index + len(victims) :]
