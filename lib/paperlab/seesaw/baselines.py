"""Schedulers with one layout throughout: the paper's baselines after vLLM, on any DP, TP and PP.

Each replica's pipeline takes PP micro-batches at a time, each of them 1/PP of what is resident, as vLLM's virtual
engines do; replicas share one waiting line, which spares them an uneven deal of the requests.
"""

from __future__ import annotations

from paperlab.seesaw.layout import Layout
from paperlab.seesaw.policies import Place, replica_lanes
from paperlab.serving.cluster import Cluster
from paperlab.serving.policies.chunked import add_decodes
from paperlab.serving.policy import BatchBuilder, Limits, Policy, register
from paperlab.serving.request import Sequence
from paperlab.serving.work import Decision

AHEAD_TOKENS = 64  # kept free for each decoding sequence when prompts are admitted, so that few are pre-empted later


@register
class StaticPrefillFirst(Policy):
    """Prompts as soon as they fit, in batches of their own; one token for a group of decoding sequences otherwise."""

    name = "static-prefill-first"

    def __init__(self, limits: Limits | None = None, *, layout: str | Layout = "T2") -> None:
        """`layout` may have replicas; `limits` are the caps of one micro-batch."""
        super().__init__(limits)
        self.layout = Layout.parse(layout)
        self.initial = str(self.layout.replica)
        places = [replica_lanes(replica, self.layout.pp, copies=False) for replica in range(self.layout.dp)]
        self._places = {lane.name: place for part in places for lane, place in part.items()}
        self.lanes = tuple(lane for part in places for lane in part)

    def schedule(self, lane: str, cluster: Cluster) -> Decision:
        """Return the lane's next micro-batch."""
        group, prompts, resident = self._share(self._places[lane], cluster)
        batch = BatchBuilder(cluster, lane, self.limits)
        self._add_prompts(batch, prompts, resident, cluster)
        if not batch.chunks:
            add_decodes(batch, group, prompts)
        return self._decision(batch, prompts)

    def _share(self, place: Place, cluster: Cluster) -> tuple[list[Sequence], list[Sequence], int]:
        """Return 1/PP of the decoding sequences, unfinished prompts that are not under way, and all residents."""
        decoding = resident = 0
        idle: list[Sequence] = []
        prompts: list[Sequence] = []
        for sequence in cluster.active.values():
            if sequence.pool != place.device:
                continue
            resident += 1
            generated = sequence.generated  # written out, not by properties: simulations spend most of their time here
            decoding += generated > 0
            if sequence.lane is None:
                decodes = generated and sequence.computed == sequence.request.prompt_tokens + generated - 1
                (idle if decodes else prompts).append(sequence)
        return idle[: -(-decoding // self.layout.pp)], prompts, resident

    def _add_prompts(self, batch: BatchBuilder, started: list[Sequence], resident: int, cluster: Cluster) -> None:
        """Add unfinished prompts, then waiting ones that leave every resident sequence room to grow."""
        for sequence in started:
            if batch.full or not batch.add(sequence):
                return
        ahead = -(-AHEAD_TOKENS // batch.block_size)
        reserve = ahead * resident
        batch.free_blocks -= reserve
        cap = self.limits.max_sequences * self.layout.pp
        for sequence in cluster.waiting[: max(0, cap - resident)]:
            if batch.full or not batch.add(sequence):
                break
            batch.free_blocks -= ahead
            reserve += ahead
        batch.free_blocks += reserve

    @staticmethod
    def _decision(batch: BatchBuilder, prompts: list[Sequence]) -> Decision:
        if not batch.chunks and not batch.preempted and prompts:  # prompts alone fill the pool: the newest lets go
            batch.add_preempting(prompts[0], prompts[1:])
        return batch.decision()


@register
class StaticChunked(StaticPrefillFirst):
    """Chunked prefill: the group's decodes first, prompts into what the token budget leaves."""

    name = "static-chunked"

    def schedule(self, lane: str, cluster: Cluster) -> Decision:
        """Return the lane's next mixed micro-batch."""
        group, prompts, resident = self._share(self._places[lane], cluster)
        batch = BatchBuilder(cluster, lane, self.limits)
        add_decodes(batch, group, prompts)
        if not batch.preempted:
            self._add_prompts(batch, prompts, resident, cluster)
        return self._decision(batch, prompts)
