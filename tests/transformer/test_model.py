"""The decoder against Hugging Face's Llama, Qwen2 and Qwen3 with the same weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers as hf

from paperlab.transformer import ModelShape, RopeScaling, parameters, preset
from paperlab.transformer.model import Decoder, DenseCache, causal_attention, greedy, rotary_frequencies
from tests.transformer import hugging_face

_TINY = ModelShape(
    name="tiny", layers=3, hidden=64, heads=8, kv_heads=2, head_dim=8, ffn=96, vocab=101, max_positions=512,
    mlp="gated", norm="rmsnorm", position="rope",
)  # fmt: skip
_SHAPES = {
    "llama": _TINY,
    "llama-multi-head": replace(_TINY, kv_heads=8),
    "llama-tied": replace(_TINY, tied_embeddings=True),
    "llama3-scaling": replace(_TINY, rope_theta=500.0, rope_scaling=RopeScaling(8.0, 64, 1.0, 4.0)),
    "qwen2": replace(_TINY, qkv_bias=True, norm_eps=1e-6),
    "qwen2-tied": replace(_TINY, qkv_bias=True, tied_embeddings=True),
    "qwen3-wide-heads": replace(_TINY, qk_norm=True, head_dim=16, norm_eps=1e-6),
}


def pair(shape: ModelShape):
    """Return a Hugging Face model with random weights, biases and norms included, and a decoder with the same."""
    torch.manual_seed(0)
    config = hugging_face.config(shape)
    reference = hf.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in reference.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    decoder = Decoder(shape)
    decoder.load_hf_state_dict(reference.state_dict())
    return reference, decoder


@pytest.fixture
def ids_BS():
    return torch.randint(0, 101, (2, 90), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", _SHAPES)
@torch.no_grad()
def test_logits_equal_hugging_face(name, ids_BS):
    reference, decoder = pair(_SHAPES[name])
    expected = reference(ids_BS).logits
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(decoder(ids_BS), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "qwen3-wide-heads"])
def test_gradients_equal_hugging_face(name, ids_BS):
    reference, decoder = pair(_SHAPES[name])
    for model in (lambda ids: reference(ids).logits, decoder):
        torch.nn.functional.cross_entropy(model(ids_BS[:, :20]).flatten(0, 1), ids_BS[:, :20].flatten()).backward()
    for label, weight in reference.named_parameters():
        ours = decoder.get_parameter(label.removeprefix("model."))
        torch.testing.assert_close(ours.grad, weight.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["llama3-scaling", "qwen2", "qwen3-wide-heads"])
@pytest.mark.parametrize("chunks", [[90], [40, 50], [1] * 90, [7, 1, 1, 30, 51]])
@torch.no_grad()
def test_a_cache_filled_in_chunks_gives_the_same_logits(name, chunks, ids_BS):
    decoder = Decoder(_SHAPES[name]).initialize(seed=0, std=0.2).double()
    cache = DenseCache(decoder.shape, 2, 90, like=decoder.embed_tokens.weight)
    parts = [decoder(chunk, attend=cache) for chunk in ids_BS.split(chunks, dim=1)]
    assert cache.length == 90
    torch.testing.assert_close(torch.cat(parts, dim=1), decoder(ids_BS), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["llama", "qwen2-tied"])
def test_greedy_tokens_equal_hugging_face(name, ids_BS):
    reference, decoder = pair(_SHAPES[name])
    expected = reference.generate(
        ids_BS[:, :9], attention_mask=torch.ones_like(ids_BS[:, :9]), max_new_tokens=24, do_sample=False,
        pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    assert torch.equal(greedy(decoder, ids_BS[:, :9], 24), expected)


@torch.no_grad()
def test_positions_may_be_given_and_only_differences_matter(ids_BS):
    decoder = Decoder(_TINY).initialize(seed=0, std=0.2)
    positions = torch.arange(90)[None]
    torch.testing.assert_close(decoder(ids_BS, positions), decoder(ids_BS))
    torch.testing.assert_close(decoder(ids_BS, positions + 100), decoder(ids_BS), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(decoder(ids_BS, positions * 2), decoder(ids_BS), atol=1e-3)


@torch.no_grad()
def test_attention_is_replaceable_and_sees_every_layer_once(ids_BS):
    decoder = Decoder(_SHAPES["qwen2"]).initialize(seed=0)
    seen = []

    def attend(layer, q, k, v):
        seen.append((layer, tuple(q.shape), tuple(k.shape), tuple(v.shape)))
        return causal_attention(layer, q, k, v)

    assert torch.equal(decoder(ids_BS, attend=attend), decoder(ids_BS))
    assert seen == [(layer, (2, 90, 8, 8), (2, 90, 2, 8), (2, 90, 2, 8)) for layer in range(3)]


@torch.no_grad()
def test_causal_attention_by_definition():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, h, 4, generator=generator) for n, h in ((3, 6), (8, 2), (8, 2)))
    keys, values = (x.repeat_interleave(3, dim=2) for x in (k, v))
    scores = torch.einsum("bsad,btad->bast", q, keys) / 2
    visible = torch.arange(8)[None] <= torch.arange(5, 8)[:, None]
    expected = torch.einsum("bast,btad->bsad", scores.masked_fill(~visible, -torch.inf).softmax(-1), values)
    torch.testing.assert_close(causal_attention(0, q, k, v), expected)


def test_heads_follow_the_weights_so_a_tensor_parallel_layer_is_a_sum_of_shards(ids_BS):
    shape = replace(_TINY, layers=1)
    full = Decoder(shape).initialize(seed=0, std=0.2)
    half = replace(shape, hidden=64, heads=4, kv_heads=1, ffn=48)
    x_BSH, rotary = torch.randn(2, 5, 64), full.rotary(torch.arange(5)[None])
    total = torch.zeros_like(x_BSH)
    with torch.no_grad():
        for rank in range(2):
            shard = Decoder(half).layers[0].self_attn
            whole = full.layers[0].self_attn
            for name in ("q_proj", "k_proj", "v_proj"):
                shard.get_submodule(name).weight.copy_(whole.get_submodule(name).weight.chunk(2, dim=0)[rank])
            shard.o_proj.weight.copy_(whole.o_proj.weight.chunk(2, dim=1)[rank])
            total += shard(x_BSH, rotary, 0, causal_attention)
        torch.testing.assert_close(total, whole(x_BSH, rotary, 0, causal_attention), rtol=1e-4, atol=1e-5)


def test_llama3_frequencies():
    shape = preset("llama3.1-8b")
    scaled, plain = rotary_frequencies(shape), rotary_frequencies(replace(shape, rope_scaling=None))
    wavelength = 2 * torch.pi / plain
    assert torch.equal(scaled[wavelength < 8192 / 4], plain[wavelength < 8192 / 4])
    torch.testing.assert_close(scaled[wavelength > 8192], plain[wavelength > 8192] / 8)
    expected, _ = hf.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](hugging_face.config(shape), "cpu")
    torch.testing.assert_close(scaled, expected)


@pytest.mark.parametrize("name", ["llama3.1-8b", "qwen2.5-1.5b", "qwen3-4b"])
def test_parameter_count_equals_the_arithmetic(name):
    with torch.device("meta"):
        decoder = Decoder(preset(name))
    assert sum(weight.numel() for weight in decoder.parameters()) == parameters(preset(name)).total


def test_initialization_is_seeded():
    first, again, other = (Decoder(_SHAPES["qwen2"]).initialize(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_bad_input_is_refused(ids_BS):
    with pytest.raises(ValueError, match="gpt2: mlp is 'plain'; Decoder needs 'gated'"):
        Decoder(preset("gpt2"))
    decoder = Decoder(_TINY)
    with pytest.raises(RuntimeError, match="Missing key"):
        decoder.load_hf_state_dict({})
    with pytest.raises(ValueError, match="capacity is 8 tokens; this pass needs 90"):
        decoder(ids_BS, attend=DenseCache(_TINY, 2, 8, like=decoder.embed_tokens.weight))
