"""SGLang-like: prompts before decodes, in batches of their own, or mixed with the running decodes.

SGLang 0.4's default forms a batch of prompts whenever one is waiting and fits, and decodes otherwise; its `mixed-chunk`
option adds the running decodes to each chunk. RadixAttention is left out: the workloads share no prefixes.
"""

from __future__ import annotations

from paperlab.serving.cluster import Cluster
from paperlab.serving.policies.chunked import add_decodes, idle
from paperlab.serving.policy import BatchBuilder, Policy, register
from paperlab.serving.request import Sequence
from paperlab.serving.work import Decision


@register
class PrefillFirst(Policy):
    """Alternates: all prompts that fit (chunked at the token budget), else one token for every decoding sequence."""

    name = "sglang-like"
    mixed = False

    def schedule(self, lane: str, cluster: Cluster) -> Decision:
        """Return a batch of prompts where there is one, else a batch of decodes."""
        decoding, prompts = idle(cluster)
        batch = BatchBuilder(cluster, lane, self.limits)
        self._add_prompts(batch, [*prompts, *cluster.waiting], len(decoding))
        if batch.chunks and self.mixed:
            # Decodes come on top of the chunk's budget, as long as they find blocks.
            batch.tokens_left = min(len(decoding), self.limits.max_sequences - len(batch.chunks))
            for sequence in decoding[: batch.tokens_left]:
                batch.add(sequence)
        if not batch.chunks:
            add_decodes(batch, decoding, prompts)
        if not batch.chunks and prompts:
            batch.add_preempting(prompts[0], prompts[1:])
        return batch.decision()

    def _add_prompts(self, batch: BatchBuilder, prompts: list[Sequence], decoding: int) -> None:
        """Add prompts, keeping a block free for each decoding sequence, and no more sequences than may decode."""
        batch.free_blocks -= decoding
        room = self.limits.max_sequences - decoding
        for sequence in prompts[: max(0, room)]:
            if batch.full or not batch.add(sequence):
                break
        batch.free_blocks += decoding


@register
class MixedChunk(PrefillFirst):
    """The same order with the running decodes in every batch of prompts."""

    name = "sglang-mixed"
    mixed = True
