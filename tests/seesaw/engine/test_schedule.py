"""Re-shardings follow from capacities, phases turn where they should, and stages and copies overlap."""

import math

import pytest

from paperlab.seesaw.layout import Layout
from paperlab.serving import Limits
from tests.seesaw.engine.oracle import engine, prompts
from tests.seesaw.small import TINY

EQUAL = (20,) * 8  # two blocks each, and with 12 tokens more still two


@pytest.mark.parametrize("host_blocks", [4, 16, pytest.param(6, marks=pytest.mark.slow)])
def test_transitions_follow_from_the_host_tier(two, host_blocks):
    needed = 2 * len(EQUAL)
    usable = host_blocks // 2 * 2  # whole prompts
    with engine(two, "P2", "T2", host_blocks=host_blocks, prefetch_in_prefill=False) as made:
        made.generate(prompts(EQUAL), 12)
        assert len(made.log.switches) == 2 * math.ceil(needed / usable) - 1


def test_prefetching_during_prefill_saves_cycles_within_its_bounds(two):
    host, device, needed = 4, 9, 2 * len(EQUAL)
    with engine(two, "P2", "T2", host_blocks=host, device_blocks=device) as made:
        made.generate(prompts(EQUAL), 12)
        cycles = (len(made.log.switches) + 1) / 2
    assert math.ceil(needed / (host + device)) <= cycles <= math.ceil(needed / host)


def test_phases_turn_when_the_host_is_full_or_empty(two):
    with engine(two, "P2", "T2", host_blocks=6, prefetch_in_prefill=False) as made:
        made.generate(prompts(EQUAL), 12)
        log, phases = made.log, made.trace().phases()
    for switch in log.switches:
        staged = sum(2 * len(step.requests) for step in log.steps if step.target and step.end_s <= switch.start_s)
        fetched = sum(move.blocks for move in log.moves if move.end_s <= switch.start_s)
        prefilled = sum(len(step.requests) for step in log.steps if step.target and step.end_s <= switch.start_s)
        if switch.target == "T2":
            assert staged - fetched == 6 or prefilled == len(EQUAL)
        else:
            assert staged == fetched
    assert phases.kind.tolist() == ["prefill", "load", "decode", "load"] * 2 + ["prefill", "load", "decode"]
    assert phases[phases.kind == "prefill"].tokens.sum() == sum(EQUAL)


def test_stages_work_on_different_batches_at_the_same_time(two):
    with engine(two, "P2", "P2", limits=Limits(64, 8), host_blocks=64) as made:
        made.generate(prompts((64,) * 12), 1)
        table = made.trace().table()
    work = table[table.kind == "prefill"]
    first, second = work[work["rank"] == 0], work[work["rank"] == 1]
    overlaps = [
        (later.job, earlier.job)
        for later in first.itertuples() for earlier in second.itertuples()
        if later.job > earlier.job and later.start_s < earlier.end_s and earlier.start_s < later.end_s
    ]  # fmt: skip
    assert overlaps


@pytest.mark.parametrize("copies", ["overlapped", "blocking"])
def test_layers_leave_while_later_ones_are_computed(two, copies):
    """With a slow link the computation ends before the copies unless it waits for them."""
    rate = Layout.parse("P2").shard(TINY, 0).kv_token_bytes("fp32") * 64 / 0.5  # half a second for the batch
    with engine(two, "P2", "P2", host_blocks=64, host_link_Bps=rate, copies=copies) as made:
        made.generate(prompts((64,)), 1)
        table = made.trace().table()
    own = table[table["rank"] == 0]
    out, compute = own[own.kind == "swap-out"], own[own.kind == "prefill"].iloc[0]
    assert out.layer.tolist() == list(Layout.parse("P2").layers(TINY, 0))
    second = table[(table["rank"] == 1) & (table.kind == "swap-out")]
    assert second.layer.tolist() == list(Layout.parse("P2").layers(TINY, 1))
    assert out.end_s.max() - out.start_s.min() >= 0.49
    assert (compute.end_s < out.end_s.iloc[-1]) == (copies == "overlapped")
    layers = own[own.lane == "layers"]
    assert layers.layer.tolist() == [layer for layer in out.layer for _ in ("qkv", "attention")]
    made_s = layers[layers.kind == "qkv"].end_s
    assert (out.start_s.to_numpy() >= made_s.to_numpy()).all()  # no copy starts before there is something to copy


def test_what_is_on_its_way_is_bounded(two):
    """Computation waits for the link rather than hold more than two batches' keys and values."""
    token_bytes = Layout.parse("P2").shard(TINY, 0).kv_token_bytes("fp32")
    rate = token_bytes * 64 / 0.2
    with engine(two, "P2", "P2", limits=Limits(64, 8), host_blocks=64, host_link_Bps=rate) as made:
        made.generate(prompts((64,) * 8), 1)
        table = made.trace().table()
    own = table[table["rank"] == 0]
    for row in own[own.kind == "prefill"].itertuples():
        written = own[(own.kind == "swap-out") & (own.end_s <= row.end_s)].moved_bytes.sum()
        computed = own[(own.kind == "prefill") & (own.end_s <= row.end_s)].tokens.sum() * token_bytes
        assert computed - written <= 2 * 64 * token_bytes
