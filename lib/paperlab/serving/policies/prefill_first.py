"""SGLang-like: prompts before decodes, in batches of their own, or mixed with the running decodes.

SGLang 0.4's default forms a batch of prompts whenever one is waiting and fits, and decodes otherwise; its `mixed-chunk`
option adds the running decodes to each chunk, within the chunk's budget. RadixAttention is left out: the workloads
share no prefixes.
"""

from __future__ import annotations

from paperlab.serving.cluster import Cluster
from paperlab.serving.policies.chunked import add_decodes, idle
from paperlab.serving.policy import BatchBuilder, Limits, Policy, register
from paperlab.serving.request import Sequence
from paperlab.serving.work import Decision


@register
class PrefillFirst(Policy):
    """Alternates: all prompts that fit (chunked at the token budget), else one token for every decoding sequence."""

    name = "sglang-like"
    mixed = False

    def __init__(self, limits: Limits | None = None, ahead_tokens: int = 64) -> None:
        """Set the reserve.

        Args:
            limits: caps of one iteration.
            ahead_tokens: room kept free for every decoding sequence when prompts are admitted, so that few must be
                pre-empted later. SGLang keeps an adaptive share, 0.7 down to 0.1, of the answer's greatest length; 64
                is about 0.1 of the longest answers here.
        """
        super().__init__(limits)
        if ahead_tokens < 1:
            raise ValueError(f"{self.name}: ahead_tokens is {ahead_tokens}; it must be at least 1")
        self.ahead_tokens = ahead_tokens

    def schedule(self, lane: str, cluster: Cluster) -> Decision:
        """Return a batch of prompts where there is one, else a batch of decodes."""
        decoding, prompts = idle(cluster)
        batch = BatchBuilder(cluster, lane, self.limits)
        self._add_prompts(batch, [*prompts, *cluster.waiting], len(decoding))
        if batch.chunks and self.mixed:
            for sequence in decoding:
                batch.add(sequence)
        if not batch.chunks:
            add_decodes(batch, decoding, prompts)
        if not batch.chunks and prompts:
            batch.add_preempting(prompts[0], prompts[1:])
        return batch.decision()

    def _add_prompts(self, batch: BatchBuilder, prompts: list[Sequence], decoding: int) -> None:
        """Add prompts, keeping blocks for them and the decoding sequences, and no more sequences than may decode."""
        ahead = -(-self.ahead_tokens // batch.block_size)
        reserve, budget = ahead * decoding, decoding if self.mixed else 0
        batch.free_blocks -= reserve
        batch.tokens_left -= budget
        for sequence in prompts[: max(0, self.limits.max_sequences - decoding)]:
            if batch.full or not batch.add(sequence):
                break
            batch.free_blocks -= ahead
            reserve += ahead
        batch.free_blocks += reserve
        batch.tokens_left += budget


@register
class MixedChunk(PrefillFirst):
    """The same order with the running decodes in every batch of prompts."""

    name = "sglang-mixed"
    mixed = True
