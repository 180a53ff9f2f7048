"""Traces: formulas equal fresh concrete runs bit for bit, also for a block that the library has never seen."""

import random

import pytest
import sympy
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from paperlab.mist.blocks import DTYPES
from paperlab.mist.collectives import Alone, enter, leave
from paperlab.mist.cost.operators import forward_work, key
from paperlab.mist.models import gpt
from paperlab.mist.symbolic import trace as tracing
from paperlab.mist.symbolic.compile import SIZES, CompiledLayer, compiled
from paperlab.mist.symbolic.sizes import BATCH, TP, Peak, Size
from paperlab.mist.symbolic.trace import concrete_trace, symbolic_trace, trace_layer
from tests.mist.small import FAMILIES, TINY, tiny

EXACT = tuple(name for name in SIZES if name not in ("input", "output"))


def random_cases(count):
    """Yield random specs with a batch and a tp that divides them."""
    generator = random.Random(0)
    for index in range(count):
        family = list(FAMILIES)[index % 3]
        tp = generator.choice([1, 2, 4])
        kv_heads = 4 * generator.choice([1, 2])
        heads = kv_heads * generator.choice([1, 2]) if family == "llama" else kv_heads
        sizes = {
            "hidden": heads * 8 * generator.choice([1, 2]), "heads": heads, "kv_heads": kv_heads,
            "ffn": 32 * generator.randint(1, 9), "vocab": 24 * generator.randint(2, 9), "layers": 1,
            "seq_len": generator.choice([8, 16, 24]), "attention": generator.choice(["flash", "math"]),
            "dtype": generator.choice(["fp16", "fp32"]),
        }  # fmt: skip
        yield tiny(family, **sizes), generator.randint(1, 7), tp


CASES = [pytest.param(*case, marks=[pytest.mark.slow] if i >= 6 else []) for i, case in enumerate(random_cases(21))]


@pytest.mark.parametrize(("spec", "batch", "tp"), CASES)
def test_substitution_equals_a_fresh_concrete_trace_bit_for_bit(spec, batch, tp):
    symbolic, concrete = symbolic_trace(spec), concrete_trace(spec, batch, tp)
    for kind, trace in symbolic.items():
        values = compiled(spec)[kind](batch, tp)
        for name in EXACT:
            right = getattr(concrete[kind], name).exact(1, 1)
            assert getattr(trace, name).exact(batch, tp) == right, (kind, name)
            assert getattr(values, name) == right, (kind, name)


def test_real_memory_equals_the_trace():
    """The same layers with real tensors on the CPU, no fake tensors anywhere: what lives is what was traced."""
    spec = tiny("llama", kv_heads=2, ffn=160, dtype="fp32", attention="math")
    for kind, trace in symbolic_trace(spec).items():
        real = trace_layer(tracing._builder(spec, kind), spec, 3, 1, kind)
        for name in EXACT:
            assert getattr(trace, name).exact(3, 1) == getattr(real, name).exact(1, 1), (kind, name)


class Unseen(nn.Module):
    """Squared-ReLU experts side by side with pooled mixing: nothing of it occurs in the library's blocks."""

    def __init__(self, spec, group):
        super().__init__()
        hidden, width = spec.shape.hidden, spec.shape.ffn // group.size
        self.group = group
        self.up = nn.Parameter(torch.empty(width, hidden, dtype=DTYPES[spec.dtype]))
        self.down = nn.Parameter(torch.empty(hidden, width, dtype=DTYPES[spec.dtype]))

    def forward(self, x):
        mixed = x + F.avg_pool1d(x.transpose(1, 2), 3, 1, 1).transpose(1, 2)
        hidden = F.relu(F.linear(enter(mixed, self.group), self.up))
        return x + leave(F.linear(hidden * hidden, self.down), self.group)


def test_a_block_never_seen_needs_no_new_formula(monkeypatch):
    spec = tiny(dtype="fp32")
    monkeypatch.setattr(tracing, "_builder", lambda spec, kind: lambda group: Unseen(spec, group))
    monkeypatch.setattr(tracing, "KINDS", ("unseen",))
    trace = symbolic_trace.__wrapped__(spec)["unseen"]
    for batch, tp in ((1, 1), (5, 4), (2, 2)):
        right = concrete_trace(spec, batch, tp, ("unseen",))["unseen"]
        for name in EXACT:
            assert getattr(trace, name).exact(batch, tp) == getattr(right, name).exact(1, 1), (name, batch, tp)
    assert [m.exact(2, 1) for m in trace.forward_messages] == [2 * 16 * 64 * 4]
    assert CompiledLayer(trace)(2, 4).weights == 2 * 64 * 256 // 4 * 4


def test_saved_tensors_of_gpt_are_the_sixteen_hidden_states():
    """Independent closed form: 4 hidden states of every rank, 12 cut by tp, logsumexp, and two norms' statistics."""
    spec = gpt("1.3b", seq_len=2048)
    u, found = BATCH * 2048 * 2048 * 2, symbolic_trace(spec)["block"].saved.expression()
    norms = 4 * BATCH * 2048 * 2  # mean and 1/std of two norms, in the dtype of the CPU kernel
    logsumexp = BATCH * 16 / TP * 2048 * 4
    assert sympy.simplify(found - (4 * u + 12 * u / TP + norms + logsumexp)) == 0


def test_saved_tensors_are_what_torchs_own_hooks_see():
    spec = tiny(dtype="fp32")
    with FakeTensorMode():
        block = tracing._builder(spec, "block")(Alone())
        x = torch.zeros(3, 16, 64, requires_grad=True).clone()
        storages = {}

        def pack(tensor):
            storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            block(x)
        weights = {p.untyped_storage()._cdata for p in block.parameters()}
        right = sum(size for key, size in storages.items() if key not in weights)
    assert symbolic_trace(spec)["block"].saved.exact(3, 1) == right


def test_traced_flops_are_torchs_counter():
    spec = tiny(dtype="fp32", attention="math")
    trace = symbolic_trace(spec)["block"]
    block = tracing._builder(spec, "block")(Alone())
    x = torch.zeros(16, 3, 64, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        y = block(x)
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    for phase, counter in (("forward", forward), ("backward", backward)):
        assert sum(unit.flops[phase].exact(3, 1) for unit in trace.units) == counter.get_total_flops()


def test_work_from_shapes_equals_traced_work():
    """The rates come from tables that hold shapes only; what they take for work is what the traces count."""
    for attention in ("flash", "math"):
        for trace in symbolic_trace(gpt("1.3b", seq_len=2048, attention=attention)).values():
            for unit in trace.units:
                if (where := key(unit, 2, 1)) is not None:
                    resource, work = forward_work(where)
                    traced = unit.flops["forward"] if resource == "flops" else unit.touched_bytes["forward"]
                    assert traced.exact(2, 1) == pytest.approx(work, rel=0.01), where


def test_tp_that_does_not_divide_is_told():
    with pytest.raises(ValueError, match="tp is 3; it does not divide"):
        compiled(tiny())["block"]([1, 2], [1, 3])
    with pytest.raises(ValueError, match="tp is 3; it does not divide"):
        Size.of({(1, 1): 64}).exact(1, 3)


def test_peaks_drop_only_what_is_dominated():
    small, large, other = Size.of({(1, 0): 2}), Size.of({(1, 0): 5}), Size.of({(1, 1): 9})
    peak = Peak.of([(small, "a"), (large, "b"), (other, "c"), (large, "d")])
    assert dict(peak.candidates) == {large: "b", other: "c"}
    assert (peak.exact(1, 1), peak.place(1, 1)) == (9, "c")
    assert (peak.exact(4, 3), peak.place(4, 3)) == (20, "b")
    assert peak.expression() == sympy.Max(5 * BATCH, 9 * BATCH / TP)


def test_tracing_is_done_once_per_model():
    assert symbolic_trace(tiny()) is symbolic_trace(tiny(**TINY))
