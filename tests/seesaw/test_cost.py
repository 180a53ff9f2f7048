"""The cost analysis against counted FLOPs and bytes of real shards, its limits, and the simulator."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from paperlab.seesaw.cost import (
    Uniform,
    additive_throughput,
    components,
    demand,
    kv_memory_bytes,
    layer_matrices,
    max_batch,
    stage_time_s,
    throughput,
)
from paperlab.seesaw.hardware import node
from paperlab.seesaw.layout import Layout
from paperlab.seesaw.prices import Prices, kv_tokens
from paperlab.seesaw.simulation import Run
from paperlab.seesaw.workloads import workload
from paperlab.serving.lengths import fixed
from paperlab.serving.work import StepShape
from paperlab.transformer import preset
from paperlab.transformer.model import Decoder, DenseCache
from tests.seesaw.small import TINY

A10 = node("a10")
GROUPED = replace(TINY, layers=1, kv_heads=4, hidden=64, head_dim=8, ffn=128)


def counted(model, tp, batch, length, decode):
    """Return FLOPs of linear layers and of attention in one layer of one TP shard, run and counted by torch."""
    narrow = replace(model, heads=model.heads // tp, kv_heads=model.kv_heads // tp, ffn=model.ffn // tp)
    shard = Decoder(narrow).initialize(0)
    cache = DenseCache(narrow, batch, length + 1, shard.norm.weight)
    cache.length = length if decode else 0
    x_BSH = torch.zeros(batch, 1 if decode else length, model.hidden)
    rotary = shard.rotary(torch.arange(x_BSH.shape[1])[None])
    # Fused kernels are not counted.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        shard.layers[0](x_BSH, rotary, 0, cache)
    by_kind = {str(operator): flops for operator, flops in counter.get_flop_counts()["Global"].items()}
    linear = sum(flops for operator, flops in by_kind.items() if "mm" in operator and "bmm" not in operator)
    return linear, sum(by_kind.values()) - linear, shard, cache


@pytest.mark.parametrize("tp", [1, 2, 4])
@pytest.mark.parametrize(("phase", "batch", "length"), [("prefill", 3, 32), ("decode", 5, 48)])
def test_table_3_counts_the_flops_of_real_shards(tp, phase, batch, length):
    decode = phase == "decode"
    linear, attention, _, _ = counted(GROUPED, tp, batch, length, decode)
    asked = demand(GROUPED, Uniform(phase, batch, length))
    assert asked.linear_flops / tp == linear
    if decode:  # the paper's s stands for the tokens attended to, the new one left out
        assert attention == pytest.approx(asked.attention_flops / tp * (length + 1) / length)
    else:  # torch counts the masked half as well
        assert attention == pytest.approx(2 * asked.attention_flops / tp)


@pytest.mark.parametrize("tp", [1, 2, 4])
def test_table_3_counts_the_bytes_of_real_shards(tp):
    _, _, shard, cache = counted(GROUPED, tp, 2, 16, decode=False)
    matrices = sum(2 * weight.numel() for weight in shard.layers[0].parameters() if weight.dim() == 2)
    assert demand(GROUPED, Uniform("decode", 1, 16)).linear_bytes / tp == matrices
    stored = 2 * (cache.keys[:, :, :16].numel() + cache.values[:, :, :16].numel())
    assert demand(GROUPED, Uniform("decode", 2, 16)).attention_bytes / tp == stored
    queries = 2 * 2 * 16 * GROUPED.q_width
    assert demand(GROUPED, Uniform("prefill", 2, 16)).attention_bytes / tp == stored + queries / tp


def test_network_volume_does_not_depend_on_tp_but_its_bandwidth_does():
    work = Uniform("prefill", 4, 512)
    model = preset("codellama-34b")
    assert demand(model, work).network_bytes == 2 * 2 * 4 * 512 * model.hidden
    times = [components(model, A10, work, tp).network_s for tp in (1, 2, 4, 8)]
    assert times[0] == 0
    assert times[1] < times[2] < times[3]


def test_limits_of_equation_1():
    model = preset("codellama-34b")
    layout = Layout.parse("T2P2")
    many = throughput(model, layout, A10, Uniform("decode", 1e9, 1))
    flops = model.layers * 2 * layer_matrices(model)
    network = 2 * 2 * model.hidden / A10.all_reduce.algorithm_Bps(2) * model.layers / 2
    assert many == pytest.approx(1 / (flops / A10.linear_flops_per_s / 4 + network), rel=0.01)
    one = throughput(model, Layout.parse("P4"), A10, Uniform("decode", 1, 1))
    assert one == pytest.approx(A10.memory_Bps / (2 * model.layers * layer_matrices(model)), rel=0.01)
    assert components(model, A10, Uniform("prefill", 1, 9), 1).network_s == 0


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["P4", "T4", "T2P2", "D2T2", "D4", "D2P2"]),
    st.sampled_from(["prefill", "decode"]),
    st.integers(1, 512),
    st.integers(1, 4096),
)
def test_equation_2_never_promises_more_than_equation_1(text, phase, batch, length):
    """Sums are at least maxima, and at most twice them."""
    work, layout = Uniform(phase, batch, length), Layout.parse(text)
    exact = throughput(TINY, layout, A10, work)
    simple = additive_throughput(TINY, layout, A10, work)
    assert exact / 2 * (1 - 1e-9) <= simple <= exact * (1 + 1e-9)
    assert exact == pytest.approx(batch / layout.pp / stage_time_s(TINY, layout, A10, work))


def test_tp_and_pp_raise_the_batch_bound_more_than_in_proportion_and_dp_in_proportion():
    model, memory = preset("codellama-34b"), 24 * 2**30
    bound = {
        text: max_batch(model, Layout.parse(text), memory, 2000) for text in ("T4", "P4", "T8", "P8", "D2T4", "T2P4")
    }
    assert bound["T4"] == bound["P4"] > 0
    assert bound["T8"] == bound["P8"] == bound["T2P4"] > 2 * bound["T4"]
    assert bound["D2T4"] == pytest.approx(2 * bound["T4"])
    assert max_batch(model, Layout(), memory, 2000) == 0
    assert kv_memory_bytes(model, Layout(), memory) < 0


@pytest.mark.parametrize("text", ["T4", "P4", "T2P2"])
def test_the_batch_bound_is_what_the_simulator_holds(text):
    """Apart from embedding, head and norms, which the bound leaves out."""
    model = replace(preset("codellama-34b"), vocab=64)
    layout = Layout.parse(text)
    held = kv_tokens(model, A10, layout) / 1000
    assert held == pytest.approx(max_batch(model, layout, A10.usable_bytes, 1000), rel=0.02)


@pytest.mark.parametrize("text", ["P4", "T4", "T2P2"])
def test_equation_1_is_the_simulator_without_overheads_in_prefill(text):
    model, layout, quiet = replace(preset("llama3-15b"), vocab=64), Layout.parse(text), A10.ideal
    run = Run(model, quiet, layout, prefill_tokens=2048)
    log = run.simulate(workload(fixed(1024, 1), 200))
    expected = throughput(model, layout, quiet, Uniform("prefill", 2 * layout.pp, 1024))
    assert 200 / log.end_s == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("text", ["P4", "T4", "T2P2"])
def test_equation_1_is_the_simulator_without_overheads_in_decode(text):
    model, layout, quiet = replace(preset("llama3-15b"), vocab=64), Layout.parse(text), A10.ideal
    batch, prompt, output = 32, 600, 41
    run = Run(model, quiet, layout)
    log = run.simulate(workload(fixed(prompt, output), batch))
    decodes = [step for step in log.steps if step.shape.kind == "decode" and len(step.requests) == batch // layout.pp]
    span_s = max(step.end_s for step in decodes) - min(step.end_s for step in decodes)
    tokens = sum(len(step.emitted) for step in decodes) - batch // layout.pp
    expected = throughput(model, layout, quiet, Uniform("decode", batch, prompt + output // 2))
    assert tokens / span_s == pytest.approx(expected, rel=0.05)


def test_prices_of_a_stage_add_up_to_equation_1():
    model, quiet = preset("llama2-70b"), A10.ideal
    for text in ("P8", "T4P2", "T8"):
        layout = Layout.parse(text)
        count = 64 // layout.pp
        step = StepShape(0, 0, 0, count, count * 1500, count)
        stage = Prices(model, layout, quiet).layers[0] * Prices(model, layout, quiet).layer(step).total
        assert stage == pytest.approx(stage_time_s(model, layout, quiet, Uniform("decode", 64, 1500)))


@pytest.mark.parametrize("bad", [("fill", 1, 1), ("decode", 0, 1), ("prefill", 1, 0)])
def test_impossible_batches_are_told(bad):
    with pytest.raises(ValueError, match=r"Uniform: (phase is 'fill'|batch is)"):
        Uniform(*bad)
