"""What goes into each lane's next batch.

Prompts go by age-corrected length (Algorithm 2, §4.3.1), decodes by arrival (§4.3.2). Planning changes nothing; see
`BatchBuilder`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from paperlab.nexus.settings import Settings
from paperlab.serving.cluster import Cluster, by_arrival
from paperlab.serving.policy import BatchBuilder, Limits
from paperlab.serving.request import Sequence

ORDERS = ("spf", "fcfs")


def spf_score(sequence: Sequence, now_s: float, gamma_tokens_per_s: float) -> float:
    """Return what SPF sorts by: the tokens left to compute minus γ times the seconds since arrival.

    The paper's text has the prompt's length where its listing has what remains of it; a chunked prompt must not keep
    its full length, so it is the latter.
    """
    return sequence.pending - gamma_tokens_per_s * (now_s - sequence.request.arrival_s)


def order_prompts(prompts: Iterable[Sequence], now_s: float, order: str, gamma_tokens_per_s: float) -> list[Sequence]:
    """Return `prompts` in the order of service: `fcfs`, or `spf`, which is the same at an infinite γ."""
    if order == "fcfs" or math.isinf(gamma_tokens_per_s):
        return by_arrival(prompts)
    return sorted(prompts, key=lambda item: (spf_score(item, now_s, gamma_tokens_per_s), item.arrival_order))


def unfinished_prompts(cluster: Cluster) -> list[Sequence]:
    """Return what the prefill lane could work on: waiting, part-way, or to be computed anew after a pre-emption."""
    started = [item for item in cluster.active.values() if item.lane is None and not item.decoding]
    return [*started, *cluster.waiting]


def decoding(cluster: Cluster) -> list[Sequence]:
    """Return what the decode lane could work on, first come, first served."""
    return by_arrival(item for item in cluster.active.values() if item.lane is None and item.decoding)


def plan_prefill(cluster: Cluster, lane: str, limits: Limits, order: str, settings: Settings) -> BatchBuilder:
    """Plan a batch of prompts, the last one perhaps as a chunk of what the token budget leaves.

    Algorithm 2 as printed stops at the first prompt that does not fit, so that one above the budget is never served;
    `settings.literal_listing` shows it. A block for each decoding sequence stays free, as its next token may
    need one. If no sequence decodes and the first prompt finds no memory, part-way prompts at the end of the
    line give theirs back.
    """
    batch = BatchBuilder(cluster, lane, limits)
    queue = order_prompts(unfinished_prompts(cluster), cluster.now_s, order, settings.gamma_tokens_per_s)
    others = sum(item.decoding for item in cluster.active.values())
    batch.free_blocks = max(0, batch.free_blocks - others)
    for sequence in queue:
        if batch.full or (settings.literal_listing and sequence.pending > batch.tokens_left):
            break
        if not batch.add(sequence):
            break
    if queue and not batch.chunks and not others and not settings.literal_listing:
        batch.add_preempting(queue[0], [item for item in queue[1:] if item.blocks])
    return batch


def plan_decode(cluster: Cluster, lane: str, limits: Limits, settings: Settings) -> BatchBuilder:
    """Plan one token for each decoding sequence, oldest first; where blocks run out, pre-empt to be computed anew."""
    batch = BatchBuilder(cluster, lane, limits)
    queue = decoding(cluster)
    while queue and not batch.full:
        sequence = queue.pop(0)
        if batch.add(sequence):
            continue
        prompts = [item for item in unfinished_prompts(cluster) if item.blocks and item not in batch.preempted]
        victims = _least_worthy_last([sequence, *queue], prompts, settings)
        batch.add_preempting(sequence, victims)
        queue = [item for item in queue if item not in batch.preempted]
    return batch


def _least_worthy_last(decodes: list[Sequence], prompts: list[Sequence], settings: Settings) -> list[Sequence]:
    if settings.victims == "prefill-first":
        return [*by_arrival(decodes), *by_arrival(prompts)]
    return by_arrival([*decodes, *prompts])
