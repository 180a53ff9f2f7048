"""The simulator's physics: limits, monotonicity, and closed forms where they exist."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperlab.hardware import device, link
from paperlab.serving.constants import DeviceConstants, constants
from paperlab.serving.cost import ModelCost
from paperlab.serving.device_model import DeviceModel
from paperlab.serving.saturation import Saturation
from paperlab.serving.work import StepShape
from paperlab.transformer import forward_flops, parameters, preset
from tests.serving import doubles

PREFILL = StepShape(prefill_tokens=2048, prefill_context=4000, prefill_pairs=2048 * 4000 + 2048 * 2049 // 2, logits=1)
DECODE = StepShape(decode_tokens=32, decode_context=32 * 3000, logits=32)
SHARES = st.floats(0.05, 1.0)


def model(name="qwen2.5-3b", **changes):
    return DeviceModel(ModelCost(preset(name)), device("L20"), replace(constants("L20"), **changes))


@pytest.mark.parametrize("name", ["qwen2.5-3b", "llama3.1-8b", "qwen2.5-14b"])
def test_flops_and_bytes_equal_the_model_arithmetic(name):
    shape = preset(name)
    step = StepShape(prefill_tokens=300, prefill_context=1000, prefill_pairs=300 * 1000 + 300 * 301 // 2, logits=1)
    demands = {item.operator: item for item in ModelCost(shape).demands(step)}
    right = forward_flops(shape, 300, 1000, logits=1, skip_masked=True)
    assert demands["qkv"].flops == right.qkv * shape.layers
    assert demands["prefill_attention"].flops == right.attention * shape.layers
    assert demands["out"].flops == right.out * shape.layers
    assert demands["ffn"].flops == right.mlp * shape.layers
    assert demands["head"].flops == right.head
    matrices = sum(demands[name].moved_bytes for name in ("qkv", "out", "ffn", "head")) / 2
    counted = parameters(shape)
    small = (
        counted.layers * (counted.norms + shape.qkv_bias * (shape.q_width + 2 * shape.kv_width)) + counted.final_norm
    )
    untied = 0 if shape.tied_embeddings else counted.embedding
    assert matrices == counted.total - small - untied
    assert demands["prefill_attention"].moved_bytes == 1300 * ModelCost(shape).kv_token_bytes


def test_tensor_parallel_devices_share_the_work():
    whole, half = ModelCost(preset("qwen2.5-14b")), ModelCost(preset("qwen2.5-14b"), tp=2)
    for one, two in zip(whole.demands(DECODE), half.demands(DECODE), strict=True):
        assert two.flops == one.flops / 2
        assert two.moved_bytes == one.moved_bytes / 2
    assert half.communicated_bytes(DECODE) == 2 * 48 * 32 * 5120 * 2


@given(SHARES, SHARES, st.sampled_from([PREFILL, DECODE]))
def test_more_multiprocessors_never_slow_a_step(one, two, step):
    physics = model()
    load = physics.load(step)
    low, high = sorted((one, two))
    assert physics.seconds(load, high) <= physics.seconds(load, low) * (1 + 1e-12)


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 5000))
def test_more_work_never_takes_less_time(few, many, context):
    physics, times = model(), []
    for tokens in sorted((few, many)):
        step = StepShape(tokens, context, tokens * context + tokens * (tokens + 1) // 2, 8, 8 * context + 8, 8)
        times.append(physics.seconds(physics.load(step)))
    assert times[0] <= times[1]


def test_parts_add_up_to_the_whole():
    physics = model()
    for step in (PREFILL, DECODE):
        load = physics.load(step)
        assert sum(physics.parts(load, 0.4).values()) == pytest.approx(physics.seconds(load, 0.4))


@given(SHARES, SHARES)
def test_running_beside_another_lane_never_helps_and_never_exceeds_the_bandwidth(prefill_share, decode_share):
    physics = model()
    loads = [(physics.load(PREFILL), prefill_share), (physics.load(DECODE), decode_share)]
    beside = physics.durations(loads)
    total = max(1.0, prefill_share + decode_share)
    for (load, share), seconds in zip(loads, beside, strict=True):
        assert seconds >= physics.seconds(load, share / total) * (1 - 1e-12)
    moved = sum(load.memory_s / seconds for (load, _), seconds in zip(loads, beside, strict=True))
    assert moved <= 1 + 1e-9


def test_two_memory_bound_lanes_halve_each_other():
    physics = model(compute_curves={}, memory_curve=Saturation(0.01, 0.0), step_overhead_s=0.0)
    load = physics.load(DECODE)
    alone = physics.seconds(load, 0.5)
    assert physics.durations([(load, 0.5), (load, 0.5)]) == pytest.approx([2 * alone, 2 * alone], rel=1e-6)


def test_penalties_stretch_what_they_name():
    mixed = StepShape(100, 0, 5050, 4, 400, 4)
    plain, slow = model(step_overhead_s=0.0), model(step_overhead_s=0.0, mixed_penalty=1.5)
    assert slow.seconds(slow.load(mixed)) == pytest.approx(1.5 * plain.seconds(plain.load(mixed)))
    assert slow.seconds(slow.load(DECODE)) == plain.seconds(plain.load(DECODE))
    corun = model(corun_penalty=1.2)
    light = StepShape(decode_tokens=1, decode_context=10, logits=1)
    pair = [(corun.load(PREFILL), 0.5), (corun.load(light), 0.5)]
    assert corun.durations(pair)[0] >= 1.2 * corun.seconds(pair[0][0], 0.5) * (1 - 1e-9)
    assert corun.durations(pair[:1])[0] == corun.seconds(pair[0][0], 0.5)


def test_the_l20_curves_fall_as_the_paper_states():
    """Nexus §3.2 was used to set the curves, so this checks the data file, not the claim."""
    physics = model()
    prefill = {share: physics.seconds(physics.load(PREFILL), share) for share in (0.3, 0.4, 0.7, 0.8)}
    decode = {share: physics.seconds(physics.load(DECODE), share) for share in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)}
    assert 0.23 < 1 - prefill[0.4] / prefill[0.3] < 0.30
    assert 0.08 < 1 - prefill[0.8] / prefill[0.7] < 0.13
    assert 0.08 < 1 - decode[0.4] / decode[0.3] < 0.12
    for low, high in ((0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.0)):
        assert 1 - decode[high] / decode[low] < 0.03


@given(st.floats(0.05, 1.0), st.floats(0.0, 1.0), SHARES)
def test_slope_curve_limits(knee, decay, share):
    curve = Saturation(knee, decay)
    assert curve.rate(1.0) == 1.0
    assert Saturation(knee, 1.0).rate(share) == pytest.approx(share)
    assert Saturation(knee, 0.0).rate(max(share, knee)) == pytest.approx(1.0)
    assert curve.rate(knee - 1e-9 if knee > 1e-9 else knee) == pytest.approx(curve.rate(knee), abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compute_efficiency": 0.0}, "compute_efficiency is 0.0"),
        ({"mixed_penalty": 0.9}, "mixed_penalty is 0.9"),
        ({"step_overhead_s": -1.0}, "step_overhead_s is -1.0"),
        ({"compute_curves": {"gelu": Saturation()}}, "unknown operators"),
    ],
)
def test_bad_constants_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(constants("L20"), **change)


def test_unknown_devices_and_impossible_splits_are_refused():
    with pytest.raises(ValueError, match="no serving constants for device 'T4'"):
        constants("T4")
    with pytest.raises(ValueError, match="tp is 3"):
        ModelCost(preset("qwen2.5-3b"), tp=3)
    with pytest.raises(ValueError, match="give the link"):
        DeviceModel(ModelCost(preset("qwen2.5-14b"), tp=2), device("L20"), DeviceConstants(1, 1, 0, "test"))
    assert DeviceModel(ModelCost(preset("qwen2.5-14b"), tp=2), device("L20"), constants("L20"), link("pcie4-x16"))


def test_the_kv_budget_is_what_weights_activations_and_context_leave():
    setup = doubles.setup("qwen2.5-3b", constants=constants("L20"))
    assert setup.kv_blocks * 16 == pytest.approx(0.95e6, rel=0.1)
    assert doubles.setup(kv_tokens=60_000).kv_blocks == 60_000 // 16
    with pytest.raises(ValueError, match=r"llama3\.1-70b does not fit on 1 x L20"):
        _ = doubles.setup("llama3.1-70b").kv_blocks
