"""The host's store re-shards: whatever layout writes, every other one reads back what belongs to it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlab.seesaw.engine.tiers import (
    HostStore,
    block_slots,
    device_store,
    pack,
    row_slots,
    shared_heads,
    tokens_of,
    unpack,
)  # fmt: skip
from paperlab.seesaw.engine.transfers import CpuTransfers, EmulatedLink
from paperlab.seesaw.layout import Layout, replica_layouts
from paperlab.serving.engine.memory import block_bytes
from tests.seesaw.small import TINY

BLOCK, CPU = 4, torch.device("cpu")


def host_store(blocks=12):
    return HostStore(
        TINY, BLOCK, torch.float32, torch.zeros(blocks * block_bytes(TINY, BLOCK, torch.float32), dtype=torch.uint8)
    )


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(list(replica_layouts(TINY, 4))), st.sampled_from(list(replica_layouts(TINY, 4))),
    st.lists(st.integers(1, 11), min_size=1, max_size=4), st.integers(0, 2**30),
)  # fmt: skip
def test_keys_and_values_cross_from_any_layout_to_any_other(written, read, lengths, seed):
    draw = torch.Generator().manual_seed(seed)
    kv = torch.randn(TINY.layers, 2, sum(lengths), TINY.kv_heads, TINY.head_dim, generator=draw)
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    counts = [-(-length // BLOCK) for length in lengths]
    order = torch.randperm(12, generator=draw).tolist()[: sum(counts)]
    store = host_store()
    for shard in written.shards(TINY):
        place, copies = shared_heads(shard)
        slots = row_slots(starts, lengths, BLOCK, CPU)[place::copies]
        for layer in shard.layers:
            heads = slice(shard.kv_heads.start, shard.kv_heads.stop)
            slab = pack(kv[None, layer, 0, :, heads], kv[None, layer, 1, :, heads], slots)
            if len(slab):
                part = store.part(shard)[:, layer - shard.layers.start]
                part.index_copy_(0, torch.tensor(order[place::copies]), slab[:, 0])
    for shard in read.shards(TINY):
        device = device_store(shard, 12, BLOCK, torch.float32, CPU)
        target = torch.randperm(12, generator=draw).tolist()[: len(order)]
        CpuTransfers().blocks_in(store.part(shard), order, device, target)
        for start, length, first in zip(starts, lengths, [sum(counts[:i]) for i in range(len(counts))], strict=True):
            slots = block_slots(target[first : first + -(-length // BLOCK)], BLOCK, CPU).flatten()[:length]
            for index, tensor in enumerate(tokens_of(device)):
                expected = kv[:, index, start : start + length][shard.layers.start : shard.layers.stop]
                expected = expected[:, :, shard.kv_heads.start : shard.kv_heads.stop]
                assert torch.equal(tensor[:, slots], expected)


@pytest.mark.parametrize("layout", ["P2", "T2", "T4", "T2P2"])
def test_a_part_of_a_block_is_one_run_per_layer_and_kind(layout):
    """Heads outside of tokens: a tensor-parallel part is contiguous, and all layers of it where TP is 1."""
    store = host_store()
    for shard in Layout.parse(layout).shards(TINY):
        part = store.part(shard)
        assert part.shape[1:] == (len(shard.layers), 2, len(shard.kv_heads), BLOCK, TINY.head_dim)
        assert part[0, 0, 0].is_contiguous()
        assert part[0].is_contiguous() == (len(shard.kv_heads) == TINY.kv_heads)


def test_packing_and_unpacking_are_inverse():
    shard = Layout.parse("T2P2").shard(TINY, 1)
    first, second = (device_store(shard, 6, BLOCK, torch.float32, CPU) for _ in range(2))
    for tensor in tokens_of(first):
        tensor.normal_(generator=torch.Generator().manual_seed(0))
    blocks, places = [4, 1, 5], [0, 3, 2]
    unpack(
        pack(*tokens_of(first), block_slots(blocks, BLOCK, CPU)), *tokens_of(second), block_slots(places, BLOCK, CPU)
    )
    assert torch.equal(second.keys[:, places], first.keys[:, blocks])
    assert torch.equal(second.values[:, places], first.values[:, blocks])
    untouched = [block for block in range(6) if block not in places]
    assert not second.keys[:, untouched].any()


def test_rows_past_the_end_of_a_sequence_are_none():
    assert row_slots([0, 5], [5, 4], BLOCK, CPU).tolist() == [[0, 1, 2, 3], [4, -1, -1, -1], [5, 6, 7, 8]]


def test_copies_on_an_emulated_link_follow_each_other(monkeypatch):
    slept = []
    monkeypatch.setattr("paperlab.seesaw.engine.transfers.time.perf_counter", lambda: 0.0)
    monkeypatch.setattr("paperlab.seesaw.engine.transfers.time.sleep", slept.append)
    link = EmulatedLink(100.0)
    link.pay(50, 0.0)
    link.pay(100, 0.0)  # waits for the first
    link.pay(100, 5.0)
    assert slept == [0.5, 1.5, 6.0]
    EmulatedLink().pay(10**9, 0.0)
    assert len(slept) == 3
