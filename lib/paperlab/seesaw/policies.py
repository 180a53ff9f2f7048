"""Schedulers that re-shard between prefill and decode, as policies of the serving core (§4.2, Figs. 2 and 6).

All three prefill in one layout, write keys and values through to the host, and decode in another after swapping them
in. They differ in two questions: how much to prefill before turning to decode, and when to turn back.

seesaw                 until the host is full      once the host is empty     few transitions, full batches
reshard-prefill-first  until the GPU is spoken for as soon as a prompt fits   many transitions
reshard-decode-first   until the GPU is spoken for once the GPU is empty      batches that run dry
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from paperlab.seesaw.layout import Layout
from paperlab.serving.cluster import Cluster, Lane
from paperlab.serving.policy import BatchBuilder, Limits, Policy, register
from paperlab.serving.request import Sequence
from paperlab.serving.work import IDLE, Chunk, Compute, Copy, Decision, Reconfigure

DEPTH = 2  # prompt batches under way per stage: enough that no stage waits for one of uneven length


class Place(NamedTuple):
    """A lane's part of its replica: a compute slot, or one direction of the host link."""

    device: str
    host: str
    slot: int = -1
    direction: str = ""


def replica_lanes(replica: int, slots: int, copies: bool) -> dict[Lane, Place]:
    """Return the lanes of one replica with their places."""
    device, host = f"gpu{replica}", f"host{replica}"
    lanes = {Lane(f"{device}.{slot}", device): Place(device, host, slot) for slot in range(slots)}
    if copies:
        for direction in ("in", "out"):
            lane = Lane(f"{device}.{direction}", f"link{replica}.{direction}", "copy")
            lanes[lane] = Place(device, host, direction=direction)
    return lanes


@register
class Seesaw(Policy):
    """The paper's transition-minimizing scheduler.

    Notes in the log: `phase` whenever a replica turns, with what it turns to and why.
    """

    name = "seesaw"

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        prefill: str | Layout = "P2",
        decode: str | Layout = "T2",
        replicas: int = 1,
        prefetch_in_prefill: bool = True,
    ) -> None:
        """Set the layouts.

        Args:
            limits: caps of one micro-batch; a prompt longer than the token budget is a batch of its own.
            prefill: layout of one replica while it prefills.
            decode: layout of one replica while it decodes.
            replicas: how many share the waiting line, each with its own GPUs, phases and part of the host memory.
            prefetch_in_prefill: whether sequences are swapped in while prompts still run, as the paper allows.

        Raises:
            ValueError: the layouts differ in GPUs, or have replicas of their own.
        """
        super().__init__(limits)
        self.layouts = {"prefill": Layout.parse(prefill), "decode": Layout.parse(decode)}
        first, second = self.layouts.values()
        if first.dp > 1 or second.dp > 1 or first.ranks != second.ranks or replicas < 1:
            raise ValueError(
                f"{self.name}: prefill is {first}, decode {second}, replicas {replicas}; "
                "give two layouts of one replica with the same number of GPUs"
            )
        self.prefetch_in_prefill = prefetch_in_prefill
        self.initial = str(first)
        self._slots = {"prefill": DEPTH * first.pp, "decode": second.pp}
        places = [replica_lanes(replica, max(self._slots.values()), copies=True) for replica in range(replicas)]
        self._places = {lane.name: place for part in places for lane, place in part.items()}
        self.lanes = tuple(lane for part in places for lane in part)
        self._phase = {f"gpu{replica}": "prefill" for replica in range(replicas)}

    def schedule(self, lane: str, cluster: Cluster) -> Decision:
        """Return the next micro-batch, copy or re-sharding of a lane's replica."""
        place = self._places[lane]
        phase = self._phase[place.device]
        if place.slot >= self._slots[phase]:
            return IDLE
        if place.device in cluster.reconfiguring:
            return IDLE  # the link loads weights
        if place.direction == "in":
            return self._swap_in(place, cluster)
        if place.direction == "out":
            return self._swap_out(place, cluster)
        if phase == "prefill":
            return self._prefill(lane, place, cluster)
        return self._decode(lane, place, cluster)

    def _room(self, place: Place, cluster: Cluster) -> int:
        """Return how many more blocks may be prefilled before decoding: what the host holds."""
        return cluster.pools[place.host].free

    def _returns(self, place: Place, cluster: Cluster) -> bool:
        """Whether decoding should give way to the next prompts: the host is empty."""
        return bool(cluster.waiting) and not cluster.pools[place.host].used

    def _prefill(self, lane: str, place: Place, cluster: Cluster) -> Decision:
        chunks = self._prompts(place, cluster)
        if chunks:
            return Decision(Compute(chunks, target=place.host))
        if cluster.computing(place.device) or self._copies(place, cluster):
            return IDLE  # what is under way ends first; a copy to the GPU makes room on the host
        if not cluster.pools[place.host].used and not cluster.pools[place.device].used:
            return IDLE
        why = "the host is full" if cluster.waiting else "no prompt is left"
        return self._turn(lane, place, "decode", why, cluster)

    def _prompts(self, place: Place, cluster: Cluster) -> tuple[Chunk, ...]:
        """Return whole prompts, first come, first served, within the budget and the room for their blocks."""
        room, budget = self._room(place, cluster), self.limits.token_budget
        chunks: list[Chunk] = []
        pool = cluster.pools[place.host]
        for sequence in cluster.waiting:
            tokens, blocks = sequence.pending, pool.blocks_for(sequence.pending)
            if blocks > room or (chunks and tokens > budget) or len(chunks) >= self.limits.max_sequences:
                break
            room, budget = room - blocks, budget - tokens
            chunks.append(Chunk(sequence, tokens))
        return tuple(chunks)

    def _decode(self, lane: str, place: Place, cluster: Cluster) -> Decision:
        if self._returns(place, cluster):
            if cluster.computing(place.device):
                return IDLE
            return self._turn(lane, place, "prefill", "the host is empty", cluster)
        resident = [item for item in cluster.active.values() if item.pool == place.device]
        return self._group(lane, place, resident, cluster)

    def _group(self, lane: str, place: Place, resident: list[Sequence], cluster: Cluster) -> Decision:
        """Return one decode step of 1/PP of the resident sequences (§5.1); who finds no block sits out."""
        idle = [item for item in resident if item.lane is None]
        batch = BatchBuilder(cluster, lane, self.limits)
        for sequence in idle[: -(-len(resident) // self.layouts["decode"].pp)]:
            if batch.full:
                break
            batch.add(sequence)
        if not batch.chunks and idle and not cluster.computing(place.device) and not self._copies(place, cluster):
            batch.add_preempting(idle[0], idle[1:])  # neither tier has room: the newest is computed anew
        return batch.decision()

    def _turn(self, lane: str, place: Place, phase: str, why: str, cluster: Cluster) -> Decision:
        self._phase[place.device] = phase
        target = str(self.layouts[phase])
        if target == cluster.configurations[place.device]:
            return self.schedule(lane, cluster)
        return Decision(Reconfigure(target), notes=(("phase", f"{place.device}: {phase}, {why}"),))

    def _swap_in(self, place: Place, cluster: Cluster) -> Decision:
        """Fetch the oldest that fits beside a block of growth for each resident sequence."""
        if self._phase[place.device] == "prefill" and not self.prefetch_in_prefill:
            return IDLE
        pool = cluster.pools[place.device]
        staged = (item for item in cluster.parked.values() if item.pool == place.host and item.lane is None)
        first = next((item for item in staged if item.decoding), None)
        if first is None:
            return IDLE
        # Alone on the GPU any sequence fits to its end, or it would have been refused.
        growth = 1 + _resident(place, cluster) if pool.used else 0
        if len(first.blocks) + growth > pool.free:
            return IDLE
        return Decision(Copy((first,), place.device))

    def _swap_out(self, place: Place, cluster: Cluster) -> Decision:
        """Send the newest resident sequence back to the host when the next steps might find no blocks."""
        pool = cluster.pools[place.device]
        free_tokens = pool.free * pool.block_size
        if self._phase[place.device] == "prefill" or free_tokens > 2 * len(cluster.active):
            return IDLE
        resident = _resident(place, cluster)
        if free_tokens > 2 * resident or resident < 2:
            return IDLE
        idle = (item for item in reversed(cluster.active.values()) if item.pool == place.device and item.lane is None)
        victim = next(idle, None)
        if victim is None or len(victim.blocks) > cluster.pools[place.host].free:
            return IDLE
        return Decision(Copy((victim,), place.host))

    def _copies(self, place: Place, cluster: Cluster) -> bool:
        """Whether a copy is under way or could start."""
        if any(f"{place.device}.{direction}" in cluster.jobs for direction in ("in", "out")):
            return True
        return self._swap_in(place, cluster).work is not None or self._swap_out(place, cluster).work is not None


@register
class ReshardPrefillFirst(Seesaw):
    """Prefill-prioritized: prompts run whenever the GPU has room for the next one (Fig. 2a)."""

    name = "reshard-prefill-first"

    def _room(self, place: Place, cluster: Cluster) -> int:
        return _unclaimed(place, cluster)

    def _returns(self, place: Place, cluster: Cluster) -> bool:
        if not cluster.waiting or cluster.pools[place.host].used:
            return False
        return cluster.pools[place.host].blocks_for(cluster.waiting[0].pending) <= _unclaimed(place, cluster)


@register
class ReshardDecodeFirst(ReshardPrefillFirst):
    """Decode-prioritized: prompts run only once every sequence of the batch has finished (Fig. 2b)."""

    name = "reshard-decode-first"

    def _returns(self, place: Place, cluster: Cluster) -> bool:
        return super()._returns(place, cluster) and not cluster.pools[place.device].used


def _resident(place: Place, cluster: Cluster) -> int:
    return sum(item.pool == place.device for item in cluster.active.values())


def _unclaimed(place: Place, cluster: Cluster) -> int:
    """Return the GPU's blocks that neither resident sequences, one block of growth each, nor staged ones will take."""
    pool, host = cluster.pools[place.device], cluster.pools[place.host]
    if not pool.used and not host.used:
        return min(host.free, pool.free)  # all of it, or a prompt as long as the GPU would wait forever
    staged = _count(item for item in cluster.parked.values() if item.pool == place.host)
    return min(host.free, pool.free - host.used - _resident(place, cluster) - 2 * staged - 1)


def _count(items: Iterable[object]) -> int:
    return sum(1 for _ in items)
