"""What only a GPU can show: compiled kernels at real sizes, the allocator against the ledger, memory caps, parity.

The kernel tests next door run compiled here too; bars on speed are in `tests/benchmarks/test_tempo.py`.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from paperlab.tempo.dropin import baselines, patch
from paperlab.tempo.memory import ledger
from paperlab.tempo.memory.capacity import CONTEXT_RESERVE_BYTES, GIB, Card, synthetic_batch
from paperlab.tempo.memory.peak import step_peak
from paperlab.tempo.memory.probe import build_model, measure_max_batch
from paperlab.tempo.ops import dropout, kernels
from paperlab.tempo.ops.gelu import inplace_gelu
from paperlab.tempo.ops.layernorm import InplaceLayerNorm
from paperlab.tempo.speed.fresh import Caller
from paperlab.tempo.speed.gpu_cells import expected, run_capped
from paperlab.tempo.speed.workloads import Trainer, Workload
from tests.tempo.kept import relative_error

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
# relative L2 error of one rounding to the dtype, with margin
ROUNDING = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
BSH = (8, 512, 1024)
LAYERS = 4


@pytest.fixture
def bert():
    """Four layers of BERT-Large's size, on the GPU, for an arm."""

    def build(arm: str, precision: str = "fp32"):
        probe = Workload("BERT-Large", 512, precision).probe(arm)
        probe.config["num_hidden_layers"] = LAYERS
        torch.manual_seed(0)
        with torch.device("cuda"):
            return build_model(probe)

    return build


@pytest.fixture
def exact_matmul():
    with Workload().matmul_precision():
        yield


@pytest.mark.parametrize("dtype", list(ROUNDING))
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_at_size(dtype, packed, approximate):
    x = torch.randn(8, 512, 4096, device="cuda", dtype=dtype).requires_grad_()
    dy = torch.randn_like(x)
    y = inplace_gelu(x, approximate, packed=packed)
    assert torch.equal(y, F.gelu(x, approximate=approximate))
    (found,) = torch.autograd.grad(y, x, dy)
    exact = x.detach().double().requires_grad_()
    (reference,) = torch.autograd.grad(F.gelu(exact, approximate=approximate), exact, dy.double())
    assert relative_error(found, reference) < ROUNDING[dtype]


def test_gelu_past_two_to_the_31_elements():
    if torch.cuda.mem_get_info()[0] < 40e9:
        pytest.skip("needs 40 GB of free memory")
    numel = 2**31 + 4099
    x = torch.zeros(numel, device="cuda", dtype=torch.bfloat16)
    tail = torch.randn(10_000, device="cuda", dtype=torch.bfloat16)
    x[-tail.numel() :] = tail
    for packed in (False, True):
        leaf = x.detach().requires_grad_()
        inplace_gelu(leaf, packed=packed).backward(x)
        alone = tail.detach().requires_grad_()
        inplace_gelu(alone).backward(tail)
        assert torch.equal(leaf.grad[-tail.numel() :], alone.grad)
        del leaf


@pytest.mark.parametrize("dtype", list(ROUNDING))
def test_layernorm_at_size(dtype):
    torch.manual_seed(0)
    norm = torch.nn.LayerNorm(BSH[-1], device="cuda", dtype=dtype)
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    norm.weight.data[::100] = 0
    ours = InplaceLayerNorm.from_module(norm)
    x = torch.randn(BSH, device="cuda", dtype=dtype).requires_grad_()
    dy = torch.randn_like(x)
    y = ours(x)
    assert torch.equal(y, norm(x))
    assert ours.fallbacks == -(-BSH[-1] // 100)
    found = torch.autograd.grad(y, (x, norm.weight, norm.bias), dy)
    exact = torch.nn.LayerNorm(BSH[-1], device="cuda", dtype=torch.float64)
    exact.load_state_dict(norm.state_dict())
    twin = x.detach().double().requires_grad_()
    reference = torch.autograd.grad(exact(twin), (twin, exact.weight, exact.bias), dy.double())
    for value, true in zip(found, reference, strict=True):
        assert relative_error(value, true) < ROUNDING[dtype]


@pytest.mark.parametrize("dtype", list(ROUNDING))
@pytest.mark.parametrize("mode", ["byte", "bit", "sign"])
def test_softmax_dropout_at_size(dtype, mode):
    from paperlab.tempo.ops.kernels import softmax_dropout

    torch.manual_seed(0)
    P = torch.randn(4, 16, 512, 512, device="cuda").softmax(-1).to(dtype)
    Dp, mask, seed = dropout.drop(P, 0.1, mode)
    kept_P, kept_mask = dropout.encode(P, mask, seed, mode)
    rebuilt = softmax_dropout.dropped(kept_P, kept_mask, 0.1, mode)
    assert torch.equal(rebuilt != 0, Dp != 0)
    torch.testing.assert_close(rebuilt, Dp, rtol=torch.finfo(dtype).eps, atol=0)
    gradient = torch.randn_like(P)
    found = softmax_dropout.scores_gradient(gradient.clone(), kept_P, kept_mask, 0.1, mode, dtype)
    dP = gradient.double() * mask / 0.9
    reference = P.double() * (dP - (dP * P.double()).sum(-1, keepdim=True))
    assert relative_error(found, reference) < ROUNDING[dtype]


@pytest.mark.parametrize("arm", ["Tempo", "Tempo, bit mask", "Tempo on SDPA"])
def test_same_loss_and_gradients_as_the_baseline(bert, arm, exact_matmul):
    baseline = "SDPA" if arm == "Tempo on SDPA" else "eager, torch as it is"
    losses, gradients = [], []
    for name in (baseline, arm):
        model = bert(name)
        torch.manual_seed(1)
        loss = model(**synthetic_batch(model, 4, 512, "cuda")).loss
        loss.backward()
        losses.append(loss.item())
        gradients.append({key: p.grad for key, p in model.named_parameters()})
    assert losses[0] == losses[1]
    for key, reference in gradients[0].items():
        if not key.endswith("key.bias"):  # their true gradient is 0
            assert relative_error(gradients[1][key], reference) < 5e-6, key


@pytest.mark.parametrize("precision", ["fp32", "autocast bf16", "bf16"])
def test_the_triton_kernels_really_run(bert, precision, monkeypatch):
    """One launch per layer and technique, with the torch paths poisoned."""
    monkeypatch.setattr("paperlab.tempo.ops.gelu.derivative", None)
    monkeypatch.setattr("paperlab.tempo.ops.layernorm.backward_from_output", None)
    monkeypatch.setattr(dropout, "scores_gradient", None)
    monkeypatch.setattr(dropout, "dropped", None)
    model = bert("Tempo", precision)
    before = kernels.launches.copy()
    with Workload("BERT-Large", 512, precision).autocast("cuda"):
        loss = model(**synthetic_batch(model, 2, 512, "cuda")).loss
    loss.backward()
    launched = kernels.launches - before
    assert launched["gelu_backward"] == LAYERS
    assert launched["layernorm_backward"] == len(patch.report(model).replaced("layernorm")) >= 2 * LAYERS
    assert launched["dropout_apply"] == launched["softmax_dropout_backward"] == LAYERS
    # fp32 values come from torch's own kernel; under autocast the low-precision output is Tempo's
    assert (launched["layernorm_forward"] > 0) == (precision == "autocast bf16")


@pytest.mark.parametrize("arm", ["eager, torch as it is", "eager, paper era", "Tempo", "SDPA", "Tempo on SDPA"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_allocator_grows_by_what_the_ledger_says(bert, arm, precision):
    model = bert(arm, precision)
    batch = synthetic_batch(model, 8, 512, "cuda")
    model(**batch).loss.backward()  # workspaces and gradients come first
    counted = ledger.retained_bytes(model, batch)
    before = torch.cuda.memory_allocated()
    loss = model(**batch).loss
    grown = torch.cuda.memory_allocated() - before
    assert grown == pytest.approx(counted, rel=0.01)
    loss.backward()
    del loss
    assert torch.cuda.memory_allocated() - before < 0.001 * counted


@pytest.mark.parametrize("arm", ["eager, modern", "Tempo", "checkpoint"])
def test_the_allocator_peaks_where_the_tracker_says(bert, arm):
    model = bert(arm)
    batch = synthetic_batch(model, 8, 512, "cuda")
    model(**batch).loss.backward()
    tracked = step_peak(model, batch).peak_bytes
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model(**batch).loss.backward()
    assert torch.cuda.max_memory_allocated() - before == pytest.approx(tracked, rel=0.05)


def test_the_largest_batch_runs_out_of_memory_for_real_and_follows_the_model():
    call, workload = Caller(), Workload("BERT-Large", 512)
    run_probe = partial(call, run_capped, workload, timeout_s=120)
    largest = {}
    for gib in (11, 16):
        for arm in ("eager, modern", "Tempo"):
            card = Card("capped", gib * GIB)
            modeled = expected(workload, card, arm).batch
            probe = workload.probe(arm, card.memory_bytes, CONTEXT_RESERVE_BYTES)
            best, probes = measure_max_batch(probe, modeled, run_probe)
            outcomes = probes.set_index("batch").fits
            assert outcomes[best]
            assert not outcomes[best + 1]
            assert abs(best - modeled) <= max(1, 0.1 * modeled)
            largest[gib, arm] = best
    for arm in ("eager, modern", "Tempo"):
        assert largest[11, arm] <= largest[16, arm]
    assert largest[11, "Tempo"] > largest[11, "eager, modern"]
    assert largest[16, "Tempo"] > largest[16, "eager, modern"]
    repeats = [measure_max_batch(probe, best, run_probe)[0] for _ in range(2)]
    assert repeats == [best, best]


def test_training_steps_stay_finite_and_equal_in_every_arm(exact_matmul):
    losses = {}
    for arm in baselines.ARMS:
        trainer = Trainer(Workload("tiny BERT", 32), arm, "cuda")
        torch.manual_seed(3)
        batch = synthetic_batch(trainer.model, 8, 32, "cuda")
        for _ in range(5):
            trainer.step(batch)
        trainer.model.eval()
        losses[arm] = trainer.model(**batch).loss.item()
    reference = losses["eager, torch as it is"]
    fused_dropout = ("SDPA", "Tempo on SDPA")  # which draws a pattern of its own
    assert all(value == pytest.approx(reference, rel=1e-4) for arm, value in losses.items() if arm not in fused_dropout)
    assert losses["SDPA"] == pytest.approx(losses["Tempo on SDPA"], rel=1e-4)
