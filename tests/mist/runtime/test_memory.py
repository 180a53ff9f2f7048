"""Accounting of storages, and executed plans against the predicted peak, traffic and counts."""

import gc

import pandas as pd
import pytest
import torch

from paperlab.mist.runtime.build import Options, build
from paperlab.mist.runtime.engine import Trainer, train
from paperlab.mist.runtime.memory import LiveTensors, MemoryLedger
from paperlab.mist.studies import memory_accuracy
from paperlab.mist.studies.run_plans import make_plan, small_models
from tests.mist.runtime.plans import offload, plan_of

MIB = 2**20
CPU = torch.device("cpu")


def test_ledger_follows_births_deaths_views_and_resizes():
    ledger = MemoryLedger(CPU)
    with LiveTensors(ledger):
        ledger.at("work", "here:")
        a = torch.ones(MIB // 4)
        b = a.view(-1, 2)[1:].t()  # a view is no memory
        assert ledger.live["device"] == MIB
        host = ledger.empty(MIB, torch.uint8, "host")
        assert ledger.live == {"device": MIB, "host": MIB}
        del a
        assert ledger.live["device"] == MIB
        c = b.sum() + host.sum()
        del b, c
        assert ledger.live["device"] == 0
    d = ledger.empty(MIB, torch.uint8)
    ledger.resize(d, 0)
    assert ledger.live["device"] == 0
    ledger.resize(d, 2 * MIB)
    assert ledger.peak().bytes == ledger.live["device"] == 2 * MIB
    assert ledger.peak().where == "here: resize"
    assert ledger.peak("host", "work").bytes == MIB
    assert ledger.peak("device", "never").bytes == 0
    del d, host
    gc.collect()
    assert ledger.live == {"device": 0, "host": 0}


def test_a_temporary_of_100_mib_is_seen_and_located(monkeypatch):
    built = build(plan_of(1), Options(overlap=False))
    clean = Trainer(built, False).run(2)
    module = built.states[2].module
    forward = module.forward

    def wasteful(x):
        return forward(x + torch.zeros(100 * MIB // 4)[0])

    monkeypatch.setattr(module, "forward", wasteful)
    built.ledger.reset_peaks()
    peak = Trainer(built, False).run(2).peak("device", "forward")
    assert 100 * MIB <= peak.bytes < clean.peak().bytes + 100 * MIB + 4096
    assert "module 2:" in peak.where


@pytest.mark.parametrize("ratio", [0.25, 0.5, 1.0])
def test_offloaded_bytes_leave_the_device_pool(ratio):
    plain, moved = (
        build(plan_of(1, **fields), Options(overlap=False)) for fields in ({}, {"optimizer_offload": ratio})
    )
    assert plain.ledger.live["host"] == 0
    assert moved.ledger.live["host"] == plain.ledger.live["device"] - moved.ledger.live["device"] > 0


def test_peak_of_activations_falls_with_the_offloaded_fraction():
    peaks = [train(plan_of(1, activation_offload=ratio), 2).peak().bytes for ratio in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] > peaks[-1]


def test_more_checkpointing_and_higher_zero_never_need_more(pool):
    peaks = [train(plan_of(1, checkpointed=count), 2).peak().bytes for count in range(5)]
    assert peaks == sorted(peaks, reverse=True)
    plans = [make_plan(small_models(layers=8)["gpt"], dp=2, zero=zero) for zero in range(4)]
    peaks = [pool.run(train, plan, 2)[0].peak().bytes for plan in plans]
    assert peaks == sorted(peaks, reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["gpt", "llama", "falcon", "gpt, math attention"])
def test_measured_peaks_are_the_predicted_ones(pool, model):
    table = memory_accuracy.memory_table(memory_accuracy.memory_plans(small_models()[model]), pool)
    assert table.plan.nunique() >= 30 or model != "gpt"
    assert table.error_percent.abs().max() <= 3, table.sort_values("error_percent").to_string()


def test_a_few_measured_peaks_are_the_predicted_ones(pool):
    spec = small_models()["gpt"]
    plans = [
        make_plan(spec, checkpointed=2, **offload(0.5)),
        make_plan(spec, dp=2, zero=3),
        make_plan(spec, tp=2),
        make_plan(spec, 2, checkpointed=1),
    ]
    table = memory_accuracy.memory_table(plans, pool)
    assert table.error_percent.abs().max() <= 3, table.to_string()
    assert table.published_error_percent.min() > -3


def test_prediction_tells_the_first_forward_pass_apart(pool):
    table = memory_accuracy.memory_table([make_plan(small_models()["gpt"], 2, optimizer_offload=1.0)], pool)
    assert table.error_percent.abs().max() <= 3
    assert table.published_error_percent.max() > 5


def test_bytes_moved_recomputed_blocks_and_micro_batches_in_flight_are_the_predicted_ones(pool):
    spec = small_models()["llama"]
    plans = [
        make_plan(spec, checkpointed=1, **offload(0.5)),
        make_plan(spec, dp=2, zero=3, **offload(0.25)),
        make_plan(spec, dp=2, zero=2, grad_offload=1.0),
        make_plan(spec, dp=2, zero=0),
        make_plan(spec, 2, tp=2, checkpointed=1, activation_offload=0.75),
        make_plan(small_models(layers=4)["llama"], 4),
    ]
    table = memory_accuracy.counts_table(plans, pool)
    wrong = table[(table.measured - table.expected).abs() > 1e-3 * table.expected]
    assert wrong.empty, wrong.to_string()
    assert set(table[(table.plan.str.startswith("PP4")) & (table["count"] == "most in flight")].measured) == {
        1,
        2,
        3,
        4,
    }
    assert isinstance(table, pd.DataFrame)
