from __future__ import annotations

import itertools
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from paperlab.hardware import Roofline
from paperlab.lab import timing
from paperlab.tempo.memory.capacity import synthetic_batch
from paperlab.tempo.ops import kernels
from paperlab.tempo.speed import kernel_speed, throughput
from paperlab.tempo.speed.kernel_speed import (
    Sizes,
    gelu_cases,
    kernel_table,
    layernorm_cases,
    softmax_dropout_cases,
)
from paperlab.tempo.speed.throughput import (
    Point,
    Timing,
    compare,
    iso_batch_overhead,
    measure,
    throughput_at_largest_batch,
)
from paperlab.tempo.speed.workloads import MODELS, Trainer, Workload

TINY = Workload("tiny BERT", 16)
ONCE = Timing(rounds=2, steps=1, warmup=1)


class FakeTrainer:
    """Costs what its arm costs per sequence, on a machine that gets slower with every step."""

    costs: ClassVar = {"eager, modern": 1.0, "Tempo": 1.25, "SDPA": 0.5}
    steps: ClassVar[list[str]] = []
    clock: ClassVar = 0.0

    def __init__(self, workload, arm, device, compile_budget=None):
        self.arm, self.model = arm, None

    def step(self, batch):
        if self.arm == "checkpoint":
            raise torch.OutOfMemoryError
        if self.arm == "GELU":
            raise RuntimeError("broken\nfor good")
        type(self).steps.append(self.arm)
        kernels.launches["fake"] += 3
        type(self).clock += self.costs[self.arm] * batch * (1 + 0.02 * len(self.steps))


@pytest.fixture
def fake(monkeypatch):
    def timed(action, repeats, device, before=None):
        marks = []
        for _ in range(repeats):
            begin = FakeTrainer.clock
            action()
            marks.append(FakeTrainer.clock - begin)
        return marks

    FakeTrainer.steps, FakeTrainer.clock = [], 0.0
    monkeypatch.setattr(throughput, "Trainer", FakeTrainer)
    monkeypatch.setattr(throughput, "synthetic_batch", lambda model, batch, seq_len, device: batch)
    monkeypatch.setattr(timing, "timed", timed)
    monkeypatch.setattr(timing, "roofline", lambda device, dtype: Roofline(1e9, 1e9))
    return FakeTrainer


def test_turns_alternate_and_their_first_step_is_not_counted(fake):
    steps = measure(TINY, [Point("eager, modern", 1), Point("Tempo", 1)], Timing(rounds=2, steps=2, warmup=1))
    turns = [(arm, len(list(group))) for arm, group in itertools.groupby(fake.steps)]
    assert turns == [("Tempo", 2), ("eager, modern", 2 + 3), ("Tempo", 3 + 3), ("eager, modern", 3)]
    assert len(steps) == 2 * 2 * 2
    assert set(steps["round"]) == {1, 2}
    assert set(steps.triton_launches) == {3}


def test_drift_cancels_in_paired_ratios(fake):
    table = compare(TINY, [Point("eager, modern", 4), Point("Tempo", 4), Point("SDPA", 8)], repeat=Timing(6, 3, 1))
    speedup = table.set_index("arm").speedup
    assert speedup["eager, modern"] == 1
    assert speedup["Tempo"] == pytest.approx(1 / 1.25, rel=0.02)
    assert speedup["SDPA"] == pytest.approx(1 / 0.5, rel=0.02)
    assert table.overhead[1] == pytest.approx(0.25, abs=0.025)
    step_s = table.set_index("arm").step_s
    assert table.step_s_high[0] / table.step_s_low[0] > 1.5  # what the pairs had to cancel
    assert (table.step_s_low <= table.step_s).all()
    assert (table.step_s <= table.step_s_high).all()
    assert table.sequences_per_s[2] == pytest.approx(8 / step_s["SDPA"], rel=0.05)


def test_fraction_of_bound_is_model_flops_over_peak_and_time(fake):
    row = compare(TINY, [Point("Tempo", 4)], "Tempo", Timing(1, 1, 1)).iloc[0]
    assert row.bound_s == pytest.approx(TINY.flops(4) / 1e9)
    assert row.fraction_of_bound == pytest.approx(row.bound_s / row.step_s)
    assert row.evidence == "measured-cpu"


def test_a_point_out_of_memory_says_so_and_the_others_go_on(fake):
    table = iso_batch_overhead(TINY, ["checkpoint", "eager, modern", "Tempo"], 2, repeat=ONCE).set_index("arm")
    assert table.status.to_dict() == {"checkpoint": "out of memory", "eager, modern": "ok", "Tempo": "ok"}
    assert table.loc["checkpoint", ["step_s", "speedup", "sequences_per_s"]].isna().all()
    assert table.speedup["Tempo"] == pytest.approx(0.8, rel=0.1)
    without_baseline = compare(TINY, [Point("checkpoint", 1), Point("Tempo", 1)], "checkpoint", ONCE)
    assert without_baseline.speedup.isna().all()
    assert without_baseline.step_s.notna().tolist() == [False, True]


def test_other_failures_are_raised_or_kept_as_asked(fake):
    points = [Point("GELU", 1), Point("eager, modern", 1)]
    with pytest.raises(RuntimeError, match="broken"):
        compare(TINY, points, repeat=ONCE)
    assert compare(TINY, points, repeat=ONCE, keep_going=True).status.tolist() == [
        "failed: RuntimeError: broken",
        "ok",
    ]


def test_arms_for_which_nothing_fits_are_left_out(fake):
    table = throughput_at_largest_batch(TINY, {"eager, modern": 2, "Tempo": 3, "SDPA": 0}, repeat=ONCE)
    assert table.batch.tolist() == [2, 3]


@pytest.mark.parametrize("precision", ["fp32", "autocast bf16", "bf16"])
def test_real_arms_on_a_tiny_model(precision):
    workload = Workload("tiny BERT", 16, precision)
    table = iso_batch_overhead(workload, ["eager, modern", "Tempo", "SDPA", "checkpoint"], 2, repeat=ONCE)
    assert table.status.eq("ok").all()
    assert (table[["step_s", "speedup"]] > 0).all(axis=None)
    assert table.fraction_of_bound.notna().all() == (precision == "fp32")


@pytest.mark.parametrize("model", ["tiny BERT", "tiny GPT-2"])
def test_model_flops_equal_a_counted_step(model):
    workload = Workload(model, 16)
    trainer = Trainer(workload, "eager, modern", "cpu")
    with FlopCounterMode(display=False) as counter:
        trainer.step(synthetic_batch(trainer.model, 3, 16, "cpu"))
    assert counter.get_total_flops() == workload.flops(3)


def test_arms_start_from_equal_weights_and_train_with_dropout():
    first, second = (Trainer(TINY, arm, "cpu").model for arm in ("eager, modern", "Tempo"))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert first.training
    assert second.training
    for _, config in MODELS.values():
        from transformers import AutoConfig

        settings = dict(config)
        built = AutoConfig.for_model(settings.pop("model_type"), **settings)
        names = ("hidden_dropout_prob", "attention_probs_dropout_prob", "attn_pdrop", "resid_pdrop")
        assert [getattr(built, name) for name in names if hasattr(built, name)] == [0.1, 0.1]


def test_matmul_precision_is_restored_also_after_an_error():
    before = torch.get_float32_matmul_precision()

    def fail():
        with Workload(precision="tf32").matmul_precision():
            assert torch.get_float32_matmul_precision() == "high"
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Workload("BERT"), "model is 'BERT'; it must be one of BERT-Large"),
        (lambda: Workload(precision="fp8"), "precision is 'fp8'; it must be one of fp32"),
        (lambda: Workload(seq_len=0), "seq_len is 0"),
        (lambda: Point("Tempo", 0), "batch is 0"),
        (lambda: Timing(rounds=0), "rounds is 0"),
        (lambda: Sizes(heads=0), "heads is 0"),
        (lambda: measure(Workload("tiny BERT", 16, "tf32"), [], device="cpu"), "precision is 'tf32'"),
        (lambda: measure(TINY, [Point("Temp", 1)], ONCE), "arm is 'Temp'; it must be one of"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_timed_leaves_the_preparation_out(monkeypatch):
    now = itertools.count()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(now)))

    def spend(ticks):
        return lambda: [next(now) for _ in range(ticks)]

    assert timing.timed(spend(4), 3, "cpu", before=spend(100)) == [5.0] * 3


@pytest.fixture
def backends(monkeypatch):
    """Every implementation, Triton's included, and gradients that are the same for all of them."""
    if kernels.available():
        monkeypatch.setattr(kernel_speed, "_backends", lambda device: ("torch", "triton"))
    monkeypatch.setattr(torch, "randn_like", lambda x: torch.linspace(-1, 2, x.numel()).view(x.shape).to(x.dtype))


def test_timed_operators_compute_the_same(backends):
    x = torch.randn(2, 3, 8)
    found: dict[str, list[torch.Tensor]] = {}
    for case in [*gelu_cases(x), *layernorm_cases(x)]:
        out = case.run()
        found.setdefault(case.operator, []).append(out[0] if isinstance(out, tuple) else out)
    assert len(found) == 6
    for operator, (expected, *others) in found.items():
        assert len(others) == (4 if "GELU" in operator else 2) / (1 if kernels.available() else 2)
        for out in others:
            torch.testing.assert_close(out, expected, rtol=0, atol=2e-2 if "bf16" in operator else 2e-4)


def test_timed_dropout_operators_compute_what_they_say(backends):
    first, second, *others = softmax_dropout_cases(torch.randn(2, 2, 3, 5))
    assert [first.operator, second.operator] == ["softmax-dropout forward", "softmax-dropout backward"]
    assert len(others) == 2 * (1 + kernels.available())
    for case in others:
        _, probabilities, mask, *_ = (None, *case.moved) if case.operator == "dropout rebuilt" else case.moved
        for _ in range(2):  # the second run sees a fresh gradient
            case.before()
            if case.operator == "dropout rebuilt":
                expected = probabilities * mask / 0.9
            else:
                gradient = case.moved[0] * mask / 0.9
                expected = probabilities * (gradient - (gradient * probabilities).sum(-1, keepdim=True))
            torch.testing.assert_close(case.run(), expected)


def test_moved_bytes_count_each_input_and_output_once():
    n = 4 * 8
    bytes_per_element = {
        case.operator + case.implementation: case.moved_bytes / n for case in gelu_cases(torch.randn(4, 8))
    }
    assert bytes_per_element["GELU forwardtorch"] == 8
    assert bytes_per_element["GELU backwardtorch"] == 12
    assert bytes_per_element["GELU forwardTempo, torch, byte mask"] == 9
    assert bytes_per_element["GELU backwardTempo, torch, bit mask"] == 12.125
    scores = torch.randn(2, 2, 4, 4, dtype=torch.bfloat16)
    assert [case.moved_bytes / scores.numel() for case in softmax_dropout_cases(scores)] == [7, 7, 5, 7]
    cast = {
        case.implementation: case.moved_bytes / n
        for case in layernorm_cases(torch.randn(4, 8))
        if "cast to bf16 backward" in case.operator
    }
    assert cast == {"torch": 2 + 4 + 4, "Tempo, torch": 2 + 2 + 4}


def test_kernel_table_divides_by_a_copy_of_the_same_bytes(monkeypatch):
    monkeypatch.setattr(timing, "timed", lambda action, repeats, device, before: [2.0] * repeats)
    monkeypatch.setattr(timing, "roofline", lambda device, dtype: Roofline(1e9, 1e6))
    table = kernel_table(Sizes(1, 4, 8, 2), repeats=3, device="cpu")
    assert set(table.over_copy) == {1.0}
    assert np.allclose(table.fraction_of_bound, table.moved_bytes / 1e6 / 2)
    assert set(table.implementation) == {
        "torch",
        "Tempo, torch",
        "Tempo, torch, byte mask",
        "Tempo, torch, bit mask",
    }
    assert table.evidence.eq("measured-cpu").all()
