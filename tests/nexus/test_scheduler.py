"""The order of prompts and decodes, budgets, memory, and whom a lack of it costs."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlab.nexus.policy import FcfsWithoutControl, Nexus, NexusWithoutControl
from paperlab.nexus.scheduler import order_prompts, plan_decode, plan_prefill, spf_score
from paperlab.nexus.settings import Settings
from paperlab.serving.policy import Limits
from paperlab.serving.request import Request, Sequence
from paperlab.serving.simulator import Stalled
from paperlab.serving.work import Chunk, Compute, Decision
from tests.nexus.small import serve
from tests.serving import doubles

PROMPTS = st.lists(st.tuples(st.floats(0, 100), st.integers(1, 9000), st.integers(0, 8000)), min_size=1, max_size=30)


def sequences(cells):
    made = []
    for index, (arrival_s, tokens, computed) in enumerate(cells):
        made.append(Sequence(Request(index, arrival_s, tokens, 5), computed=min(computed, tokens - 1)))
    return made


def ids(items):
    return [item.request.request_id for item in items]


@given(PROMPTS)
def test_an_infinite_gamma_is_first_come_first_served(cells):
    prompts = sequences(cells)
    assert ids(order_prompts(prompts, 100.0, "spf", math.inf)) == ids(order_prompts(prompts, 100.0, "fcfs", 0.0))
    by_arrival = sorted(prompts, key=lambda item: (item.request.arrival_s, item.request.request_id))
    assert ids(order_prompts(prompts, 100.0, "fcfs", 15.0)) == ids(by_arrival)


@given(PROMPTS)
def test_gamma_zero_sorts_by_what_remains(cells):
    ordered = order_prompts(sequences(cells), 100.0, "spf", 0.0)
    assert [item.pending for item in ordered] == sorted(item.pending for item in ordered)


def test_a_large_gamma_tends_to_first_come_first_served():
    prompts = sequences([(10.0, 1, 0), (0.0, 9000, 0), (5.0, 300, 0)])
    assert ids(order_prompts(prompts, 10.0, "spf", 0.0)) == [0, 2, 1]
    assert ids(order_prompts(prompts, 10.0, "spf", 1e6)) == [1, 2, 0]


def test_aging_lets_a_long_prompt_overtake_at_the_stated_rate():
    """15 tokens per second: a prompt of 3,000 tokens overtakes one of 1,500 after 100 s of head start."""
    old, new = sequences([(0.0, 3000, 0), (99.0, 1500, 0)])
    assert spf_score(old, 99.0, 15.0) > spf_score(new, 99.0, 15.0)
    late = Sequence(Request(2, 101.0, 1500, 5))
    assert spf_score(old, 101.0, 15.0) < spf_score(late, 101.0, 15.0)


def waiting(*sizes, blocks=1000, block_size=16):
    cluster = doubles.cluster(blocks, block_size, Nexus.lanes)
    for request in doubles.requests(*((size, 4) for size in sizes)):
        cluster.arrive(request)
    return cluster


def planned(batch):
    return [(chunk.sequence.request.request_id, chunk.tokens) for chunk in batch.chunks]


def test_the_last_prompt_of_a_batch_is_cut_to_what_is_left_of_the_budget():
    cluster, limits = waiting(700, 100, 400, 5000), Limits(512)
    assert planned(plan_prefill(cluster, "prefill", limits, "spf", Settings())) == [(1, 100), (2, 400), (0, 12)]
    literal = Settings(literal_listing=True)
    assert planned(plan_prefill(cluster, "prefill", limits, "spf", literal)) == [(1, 100), (2, 400)]
    few = Limits(512, max_sequences=1)
    assert planned(plan_prefill(cluster, "prefill", few, "spf", Settings())) == [(1, 100)]


def test_prompts_above_the_budget_finish_and_the_printed_listing_deadlocks():
    """Algorithm 2 stops at the first prompt that does not fit: with B = 512 one of 513 tokens is never started."""
    requests = doubles.requests((300, 3), (513, 3), (5000, 3), (40, 3))
    log = serve(NexusWithoutControl(Limits(512)), requests, limits=Limits(512))
    assert sum(note.kind == "finish" for note in log.notes) == 4
    with pytest.raises(Stalled, match="2 requests left"):
        serve(NexusWithoutControl(Limits(512), literal_listing=True), requests, limits=Limits(512))
    fits = doubles.requests((300, 3), (512, 3), (40, 3))
    serve(NexusWithoutControl(Limits(512), literal_listing=True), fits, limits=Limits(512))


def run_to_decode(cluster, *sizes):
    """Compute the prompts of the first sequences, so that they decode."""
    started = cluster.waiting[: len(sizes)]
    cluster.begin("prefill", Decision(Compute(tuple(Chunk(item, item.pending) for item in started))))
    cluster.finish("prefill")
    return started


def test_decodes_go_first_come_first_served_up_to_the_cap():
    cluster = waiting(30, 10, 20)
    run_to_decode(cluster, 30, 10, 20)
    assert planned(plan_decode(cluster, "decode", Limits(), Settings())) == [(0, 1), (1, 1), (2, 1)]
    assert planned(plan_decode(cluster, "decode", Limits(max_sequences=2), Settings())) == [(0, 1), (1, 1)]


def test_prefill_leaves_a_block_for_every_decoding_sequence():
    cluster = waiting(16, 16, 150, blocks=10)
    run_to_decode(cluster, 16, 16)
    assert cluster.pools["gpu0"].free == 8
    assert planned(plan_prefill(cluster, "prefill", Limits(96), "spf", Settings())) == [(2, 96)]
    assert planned(plan_prefill(cluster, "prefill", Limits(97), "spf", Settings())) == []


def test_without_blocks_decode_preempts_the_newest_or_an_unfinished_prompt_first():
    def full():
        """Sequences 0 and 2 decode and 1 is part-way; every block is taken and 0 needs one more."""
        cluster = doubles.cluster(5, 16, Nexus.lanes)
        for request in doubles.requests((16, 9), (40, 9), (16, 9)):
            cluster.arrive(request)
        first, part, newest = cluster.waiting
        cluster.begin("prefill", Decision(Compute((Chunk(first, 16), Chunk(part, 33), Chunk(newest, 16)))))
        cluster.finish("prefill")
        return cluster, part, newest

    cluster, part, newest = full()
    batch = plan_decode(cluster, "decode", Limits(), Settings())
    assert (planned(batch), batch.preempted) == ([(0, 1)], [newest])
    batch = plan_decode(cluster, "decode", Limits(), Settings(victims="prefill-first"))
    assert (planned(batch), batch.preempted) == ([(0, 1), (2, 1)], [part])


def test_part_way_prompts_give_way_where_nothing_else_can_move():
    cluster = doubles.cluster(10, 16, Nexus.lanes)
    for request in doubles.requests((150, 2), (140, 2)):
        cluster.arrive(request)
    one, other = cluster.waiting
    cluster.begin("prefill", Decision(Compute((Chunk(one, 80), Chunk(other, 80)))))
    cluster.finish("prefill")
    batch = plan_prefill(cluster, "prefill", Limits(), "spf", Settings())
    assert planned(batch) == [(1, 60)]
    assert batch.preempted == [one]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(("newest", "prefill-first")), st.sampled_from((1, 7, 16)))
def test_everything_finishes_in_a_pool_that_holds_little_more_than_one_sequence(seed, victims, block_size):
    draw = random.Random(seed)
    requests = doubles.requests(*((draw.randint(1, 400), draw.randint(1, 60)) for _ in range(12)), gap=0.01)
    policy = Nexus(Limits(128, 8), victims=victims)
    log = serve(policy, requests, limits=Limits(128, 8), kv_tokens=480, block_size=block_size)
    assert sorted(note.request_id for note in log.notes if note.kind == "finish") == list(range(12))
    emitted = [item for step in log.steps for item in step.emitted]
    for request in requests:
        assert emitted.count(request.request_id) == request.output_tokens


def test_fcfs_and_infinite_gamma_serve_request_by_request_alike():
    draw = random.Random(3)
    requests = doubles.requests(*((draw.randint(1, 4000), draw.randint(1, 50)) for _ in range(40)), gap=0.05)
    one, other = (
        serve(policy, requests) for policy in (FcfsWithoutControl(), NexusWithoutControl(gamma_tokens_per_s=math.inf))
    )
    assert one.steps == other.steps
