"""Block pools: conservation under any sequence of allocations and releases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlab.serving.kv import BlockPool, OutOfBlocks


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 30))
def test_every_block_is_free_or_owned_once(sizes, blocks):
    pool, owned = BlockPool("gpu0", blocks, 4), []
    for size in sizes:
        if size <= pool.free:
            owned.append(pool.allocate(size))
            assert len(owned[-1]) == size
        elif owned:
            pool.release(owned.pop(0))
        pool.check(owned)
        assert pool.used == sum(map(len, owned))
        assert pool.usage == pytest.approx(pool.used / blocks)


def test_a_refused_allocation_takes_nothing():
    pool = BlockPool("gpu0", 3, 16)
    pool.allocate(2)
    with pytest.raises(OutOfBlocks, match="2 blocks wanted, 1 of 3 free"):
        pool.allocate(2)
    assert pool.free == 1


def test_check_notices_a_lost_and_a_doubled_block():
    pool = BlockPool("gpu0", 4, 16)
    blocks = pool.allocate(2)
    for owned in ([blocks[:1]], [blocks, blocks[:1]]):
        with pytest.raises(AssertionError, match="lost or owned twice"):
            pool.check(owned)


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (16, 1), (17, 2)])
def test_blocks_for_rounds_up(tokens, blocks):
    assert BlockPool("gpu0", 4, 16).blocks_for(tokens) == blocks


def test_reused_blocks_are_scattered():
    pool = BlockPool("gpu0", 6, 1)
    owned = [pool.allocate(2) for _ in range(3)]
    pool.release(owned[0])
    pool.release(owned[2])
    again = sorted(pool.allocate(3))
    assert again[-1] - again[0] > 2


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="blocks is 0"):
        BlockPool("gpu0", 0, 16)
