"""Bytes per element of weights and cache: the default is today's numbers to the last bit, halves are halves."""

import pytest

from paperlab.hardware import device
from paperlab.serving.cost import ModelCost
from paperlab.serving.deployment import deployment
from paperlab.serving.work import StepShape
from paperlab.transformer import kv_bytes_per_token, preset, weight_bytes

MODEL = preset("llama-3.1-8b")
MIXED = StepShape(512, 100, 512 * 100 + 512 * 513 // 2, 8, 4000, 9)


@pytest.mark.parametrize("tp", [1, 2, 8])
def test_default_is_bit_identical_to_naming_the_format(tp):
    plain = ModelCost(MODEL, "bf16", tp)
    named = ModelCost(MODEL, "bf16", tp, weight_element_bytes=2, kv_element_bytes=2.0, arithmetic="bf16")
    assert named.demands(MIXED) == plain.demands(MIXED)
    assert plain.kv_token_bytes == named.kv_token_bytes == kv_bytes_per_token(MODEL, "bf16") / tp
    setup = deployment(MODEL, "l20", tp=tp)
    assert setup.stored_weight_bytes == weight_bytes(MODEL, "bf16") / tp
    assert setup.kv_blocks == deployment(MODEL, "l20", tp=tp, weight_element_bytes=2, kv_element_bytes=2).kv_blocks


def test_quarter_weights_and_half_cache_move_so_much_less():
    plain, small = (
        {item.operator: item for item in ModelCost(MODEL, "bf16", **options).demands(MIXED)}
        for options in ({}, {"weight_element_bytes": 0.5, "kv_element_bytes": 1})
    )
    for name, item in plain.items():
        factor = {"head": 1, "prefill_attention": 0.5, "decode_attention": 0.5}.get(name, 0.25)
        assert small[name].moved_bytes == factor * item.moved_bytes
        assert small[name].flops == item.flops


def test_memory_goes_from_weights_to_cache():
    plain, small = deployment(MODEL, "l20"), deployment(MODEL, "l20", weight_element_bytes=1)
    freed = plain.stored_weight_bytes - small.stored_weight_bytes
    assert (small.kv_blocks - plain.kv_blocks) * plain.block_bytes == pytest.approx(freed, rel=1e-3)


def test_arithmetic_in_another_format_runs_at_its_peak():
    step = StepShape(4096, 0, 1, logits=1)
    seconds = []
    for arithmetic in (None, "int8"):
        model = deployment(MODEL, "l20", arithmetic=arithmetic).device_model
        seconds.append(model.load(step).parts[0][1])
    spec = device("l20")
    assert seconds[0] / seconds[1] == pytest.approx(spec.peak("int8") / spec.peak("bf16"))


def test_elements_without_bytes_are_refused():
    with pytest.raises(ValueError, match="give positive ones"):
        ModelCost(MODEL, kv_element_bytes=0)
