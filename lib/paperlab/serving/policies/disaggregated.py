"""vLLM-P/D-like: prompts on one device, decoding on another, keys and values sent over the link between them.

After DistServe, and vLLM with LMCache as the Nexus paper uses it (§6.1): a bounded buffer holds what waits for the
link. Where it overflows, the newest entry is evicted and its prompt computed again.
"""

from __future__ import annotations

from paperlab.serving.cluster import Cluster, Lane, by_arrival
from paperlab.serving.deployment import Deployment
from paperlab.serving.policies.chunked import add_decodes
from paperlab.serving.policy import DEVICE, BatchBuilder, Limits, Policy, register
from paperlab.serving.request import Sequence
from paperlab.serving.work import IDLE, Copy, Decision

PEER_DEVICE = "gpu1"


@register
class Disaggregated(Policy):
    """Prefill first come, first served with chunking on `gpu0`, which yields the first token; decode on `gpu1`."""

    name = "vllm-pd-like"
    lanes = (Lane("prefill", DEVICE), Lane("transfer", "peer", "copy"), Lane("decode", PEER_DEVICE))

    def __init__(self, limits: Limits | None = None, buffer_bytes: float = 5e9, batch: int = 8) -> None:
        """Set the transfer.

        Args:
            limits: caps of one iteration, for each device.
            buffer_bytes: of keys and values that may wait for the link, per device; the paper does not state it.
            batch: sequences in one transfer at most.
        """
        super().__init__(limits)
        if not buffer_bytes > 0 or batch < 1:
            raise ValueError(f"vllm-pd-like: buffer_bytes is {buffer_bytes}, batch {batch}; both must be positive")
        self.buffer_bytes, self.batch = buffer_bytes, batch
        self._buffer_blocks = 1

    def bind(self, deployment: Deployment) -> None:
        """Learn how many blocks the buffer holds."""
        self._buffer_blocks = max(1, int(self.buffer_bytes / deployment.block_bytes))

    def schedule(self, lane: str, cluster: Cluster) -> Decision:
        """Return the next batch of prompts, batch of decodes, or transfer."""
        if lane == "transfer":
            return self._transfer(cluster)
        return self._prefill(lane, cluster) if lane == "prefill" else self._decode(lane, cluster)

    def _prefill(self, lane: str, cluster: Cluster) -> Decision:
        batch = BatchBuilder(cluster, lane, self.limits)
        started = [item for item in self._on(DEVICE, cluster) if not item.decoding]
        for sequence in [*started, *cluster.waiting]:
            if batch.full or not batch.add(sequence):
                break
        if not batch.chunks and started:
            batch.add_preempting(started[0], started[1:])
        return batch.decision()

    def _decode(self, lane: str, cluster: Cluster) -> Decision:
        batch = BatchBuilder(cluster, lane, self.limits)
        add_decodes(batch, by_arrival(self._on(PEER_DEVICE, cluster)), [])
        return batch.decision()

    def _transfer(self, cluster: Cluster) -> Decision:
        """Send the oldest that fit beside a block of growth for each decoding sequence; evict what overflows."""
        ready = by_arrival(item for item in self._on(DEVICE, cluster) if item.decoding)
        if not ready:
            return IDLE
        pool = cluster.pools[PEER_DEVICE]
        growth = sum(item.pool == PEER_DEVICE for item in cluster.active.values())
        free = pool.free - growth
        sent: list[Sequence] = []
        for sequence in ready[: self.batch]:
            if len(sequence.blocks) + 1 > free and (growth or sent or len(sequence.blocks) > pool.free):
                break
            free -= len(sequence.blocks) + 1
            sent.append(sequence)
        evicted = self._overflow(ready[len(sent) :])
        return Decision(Copy(tuple(sent), PEER_DEVICE) if sent else None, tuple(evicted))

    def _overflow(self, held: list[Sequence]) -> list[Sequence]:
        """Return the newest of the sequences that wait for the link, as many as exceed the buffer; one always stays."""
        evicted: list[Sequence] = []
        blocks = sum(len(item.blocks) for item in held)
        while blocks > self._buffer_blocks and len(held) - len(evicted) > 1:
            evicted.append(held[len(held) - 1 - len(evicted)])
            blocks -= len(evicted[-1].blocks)
        return evicted

    @staticmethod
    def _on(pool: str, cluster: Cluster) -> list[Sequence]:
        return [item for item in cluster.active.values() if item.pool == pool and item.lane is None]
