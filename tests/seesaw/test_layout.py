"""Layouts: parsing, and shards that together are the model."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlab.seesaw.layout import Layout, replica_layouts, static_layouts
from paperlab.transformer import parameters, preset
from paperlab.transformer.model import Decoder
from tests.seesaw.small import TINY


@pytest.mark.parametrize(
    ("text", "sizes"), [("P4", (1, 1, 4)), ("t2p2", (1, 2, 2)), ("D2T4", (2, 4, 1)), ("T1", (1, 1, 1))]
)
def test_a_layout_reads_back_as_it_is_written(text, sizes):
    layout = Layout.parse(text)
    assert (layout.dp, layout.tp, layout.pp) == sizes
    assert str(layout) == text.upper()
    assert Layout.parse(layout) is layout


@pytest.mark.parametrize("text", ["", "X4", "P0", "P4T2", "T", "4", "T-1"])
def test_what_is_no_layout_is_told(text):
    with pytest.raises(ValueError, match=r"write D, T and P with a size each"):
        Layout.parse(text)


def test_impossible_splits_name_the_field_and_the_model():
    with pytest.raises(ValueError, match=r"layout T3: tp is 3; it must divide the 8 heads"):
        Layout.parse("T3").check(TINY)
    with pytest.raises(ValueError, match=r"pp is 9; .* has 5 layers"):
        Layout.parse("P9").check(TINY)
    with pytest.raises(ValueError, match=r"key/value heads"):
        Layout.parse("T4").check(replace(TINY, heads=24, kv_heads=6, ffn=96))
    with pytest.raises(ValueError, match=r"only Llama-style models are split"):
        Layout.parse("T2").check(preset("gpt2"))
    with pytest.raises(ValueError, match=r"rank is 4; a replica has ranks 0 to 3"):
        Layout.parse("T2P2").shard(TINY, 4)
    with pytest.raises(ValueError, match=r"tp is 0"):
        Layout(tp=0)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.sampled_from([1, 2, 4, 8]), st.integers(1, 9), st.sampled_from([1, 2, 4, 8]))
def test_shards_partition_layers_heads_and_vocabulary(layers, tp, pp, kv_heads):
    model = replace(TINY, layers=max(layers, pp), kv_heads=kv_heads, vocab=101)
    shards = Layout(1, tp, pp).shards(model)
    assert [shard.rank for shard in shards] == list(range(tp * pp))
    column = [shard for shard in shards if shard.stage == 0]
    for name, total in (("query_heads", model.heads), ("ffn", model.ffn), ("vocab", model.vocab)):
        assert [item for shard in column for item in getattr(shard, name)] == list(range(total))
    assert [item for shard in shards if shard.tp_rank == 0 for item in shard.layers] == list(range(model.layers))
    sizes = {len(shard.layers) for shard in shards}
    assert max(sizes) - min(sizes) <= 1
    group = model.heads // model.kv_heads
    for shard in shards:  # each query head finds its key/value head on its own rank
        assert {head // group for head in shard.query_heads} == set(shard.kv_heads)


@pytest.mark.parametrize("switches", [{}, {"tied_embeddings": True}, {"qkv_bias": True, "qk_norm": True}])
def test_one_rank_holds_the_model_and_more_hold_it_once(switches):
    model = replace(TINY, **switches)
    whole = Layout().shard(model, 0)
    assert whole.parameters == parameters(model).total
    assert whole.parameters == sum(weight.numel() for weight in Decoder(model).parameters())
    for layout in replica_layouts(model, 4):
        total = sum(shard.parameters for shard in layout.shards(model))
        assert total == parameters(model).total + _replicated(model, layout)


def _replicated(model, layout):
    """Count what several ranks hold: norms, key/value heads beyond one per rank, and a tied table of two stages."""
    norms = model.layers * (2 * model.hidden + 2 * model.qk_norm * model.head_dim) + model.hidden
    copies = max(1, layout.tp // model.kv_heads) - 1
    kv = 2 * model.layers * model.kv_heads * model.head_dim * (model.hidden + model.qkv_bias)
    table = model.tied_embeddings * (layout.pp > 1) * model.vocab * model.hidden
    return (layout.tp - 1) * norms + copies * kv + table


def test_a_tensor_parallel_shard_counts_what_torch_counts():
    model = replace(TINY, layers=1, vocab=64)
    narrow = replace(model, heads=4, kv_heads=1, head_dim=model.head_dim, ffn=model.ffn // 2, vocab=32)
    with torch.device("meta"):
        counted = sum(weight.numel() for weight in Decoder(narrow).parameters())
    assert Layout.parse("T2").shard(model, 1).parameters == counted


def test_kv_bytes_of_all_ranks_are_those_of_the_model():
    model = preset("llama2-70b")
    for text in ("P8", "T8", "T4P2"):
        shards = Layout.parse(text).shards(model)
        assert sum(shard.kv_token_bytes("fp16") for shard in shards) == 327_680
    assert sum(s.kv_token_bytes("fp16") for s in Layout(tp=16).shards(model)) == 2 * 327_680


def test_layouts_of_eight_gpus():
    assert [str(item) for item in replica_layouts(preset("llama2-70b"), 8)] == ["P8", "T2P4", "T4P2", "T8"]
    found = [str(item) for item in static_layouts(preset("codellama-34b"), 8)]
    assert len(found) == len(set(found)) == 10
    assert {"D2T2P2", "D8", "P8"} <= set(found)
