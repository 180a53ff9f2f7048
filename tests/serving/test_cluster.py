"""The cluster's state machine: memory, queues and accounting, step by step."""

from __future__ import annotations

import pytest

from paperlab.serving.cluster import Lane
from paperlab.serving.request import Request
from paperlab.serving.work import Chunk, Compute, Copy, Decision, StepShape, step_shape
from tests.serving import doubles

LANES = (Lane("main", "gpu0"), Lane("swap", "host", "copy"))


def compute(cluster, *chunks, lane="main"):
    """Run one iteration at once."""
    cluster.begin(lane, Decision(Compute(tuple(Chunk(*chunk) for chunk in chunks))))
    cluster.check()
    cluster.finish(lane)
    cluster.check()


def test_a_request_from_arrival_to_end():
    cluster = doubles.cluster()
    sequence = cluster.arrive(Request(7, 0.0, prompt_tokens=10, output_tokens=3))
    assert (cluster.waiting, sequence.pending, sequence.decoding) == ([sequence], 10, False)
    compute(cluster, (sequence, 6))
    assert (sequence.computed, sequence.generated, len(sequence.blocks)) == (6, 0, 2)
    compute(cluster, (sequence, 4))
    assert (sequence.generated, sequence.decoding, len(sequence.blocks)) == (1, True, 3)
    compute(cluster, (sequence, 1))
    compute(cluster, (sequence, 1))
    assert sequence.generated == 3
    assert not cluster.unfinished
    assert cluster.pools["gpu0"].used == 0
    assert [step.emitted for step in cluster.log.steps] == [(), (7,), (7,), (7,)]
    assert [note.kind for note in cluster.log.notes] == ["arrive", "finish"]


def test_a_stop_token_ends_a_sequence_early():
    cluster = doubles.cluster()
    sequence = cluster.arrive(Request(1, 0.0, 4, 100))
    cluster.begin("main", Decision(Compute((Chunk(sequence, 4),))))
    cluster.finish("main", stopped=[1])
    assert not cluster.unfinished
    assert cluster.pools["gpu0"].used == 0


def test_preemption_drops_memory_and_keeps_what_was_generated():
    cluster = doubles.cluster()
    first, second = (cluster.arrive(request) for request in doubles.requests((8, 5), (8, 5)))
    compute(cluster, (first, 8), (second, 8))
    cluster.begin("main", Decision(preempt=(first,)))
    cluster.check()
    assert (first.computed, first.generated, first.pending, first.preemptions) == (0, 1, 9, 1)
    assert cluster.waiting == [first]
    compute(cluster, (first, 9))  # prompt and generated token anew: the second token comes out
    assert first.generated == 2


def test_swapped_sequences_hold_blocks_at_both_ends_while_copied():
    cluster = doubles.cluster(lanes=LANES, host=8)
    sequence = cluster.arrive(Request(0, 0.0, 10, 5))
    compute(cluster, (sequence, 10))
    cluster.begin("swap", Decision(Copy((sequence,), "host")))
    cluster.check()
    assert (cluster.pools["gpu0"].used, cluster.pools["host"].used) == (3, 3)
    cluster.finish("swap")
    cluster.check()
    assert (cluster.pools["gpu0"].used, cluster.pools["host"].used) == (0, 3)
    assert list(cluster.parked) == [0]
    cluster.begin("swap", Decision(Copy((sequence,), "gpu0")))
    cluster.finish("swap")
    compute(cluster, (sequence, 1))
    assert sequence.generated == 2
    assert [(move.source, move.target, move.blocks) for move in cluster.log.moves] == [
        ("gpu0", "host", 3),
        ("host", "gpu0", 3),
    ]


def test_waiting_is_sorted_by_arrival_whatever_the_order_of_calls():
    cluster = doubles.cluster()
    for request_id, arrival in ((0, 2.0), (1, 1.0), (2, 2.0), (3, 0.5)):
        cluster.arrive(Request(request_id, arrival, 4, 4))
    assert [sequence.request.request_id for sequence in cluster.waiting] == [3, 1, 0, 2]


def test_a_request_that_can_never_fit_is_refused_alone():
    cluster = doubles.cluster(blocks=4, block_size=4)
    assert cluster.arrive(Request(0, 0.0, 14, 3)) is None
    assert cluster.arrive(Request(1, 0.0, 14, 2)) is not None
    note = cluster.log.notes[1]
    assert (note.kind, note.detail) == ("refuse", "prompt and output need 17 tokens; at most 16 fit")


def test_shape_counts_query_key_pairs():
    cluster = doubles.cluster()
    decoding, chunked = (cluster.arrive(request) for request in doubles.requests((6, 9), (20, 2)))
    compute(cluster, (decoding, 6), (chunked, 5))
    found = step_shape([Chunk(decoding, 1), Chunk(chunked, 3)])
    pairs = sum(1 for query in range(5, 8) for key in range(query + 1))
    assert found == StepShape(3, 5, pairs, 1, 7, 1)
    assert found.kind == "mixed"
    assert step_shape([Chunk(chunked, 15)]).logits == 1


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_impossible_shares_are_refused(share):
    with pytest.raises(ValueError, match="share is"):
        Compute((object(),), share)


def test_misuse_is_caught():
    cluster = doubles.cluster(lanes=(Lane("a", "gpu0"), Lane("b", "gpu0")))
    sequence = cluster.arrive(Request(0, 0.0, 8, 2))
    cluster.begin("a", Decision(Compute((Chunk(sequence, 4),))))
    with pytest.raises(AssertionError, match="already on lane a"):
        cluster.begin("b", Decision(Compute((Chunk(sequence, 4),))))
    with pytest.raises(AssertionError, match="in flight"):
        cluster.preempt(sequence)
