"""Shards are cut from the host's copy as the layout says, and replaced in place."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from paperlab.seesaw.engine.communicators import NoLinks
from paperlab.seesaw.engine.shard_model import ShardModel
from paperlab.seesaw.engine.weights import HostWeights, WeightMemory, host_bytes, parameter_shapes
from paperlab.seesaw.layout import Layout
from paperlab.transformer.model import causal_attention
from tests.seesaw.engine.oracle import decoder
from tests.seesaw.small import TINY

MODELS = [TINY, replace(TINY, name="tied", tied_embeddings=True, vocab=97), replace(TINY, qkv_bias=True, qk_norm=True)]
BIASED = replace(TINY, name="biased", out_bias=True, mlp_bias=True)


def host(shape):
    shapes = parameter_shapes(decoder(shape))
    buffer = torch.zeros(host_bytes(shapes, torch.float32), dtype=torch.uint8)
    weights = HostWeights(shapes, torch.float32, buffer)
    weights.fill(decoder(shape))
    return weights


def memory(shape, rank, *layouts):
    shards = {name: Layout.parse(name).shard(shape, rank) for name in layouts}
    return WeightMemory(shards, torch.device("cpu"), host(shape)), shards


@pytest.mark.parametrize("shape", [*MODELS, BIASED], ids=lambda shape: shape.name)
@pytest.mark.parametrize("layout", ["T1", "P2", "T2", "T2P2", "T4", "P5"])
def test_a_load_brings_exactly_the_shard(shape, layout):
    for rank in range(Layout.parse(layout).ranks):
        held, shards = memory(shape, rank, layout)
        moved = held.load(layout)
        assert moved == held.resident_bytes == held.peak_bytes == shards[layout].weight_bytes("fp32")
        assert sum(view.nbytes for view in held.views[layout].values()) == moved


@pytest.mark.parametrize("tp", [2, 4])
def test_matrices_are_split_by_output_or_input(tp):
    whole = dict(decoder(TINY).named_parameters())
    parts = []
    for rank in range(tp):
        held, _ = memory(TINY, rank, f"T{tp}")
        held.load(f"T{tp}")
        parts.append(held.views[f"T{tp}"])
    name = "layers.3.{}.weight".format
    for matrix, dim in (("self_attn.q_proj", 0), ("self_attn.o_proj", 1), ("mlp.gate_proj", 0), ("mlp.down_proj", 1)):
        joined = torch.cat([part[name(matrix)] for part in parts], dim)
        assert torch.equal(joined, whole[name(matrix)])
    keys = [part[name("self_attn.k_proj")] for part in parts]
    step = max(1, tp // TINY.kv_heads)  # so many ranks hold the same head
    assert torch.equal(torch.cat(keys[::step]), whole[name("self_attn.k_proj")])
    assert all(torch.equal(keys[index], keys[index // step * step]) for index in range(tp))


def test_the_old_shard_gives_way_before_the_new_one_comes(monkeypatch):
    shape = replace(TINY, vocab=4000)  # the ends of the pipeline are much larger than the middle
    held, shards = memory(shape, 1, "P4", "T4")
    sizes = []
    resize = WeightMemory._resize
    monkeypatch.setattr(WeightMemory, "_resize", lambda self, n: (resize(self, n), sizes.append(self.resident_bytes)))
    for layout in ("P4", "T4", "P4"):
        held.load(layout)
        assert held.resident_bytes == shards[layout].weight_bytes("fp32")
    own = [shards[layout].weight_bytes("fp32") for layout in ("P4", "T4", "P4")]
    assert sizes == [0, own[0], 0, own[1], 0, own[2]]
    assert held.peak_bytes == max(own)


def test_equal_shards_are_overwritten_where_they_lie():
    held, _ = memory(replace(TINY, layers=4), 0, "P2", "T2")
    held.load("P2")
    at = held._flat.data_ptr()
    norms = 4 * TINY.hidden * 4  # tensor-parallel ranks hold all norms, so sizes differ by these alone
    assert abs(held.load("T2") - held.load("P2")) <= 2 * norms
    held.load("P2")
    assert held._flat.data_ptr() == held._flat.untyped_storage().data_ptr()
    assert at


@pytest.mark.parametrize("shape", [*MODELS, BIASED], ids=lambda shape: shape.name)
def test_one_rank_is_the_whole_model(shape):
    ids = torch.arange(7)[None]
    held, shards = memory(shape, 0, "T1")
    held.load("T1")
    model = ShardModel(shards["T1"], held.views["T1"], NoLinks(Layout()))
    with torch.inference_mode():
        x = model.layers(model.hidden(ids), torch.arange(7)[None], causal_attention)
        found = model.next_tokens(x, [2, 6])
        expected = decoder(shape)(ids)[0, [2, 6]].argmax(-1).tolist()
    assert found == expected


@pytest.mark.parametrize("shape", [TINY, BIASED], ids=lambda shape: shape.name)
def test_parts_of_row_parallel_products_add_up(shape):
    """What two ranks' blocks contribute, summed by hand, is what the whole block computes."""
    x = torch.randn(1, 5, shape.hidden, generator=torch.Generator().manual_seed(0))
    whole = decoder(shape).layers[0].mlp
    total = torch.zeros_like(x)
    for rank in range(2):
        held, shards = memory(shape, rank, "T2")
        held.load("T2")
        block = ShardModel(shards["T2"], held.views["T2"], NoLinks(Layout(tp=2))).blocks[0]
        hidden = F.silu(block.mlp.gate_proj(x)) * block.mlp.up_proj(x)
        total += F.linear(hidden, block.mlp.down_proj.weight)
    if shape.mlp_bias:
        total += whole.down_proj.bias
    torch.testing.assert_close(total, whole(x))
