"""What needs a GPU: compiled packing, side streams, pinned memory, and ranks that share a device, by their tokens."""

import pytest
import torch

from paperlab.seesaw.engine import ReshardingEngine
from paperlab.seesaw.engine.tiers import HostStore, device_store
from paperlab.seesaw.engine.transfers import CpuTransfers, transfers
from paperlab.seesaw.engine.weights import copy_staged
from paperlab.seesaw.gpu.copies import registered
from paperlab.seesaw.layout import Layout
from paperlab.serving.engine.memory import block_bytes
from tests.seesaw.engine.oracle import NEW_TOKENS, decoder, hugging_face, prompts, tiers, tokens
from tests.seesaw.small import TINY

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
CUDA = torch.device("cuda")


def test_blocks_cross_to_the_host_and_back():
    shard = Layout.parse("T2").shard(TINY, 1)
    buffer = torch.zeros(8 * block_bytes(TINY, 16, torch.float32), dtype=torch.uint8)
    part = HostStore(TINY, 16, torch.float32, buffer).part(shard)
    first, second = (device_store(shard, 6, 16, torch.float32, CUDA) for _ in range(2))
    first.keys.normal_()
    first.values.normal_()
    torch.cuda.synchronize()
    moves = transfers(CUDA)
    part.index_copy_(0, torch.tensor([7, 2]), moves.blocks_out(first, [4, 1]))
    moves.blocks_in(part, [7, 2], second, [0, 5])
    assert torch.equal(second.keys[:, [0, 5]], first.keys[:, [4, 1]])
    assert torch.equal(second.values[:, [0, 5]], first.values[:, [4, 1]])


def test_rows_leave_behind_the_computation_that_made_them():
    slots = torch.arange(32, device=CUDA).view(2, 16)
    moves, matrix = transfers(CUDA), torch.randn(2048, 2048, device=CUDA)
    with torch.inference_mode():
        for _ in range(20):  # enough that the copy would be early if it did not wait
            matrix = torch.nn.functional.normalize(matrix @ matrix)
        keys = matrix[:32, :16].reshape(1, 32, 2, 8).contiguous()
        wait = moves.rows_out(keys, keys + 1, slots)
        expected = CpuTransfers().rows_out(keys.cpu(), (keys + 1).cpu(), slots.cpu())()
        assert torch.equal(wait(), expected)


def test_staged_and_registered_loads_bring_what_is_there():
    source = torch.randn(1000, 333)
    target = torch.empty(1000, 333, device=CUDA)
    assert copy_staged([(source, target)], staging_bytes=1 << 16) == source.nbytes
    assert torch.equal(target.cpu(), source)
    columns = torch.empty(1000, 100, device=CUDA)
    copy_staged([(source[:, 50:150], columns)], staging_bytes=1 << 14)
    assert torch.equal(columns.cpu(), source[:, 50:150])
    with registered(source):
        assert source.is_pinned()
    assert not source.is_pinned()


@pytest.mark.parametrize(("prefill", "decode"), [("T1", "T1"), ("P2", "T2"), ("T2", "P2")])
def test_tokens_on_a_gpu(prefill, decode):
    options = tiers(6, 40) | {"device": "cuda", "share_gpu": True, "dtype": torch.float32}
    with ReshardingEngine(decoder(), prefill, decode, **options) as made:
        assert tokens(made.generate(prompts(), NEW_TOKENS)) == hugging_face(TINY)
        shared = made.pool.shared  # their times say nothing then
        assert made.log.about["evidence"] == ("none: ranks share a GPU" if shared else "measured-gpu")
