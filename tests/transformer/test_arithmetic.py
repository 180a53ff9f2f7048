"""Counts against published totals, Hugging Face models on the meta device, a FLOP counter and a real cache."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch.utils.flop_counter import FlopCounterMode

from paperlab.transformer import (
    PRESETS,
    ModelShape,
    RopeScaling,
    element_bytes,
    forward_flops,
    from_hf_config,
    hidden_bytes,
    kv_bytes_per_token,
    logits_bytes,
    parameters,
    preset,
    step_bytes,
    training_flops,
    weight_bytes,
)
from tests.transformer import hugging_face

# Parameter counts that the checkpoints' authors or Hugging Face print.
_PUBLISHED = {
    "gpt2": 124_439_808,
    "gpt2-xl": 1_557_611_200,
    "vit-base": 86_389_248,
    "llama2-7b": 6_738_415_616,
    "llama2-13b": 13_015_864_320,
    "llama2-70b": 68_976_648_192,
    "codellama-34b": 33_743_970_304,
    "llama3.1-8b": 8_030_261_248,
    "llama3.1-70b": 70_553_706_496,
    "llama3.2-1b": 1_235_814_400,
    "llama3.2-3b": 3_212_749_824,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen3-4b": 4_022_468_096,
}
# Mist's GPT counts no position table, which no Hugging Face model does; its block has a closed form below.
_WITH_ORACLE = [name for name in PRESETS if not name.startswith("mist-gpt")]
_TWO_LAYERS = {name: replace(PRESETS[name], layers=2) for name in _WITH_ORACLE}


@pytest.mark.parametrize("name", _PUBLISHED)
def test_published_totals(name):
    assert parameters(preset(name)).total == _PUBLISHED[name]


def test_published_totals_of_bare_encoders():
    assert parameters(replace(preset("bert-base"), head="pooler")).total == 109_482_240
    assert parameters(replace(preset("bert-large"), head="pooler")).total == 335_141_888
    assert parameters(replace(preset("distilbert"), head="none")).total == 66_362_880


@pytest.mark.parametrize("name", _WITH_ORACLE)
def test_parameters_equal_hugging_face(name):
    for shape in (_TWO_LAYERS[name], replace(_TWO_LAYERS[name], layers=1)):
        model = hugging_face.meta_model(shape)
        assert parameters(shape).total == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("name", ["bert-large", "llama3.1-8b", "qwen3-4b"])
def test_parts_equal_hugging_face(name):
    shape, model = preset(name), hugging_face.meta_model(_TWO_LAYERS[name])
    sizes: dict[str, int] = dict.fromkeys(("attention", "mlp", "norms"), 0)
    for label, weight in model.named_parameters():
        if ".layer.0." in label or ".layers.0." in label:
            inside = label.split(".0.")[1]
            bert = {"attention.output.LayerNorm": "norms", "output.LayerNorm": "norms", "attention": "attention"}
            llama = {"self_attn": "attention", "mlp": "mlp", "intermediate": "mlp", "output": "mlp"}
            part = next((part for prefix, part in (bert | llama).items() if inside.startswith(prefix)), "norms")
            sizes[part] += weight.numel()
    counted = parameters(shape)
    assert sizes == {"attention": counted.attention, "mlp": counted.mlp, "norms": counted.norms}


@pytest.mark.parametrize("name", _WITH_ORACLE)
def test_shapes_are_read_back_from_hugging_face_configs(name):
    shape = _TWO_LAYERS[name]
    read = from_hf_config(hugging_face.config(shape), head=shape.head)
    assert replace(read, name=shape.name) == shape


@pytest.mark.parametrize(("hidden", "layers"), [(2048, 24), (4096, 32), (6144, 48)])
def test_mist_closed_forms(hidden, layers):
    size = {2048: "1.3b", 4096: "7b", 6144: "22b"}[hidden]
    gpt, llama = preset(f"mist-gpt-{size}"), preset(f"mist-llama-{size}")
    assert parameters(gpt).layer == 12 * hidden**2 + 4 * hidden
    assert parameters(llama).layer == 4 * hidden**2 + 3 * hidden * llama.ffn + 2 * hidden
    assert parameters(gpt).embedding == parameters(gpt).head == 50304 * hidden
    if hidden == 2048:
        assert (parameters(gpt).layer, parameters(gpt).head) == (50_339_840, 103_022_592)


def counted(counter: FlopCounterMode) -> int:
    """Return PyTorch's count without the rotary angles, which some versions compute as a matrix product."""
    by_module = counter.get_flop_counts()
    angles = [sum(ops.values()) for module, ops in by_module.items() if module.endswith("rotary_emb")]
    return counter.get_total_flops() - sum(angles)


def counted_flops(shape: ModelShape, batch: int, tokens: int, **keep: Any) -> int:
    model = hugging_face.meta_model(shape)
    if shape.inputs == "patches":
        inputs = torch.empty(batch, 3, 224, 224, device="meta")
    else:
        inputs = torch.zeros(batch, tokens, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(inputs, **keep)
    return counted(counter)


@pytest.mark.parametrize("name", _WITH_ORACLE)
def test_prefill_flops_equal_the_flop_counter(name):
    shape, batch = _TWO_LAYERS[name], 3
    tokens = shape.max_positions if shape.inputs == "patches" else 17
    assert forward_flops(shape, tokens, batch=batch).total == counted_flops(shape, batch, tokens)


def test_flops_of_a_whole_model_and_of_the_last_logits_only():
    shape = preset("llama3.2-1b")
    assert forward_flops(shape, 64).total == counted_flops(shape, 1, 64)
    last = counted_flops(shape, 2, 64, logits_to_keep=1)
    assert forward_flops(shape, 64, batch=2, logits=1).total == last


@pytest.mark.parametrize("name", ["llama3.1-8b", "gpt2", "qwen3-4b"])
def test_decode_flops_equal_the_flop_counter(name):
    shape, context = _TWO_LAYERS[name], 40
    model = hugging_face.meta_model(shape)
    cache = hf.DynamicCache(config=model.config)
    with torch.no_grad():
        model(torch.zeros(2, context, dtype=torch.long, device="meta"), past_key_values=cache)
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(2, 1, dtype=torch.long, device="meta"), past_key_values=cache)
    assert forward_flops(shape, 1, context, batch=2).total == counted(counter)


def test_training_flops_equal_the_flop_counter():
    shape = replace(preset("gpt2"), layers=2)
    model = hugging_face.meta_model(shape)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 16, dtype=torch.long, device="meta")).logits.sum().backward()
    forward = forward_flops(shape, 16, batch=2)
    assert training_flops(forward) == counted(counter)
    assert training_flops(forward, recompute=True) - training_flops(forward) == 2 * forward.layer


def test_kv_bytes_equal_a_real_cache():
    shape = ModelShape(
        name="tiny", layers=3, hidden=32, heads=4, kv_heads=2, head_dim=16, ffn=64, vocab=50, max_positions=64,
        mlp="gated", norm="rmsnorm", position="rope",
    )  # fmt: skip
    model = hf.LlamaForCausalLM(hugging_face.config(shape)).to(torch.bfloat16)
    with torch.no_grad():
        cache = model(torch.zeros(2, 7, dtype=torch.long), use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert held == 2 * 7 * kv_bytes_per_token(shape, "bf16")


@pytest.mark.parametrize(("name", "expected"), [
    ("qwen2.5-3b", 36_864), ("llama3.1-8b", 131_072), ("qwen2.5-14b", 196_608), ("llama3-15b", 262_144),
    ("codellama-34b", 196_608), ("llama2-70b", 327_680), ("llama2-13b", 819_200),
])  # fmt: skip
def test_kv_bytes_per_token_of_served_models(name, expected):
    assert kv_bytes_per_token(preset(name), "fp16") == expected


def test_chunked_prefill_costs_what_whole_prefill_costs():
    shape = preset("qwen2.5-3b")
    whole = forward_flops(shape, 100, skip_masked=True, logits=0).total
    chunks = [(40, 0), (40, 40), (20, 80)]
    assert whole == sum(forward_flops(shape, n, c, skip_masked=True, logits=0).total for n, c in chunks)
    assert whole < forward_flops(shape, 100, logits=0).total


def test_masked_pairs_by_enumeration():
    shape = preset("llama2-7b")
    pairs = sum(1 for query in range(10, 17) for key in range(17) if key <= query)
    assert forward_flops(shape, 7, 10, skip_masked=True).attention == 4 * shape.q_width * pairs
    encoder = preset("bert-base")
    assert forward_flops(encoder, 7, skip_masked=True) == forward_flops(encoder, 7)


def test_arrays_broadcast():
    shape, contexts = preset("llama3.1-8b"), np.array([0, 10, 1000])
    steps = forward_flops(shape, 1, contexts).total
    assert list(steps) == [forward_flops(shape, 1, int(c)).total for c in contexts]
    assert list(step_bytes(shape, "bf16", 1, contexts)) == [step_bytes(shape, "bf16", 1, int(c)) for c in contexts]


def test_two_flops_per_weight_and_token():
    shape = preset("llama2-7b")
    counts = parameters(shape)
    matrices = counts.total - counts.embedding - counts.final_norm - shape.layers * counts.norms
    short = forward_flops(shape, 1)
    assert short.total - shape.layers * short.attention == 2 * matrices


def test_bytes():
    shape = preset("llama3.1-8b")
    assert weight_bytes(shape, "bf16") == 2 * 8_030_261_248
    assert hidden_bytes(shape, 10, "fp16") == 10 * 4096 * 2
    assert logits_bytes(shape, 10, "fp32") == 10 * 128256 * 4
    assert element_bytes("int8") == 1
    counts = parameters(shape)
    expected = (counts.total - counts.embedding + 3 * 4096) * 2 + 3 * 101 * 131_072
    assert step_bytes(shape, "bf16", 1, 100, batch=3) == expected
    tied = preset("llama3.2-1b")
    assert step_bytes(tied, "fp16", 1) == weight_bytes(tied, "fp16") + 2048 * 2 + 32_768


@pytest.mark.parametrize(("changes", "message"), [
    ({"layers": 0}, "layers is 0"),
    ({"vocab": 10.5}, "vocab is 10.5"),
    ({"kv_heads": 5}, "multiple of kv_heads, 5"),
    ({"mlp": "moe"}, "choose one of plain, gated"),
    ({"hidden": 770, "head_dim": 0}, "give head_dim or a multiple of 12 heads"),
    ({"rope_scaling": RopeScaling(8.0, 8192)}, "position must be 'rope'"),
])  # fmt: skip
def test_bad_shapes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(preset("gpt2"), **changes)


def test_bad_names_and_configs_are_refused():
    with pytest.raises(ValueError, match="unknown model 'gpt5'; known: bert-base"):
        preset("gpt5")
    with pytest.raises(ValueError, match="unknown dtype 'int3'; known: fp64"):
        element_bytes("int3")
    with pytest.raises(ValueError, match="model_type is 't5'; supported: bert"):
        from_hf_config(hf.T5Config())
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
    with pytest.raises(ValueError, match="rope_type is 'yarn'"):
        from_hf_config(hf.LlamaConfig(rope_parameters=yarn))
    with pytest.raises(ValueError, match="new_decoder_architecture"):
        from_hf_config(hf.FalconConfig(new_decoder_architecture=True))
    with pytest.raises(ValueError, match="low_freq_factor"):
        RopeScaling(8.0, 8192, 4.0, 1.0)
