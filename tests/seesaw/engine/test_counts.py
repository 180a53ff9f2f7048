"""Bytes and counts, exactly: what each rank sends, reduces, writes, reads and loads follows from layouts and log."""

import pytest

from paperlab.seesaw.layout import Layout
from tests.seesaw.engine.oracle import BLOCK, NEW_TOKENS, PAIRS, RAGGED, blocks, engine, prompts
from tests.seesaw.small import TINY

WIDTH = 4 * TINY.hidden  # bytes of a token's hidden state in fp32


def expected(log, prefill, decode, rank):
    """Return the counts of one rank from the log's steps and moves alone."""
    found = dict.fromkeys(
        ("forwards", "prefill_tokens", "decode_tokens", "all_reduce", "all_reduce_bytes", "all_gather", "sent",
         "sent_bytes", "kv_out_bytes", "kv_in_bytes", "loads", "weight_bytes"), 0,
    )  # fmt: skip
    shards = {name: Layout.parse(name).shard(TINY, rank) for name in (prefill, decode)}
    for step in log.steps:
        shard, shape = shards[prefill if step.target else decode], step.shape
        found["forwards"] += 1
        found["prefill_tokens"] += shape.prefill_tokens
        found["decode_tokens"] += shape.decode_tokens
        if shard.layout.tp > 1:
            calls = 2 * len(shard.layers) + shard.is_first  # the embedding is split over the vocabulary
            found["all_reduce"] += calls
            found["all_reduce_bytes"] += calls * shape.tokens * WIDTH
            found["all_gather"] += shard.is_last
        if not shard.is_last:
            found["sent"] += 1
            found["sent_bytes"] += shape.tokens * WIDTH
        if step.target:
            written = sum(blocks(RAGGED[request]) for request in step.requests)
            found["kv_out_bytes"] += share(shard, written) * BLOCK * shard.kv_token_bytes("fp32")
    for move in log.moves:
        assert move.target == "gpu0"
        found["kv_in_bytes"] += move.blocks * BLOCK * shards[decode].kv_token_bytes("fp32")
    for switch in log.switches:
        found["loads"] += 1
        found["weight_bytes"] += shards[switch.target].weight_bytes("fp32")
    return found


def share(shard, count):
    """Return how many of `count` blocks a rank writes where several hold the same heads."""
    copies = max(1, shard.layout.tp // TINY.kv_heads)
    return len(range(shard.tp_rank % copies, count, copies))


def check(pool, prefill, decode):
    with engine(pool, prefill, decode, host_blocks=5, prefetch_in_prefill=False) as made:
        made.generate(prompts(), NEW_TOKENS)
        table, log = made.trace().counts().set_index("rank"), made.log
        transitions = made.trace().transitions()
    for rank in range(Layout.parse(prefill).ranks):
        wanted = expected(log, prefill, decode, rank)
        assert table.loc[rank, list(wanted)].to_dict() == wanted
    whole = sum(map(blocks, RAGGED)) * BLOCK * 2 * TINY.layers * TINY.kv_width * 4
    assert table["kv_out_bytes"].sum() == whole  # each byte once, whatever the layout
    for row in transitions.itertuples():
        shards = Layout.parse(row.target).shards(TINY)
        assert row.weight_bytes == sum(shard.weight_bytes("fp32") for shard in shards)
    return table


@pytest.mark.parametrize(("prefill", "decode"), PAIRS[2])
def test_two_ranks(two, prefill, decode):
    table = check(two, prefill, decode)
    assert (table["kv_in_bytes"] == table["kv_out_bytes"].sum() / 2).all() == (decode == "T2")


@pytest.mark.slow
@pytest.mark.parametrize(("prefill", "decode"), PAIRS[4])
def test_four_ranks(four, prefill, decode):
    check(four, prefill, decode)


def test_a_pipeline_decodes_one_group_of_the_resident_sequences_at_a_time(two):
    lengths = (20,) * 8
    with engine(two, "T2", "P2", host_blocks=16) as made:
        made.generate(prompts(lengths), 12)
        log = made.log
    arrived = max(move.end_s for move in log.moves)
    sizes = [step.shape.decode_tokens for step in log.steps if not step.target and step.start_s > arrived]
    assert max(sizes) == len(lengths) / 2
    lanes = {step.lane for step in log.steps if not step.target}
    assert lanes == {"gpu0.0", "gpu0.1"}
