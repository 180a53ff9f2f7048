import pandas as pd
import pytest
import torch

from paperlab.across import operators
from paperlab.across.tempo_block import COUNTERPART, TempoBlock, TempoSpec, with_tempo
from paperlab.across.training import break_even
from paperlab.mist.blocks import Block, ScoreBuffer, initialize
from paperlab.mist.clusters import cluster
from paperlab.mist.collectives import Alone
from paperlab.mist.models import gpt, llama
from paperlab.mist.symbolic.trace import concrete_trace
from paperlab.tempo.memory.ledger import retained_bytes
from paperlab.tempo.ops.layernorm import InplaceLayerNorm

SIZES = {"hidden": 32, "layers": 2, "heads": 2, "vocab": 64, "seq_len": 8}


def block_pair(spec):
    pair = (spec.block(Alone(), ScoreBuffer()), TempoSpec.of(spec).block(Alone(), ScoreBuffer()))
    for block in pair:
        initialize(block, 0)
        block.attention.reserve(3)
    return pair


def hidden_states(spec):
    leading = (3, spec.seq_len) if spec.attention == "flash" else (spec.seq_len, 3)
    return torch.randn(*leading, spec.shape.hidden, generator=torch.Generator().manual_seed(1), dtype=torch.float32)


@pytest.mark.parametrize("attention", ["flash", "math"])
def test_tempo_block_computes_the_plain_block(attention):
    spec = gpt(**SIZES, attention=attention, dtype="fp32")
    results = []
    for block in block_pair(spec):
        x = hidden_states(spec).requires_grad_()
        y = block(x)
        y.square().sum().backward()
        results.append((y, x.grad, [p.grad for p in block.parameters()]))
    (y, dx, grads), (tempo_y, tempo_dx, tempo_grads) = results
    assert torch.equal(y, tempo_y)
    torch.testing.assert_close(tempo_dx, dx, rtol=1e-3, atol=1e-4)
    for mine, theirs in zip(tempo_grads, grads, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_layer_norm_is_tempos_module_bit_for_bit(dtype):
    module = InplaceLayerNorm(16).to(dtype)
    with torch.no_grad():
        module.weight.uniform_(0.5, 2)
        module.bias.uniform_(-1, 1)
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = []
    for function in (module, lambda x: operators.layer_norm(x, module.weight, module.bias, module.eps)[0]):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        found.append((y, *torch.autograd.grad(y.float().square().sum(), [leaf, module.weight, module.bias])))
    for theirs, mine in zip(*found, strict=True):
        assert torch.equal(theirs, mine)


def test_fused_layer_norm_keeps_what_tempos_module_keeps():
    class Fused(InplaceLayerNorm):
        def forward(self, x):
            return operators.layer_norm(x, self.weight, self.bias, self.eps)[0]

    x = (torch.randn(4, 16, requires_grad=True),)
    assert retained_bytes(Fused(16), x) == retained_bytes(InplaceLayerNorm(16), x)


@pytest.mark.parametrize("family", [gpt, llama])
def test_traced_bytes_are_the_measured_ones(family):
    spec = family(**SIZES, dtype="fp32")
    for block, traced in zip(block_pair(spec), (spec, TempoSpec.of(spec)), strict=True):
        saved = concrete_trace(traced, 3, 1, ("block",))["block"].saved.exact(3, 1)
        assert saved == retained_bytes(block, (hidden_states(spec).requires_grad_(),))


def test_shape_rules_hold():
    x, weight, bias = torch.randn(3, 8, requires_grad=True), torch.ones(8), torch.zeros(8)
    torch.library.opcheck(operators.layer_norm, (x, weight, bias, 1e-5), test_utils=("test_schema", "test_faketensor"))
    y, rstd = (item.detach() for item in operators.layer_norm(x, weight, bias, 1e-5))
    arguments = (torch.randn(3, 8), y, rstd, weight, bias)
    torch.library.opcheck(operators.layer_norm_backward, arguments, test_utils=("test_schema", "test_faketensor"))


def test_spec_chooses_its_block_and_stays_apart_from_the_plain_one():
    spec = gpt(**SIZES)
    tempo = TempoSpec.of(spec)
    assert isinstance(tempo.block(Alone()), TempoBlock)
    assert type(spec.block(Alone())) is Block
    assert tempo != spec
    assert tempo.plain == spec


def test_price_is_the_counterparts_times_the_traffic():
    spec, where = gpt(**SIZES), cluster("l4")
    tempo, priced = with_tempo(spec, where)
    plain_s = {COUNTERPART[kind]: 0.0 for kind in COUNTERPART}
    for unit in concrete_trace(spec, 1, 1, ("block",))["block"].units:
        if unit.kind in plain_s:
            plain_s[unit.kind] = where.operators.unit_s(unit, 1, 1)[0]
    for unit in concrete_trace(tempo, 1, 1, ("block",))["block"].units:
        if unit.kind == "_InplaceGELUBackward":  # reads x, writes y in 2 bytes, and the mask in 1
            assert priced.operators.unit_s(unit, 1, 1)[0] == pytest.approx(1.25 * plain_s["gelu"])


def test_overhead_stretches_layers_with_tempo_only():
    spec, where = gpt(**SIZES), cluster("l4")
    tempo, slow = with_tempo(spec, where, overhead=0.1)
    _, fast = with_tempo(spec, where)
    block, head = (concrete_trace(tempo, 1, 1, (kind,))[kind] for kind in ("block", "head"))
    assert slow.operators.layer_s(block, 1, 1)[0] == pytest.approx(1.1 * fast.operators.layer_s(block, 1, 1)[0])
    assert slow.operators.layer_s(head, 1, 1) == fast.operators.layer_s(head, 1, 1)
    with pytest.raises(ValueError, match="overhead is -1"):
        with_tempo(spec, where, overhead=-1)


def test_break_even_of_a_straight_line():
    rows = [
        {"cluster": "l4", "size": "7b", "attention": "flash", "capacity_GiB": 24, "planner": "Mist",
         "operators": "Tempo", "overhead": x, "gain": 1.02 - x}
        for x in (0.0, 0.01, 0.03)
    ]  # fmt: skip
    found = break_even(pd.DataFrame(rows)).iloc[0]
    assert found.break_even_overhead == pytest.approx(0.02)
    assert found.gain_without_overhead == pytest.approx(1.02)
