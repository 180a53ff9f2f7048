"""The trained models: against Hugging Face, against finite differences, and against their tensor-parallel selves."""

import pytest
import torch
from torch import nn

from paperlab.mist import kernels
from paperlab.mist.blocks import Block, Embedding, Head, initialize
from paperlab.mist.collectives import Alone, cross_entropy
from tests.mist.small import FAMILIES, tiny


def model_of(spec, group=None):
    group = group or Alone()
    layers = nn.ModuleList([Embedding(spec, group), Block(spec, group), Head(spec, group)])
    initialize(layers, seed=1)
    return layers


def loss_of(layers, tokens):
    hidden = layers[0](tokens)
    for block in layers[1:-1]:
        hidden = block(hidden)
    return layers[-1](hidden, tokens)


def tokens_of(spec, batch=3):
    return torch.randint(0, spec.shape.vocab, (batch, spec.seq_len), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", FAMILIES)
def test_both_attentions_compute_the_same(family):
    sizes = {"kv_heads": 2, "ffn": 160} if family == "llama" else {}
    found = []
    for attention in ("flash", "math"):
        spec = tiny(family, attention=attention, dtype="fp64", **sizes)
        layers = model_of(spec)
        loss = loss_of(layers, tokens_of(spec))
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in layers.parameters())])
    for flash, math in zip(*found, strict=True):
        torch.testing.assert_close(flash, math, rtol=1e-5, atol=1e-8)  # losses are fp32


def test_llama_block_is_hugging_faces():
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

    spec = tiny("llama", dtype="fp32", kv_heads=2, ffn=160)
    ours = Block(spec, Alone())
    initialize(ours, seed=3, std=0.2)
    config = LlamaConfig(
        hidden_size=64, num_attention_heads=4, num_key_value_heads=2, intermediate_size=160, rms_norm_eps=1e-5
    )
    theirs = LlamaDecoderLayer(config, 0)
    groups = ours.attention.qkv.weight.detach().view(2, 4, 16, 64)  # per key/value head: two queries, key, value
    weights = {
        "self_attn.q_proj.weight": groups[:, :2].reshape(64, 64),
        "self_attn.k_proj.weight": groups[:, 2].reshape(32, 64),
        "self_attn.v_proj.weight": groups[:, 3].reshape(32, 64),
        "self_attn.o_proj.weight": ours.attention.out.weight,
        "mlp.gate_proj.weight": ours.mlp.gate.weight,
        "mlp.up_proj.weight": ours.mlp.up.weight,
        "mlp.down_proj.weight": ours.mlp.down.weight,
        "input_layernorm.weight": ours.attention_norm.weight,
        "post_attention_layernorm.weight": ours.mlp_norm.weight,
    }
    theirs.load_state_dict({key: value.detach() for key, value in weights.items()})
    x = torch.randn(2, 16, 64, generator=torch.Generator().manual_seed(1))
    positions = torch.arange(16)[None]
    theirs.self_attn.config._attn_implementation = "sdpa"
    right = theirs(x, position_ids=positions, position_embeddings=LlamaRotaryEmbedding(config)(x, positions))
    right = right[0] if isinstance(right, tuple) else right
    torch.testing.assert_close(ours(x), right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["causal_softmax", "rms_norm", "swiglu", "rotate"])
def test_fused_operators_have_the_right_gradients(name):
    torch.manual_seed(0)
    x = torch.randn(2, 6, 4, 8, dtype=torch.float64, requires_grad=True)
    other = torch.randn(2, 6, 4, 8, dtype=torch.float64, requires_grad=True)
    scores = torch.randn(3, 5, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, dtype=torch.float64, requires_grad=True)
    functions = {
        "causal_softmax": (lambda s: kernels.causal_softmax(s), (scores,), {}),
        # Inside, RMSNorm works in fp32, whose rounding finite differences have to be large against.
        "rms_norm": (lambda a, w: kernels.rms_norm(a, w, 1e-5)[0], (x, weight), {"eps": 1e-3, "atol": 1e-3}),
        "swiglu": (kernels.swiglu, (x, other), {}),
        "rotate": (lambda a: kernels.rotate(a * 1.0, 3, 1, 100.0), (x,), {}),
    }
    function, inputs, tolerance = functions[name]
    assert torch.autograd.gradcheck(function, inputs, nondet_tol=0.0, fast_mode=name == "rms_norm", **tolerance)


def test_rotation_keeps_lengths_and_relative_angles():
    x = torch.randn(1, 7, 2, 8, generator=torch.Generator().manual_seed(0))
    y = kernels.rotate(x.clone(), 1, 1, 100.0)
    torch.testing.assert_close(y[:, :, 0].norm(dim=-1), x[:, :, 0].norm(dim=-1))
    assert torch.equal(y[:, :, 1], x[:, :, 1])  # only the first head was to turn
    same = kernels.rotate(x[:, :1].expand(1, 7, 2, 8).clone(), 1, 1, 100.0)[0, :, 0]
    torch.testing.assert_close(same[0] @ same[2], same[3] @ same[5])


def test_cross_entropy_is_torchs():
    logits = torch.randn(4, 6, 11, requires_grad=True)
    labels = torch.randint(0, 11, (4, 6))
    right = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    (d_right,) = torch.autograd.grad(right, logits)
    found = cross_entropy(logits, labels, Alone())
    (d_found,) = torch.autograd.grad(found, logits)
    torch.testing.assert_close(found, right)
    torch.testing.assert_close(d_found, d_right)
