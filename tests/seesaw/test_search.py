"""Forecast and plan search against simulation; the disaggregation planner; the calibration."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from paperlab.seesaw import calibration, plan, run, workload
from paperlab.seesaw.disaggregation import decode_rate, least_gpus, multiplexed_rate, prefill_rate, splits
from paperlab.seesaw.estimate import estimate_s
from paperlab.seesaw.hardware import AllReduce, node
from paperlab.seesaw.layout import Layout
from paperlab.seesaw.prices import Prices, kv_tokens
from paperlab.seesaw.search import resharding_runs, static_runs
from paperlab.seesaw.simulation import Run
from paperlab.serving.lengths import fixed, uniform
from paperlab.serving.work import StepShape
from paperlab.transformer import preset, weight_bytes

MODEL, SMALL = preset("llama3-15b"), node("a10")
CROWDED = replace(SMALL, memory_utilization=0.5)  # few sequences fit, so that few requests fill the memory


@pytest.fixture(scope="module")
def work():
    return workload(uniform((200, 1500), (5, 120)), 60)


@pytest.mark.parametrize("layouts", ["P4→T4", "P4→T2P2", "T4→T4", "D2P2→D2T2"])
def test_the_forecast_of_a_pair_is_close(layouts, work):
    item = run(MODEL, SMALL if layouts.startswith("D") else CROWDED, layouts)
    assert estimate_s(item, work.requests) == pytest.approx(item.simulate(work).end_s, rel=0.15)


@pytest.mark.parametrize(("layout", "chunk"), [("T4", 0), ("T4", 512), ("T2P2", 512), ("P4", 512), ("D2T2", 0)])
def test_the_forecast_of_a_static_layout_is_near(layout, chunk, work):
    item = run(MODEL, SMALL if layout.startswith("D") else CROWDED, layout, chunk_tokens=chunk)
    assert estimate_s(item, work.requests) == pytest.approx(item.simulate(work).end_s, rel=0.3)


def test_a_plans_regret_is_small_against_every_candidate_simulated(work):
    found = plan(MODEL, 4, CROWDED, work, chunks=(0, 512))
    for kind, runs in (
        ("static", static_runs(MODEL, CROWDED, 4, (0, 512))),
        ("pair", resharding_runs(MODEL, CROWDED, 4)),
    ):
        exhaustive = min(item.simulate(work).end_s for item in runs)
        chosen = found.best_static if kind == "static" else found.best_resharding
        assert chosen.makespan_s <= 1.03 * exhaustive
    table = found.table()
    assert table["regret"].min() == 0
    assert set(table["kind"]) == {"static", "re-sharding"}
    assert len(table) == len(found.candidates) == len({(row.layout, row.kind) for row in table.itertuples()})
    assert "than the best static layout" in found.explain()


def test_candidates_are_all_that_fit():
    labels = {item.label for item in static_runs(preset("llama2-70b"), SMALL, 8, (0,))}
    assert labels == {"P8", "T2P4", "T4P2", "T8"}  # two replicas of 138 GB do not fit
    pairs = {item.label for item in resharding_runs(preset("llama2-70b"), SMALL, 8)}
    assert len(pairs) == 16
    with pytest.raises(ValueError, match="fits on 2 x A10 over PCIe in no layout"):
        plan("llama2-70b", 2, "a10", workload("arxiv", 5))


def test_what_does_not_fit_is_told():
    with pytest.raises(ValueError, match="does not fit on 4 x A10"):
        run("llama2-70b", "a10", "T4").simulate(workload("arxiv", 2))
    with pytest.raises(ValueError, match="DP and GPUs must stay the same"):
        run(MODEL, "a10", "P4>D2T2")
    with pytest.raises(ValueError, match="policy is 'best'"):
        run(MODEL, "a10", "P4>T4", policy="best")
    with pytest.raises(ValueError, match="unknown workload 'books'"):
        workload("books", 5)
    assert estimate_s(run("llama2-70b", "a10", "T4"), workload("arxiv", 2).requests) == math.inf


def test_prompts_larger_than_the_host_are_refused_alone():
    item = run(MODEL, SMALL, "P4→T4", host_kv_bytes=1000 * 262_144)
    log = item.simulate(workload(uniform((500, 1500), (5, 9)), 20))
    refused = {note.request_id for note in log.notes if note.kind == "refuse"}
    finished = {note.request_id for note in log.notes if note.kind == "finish"}
    assert refused
    assert finished == set(range(20)) - refused
    assert all(log.requests[index].prompt_tokens > 950 for index in refused)


def test_the_same_run_twice_gives_the_same_log(work):
    first, second = (run(MODEL, CROWDED, "P4→T4").simulate(work) for _ in range(2))
    assert (first.steps, first.moves, first.switches, first.notes) == (
        second.steps,
        second.moves,
        second.switches,
        second.notes,
    )


def test_more_host_memory_never_takes_longer():
    work = workload(uniform((500, 1500), (20, 80)), 60)
    spans = [
        run(MODEL, CROWDED, "P4→T4", host_kv_bytes=tokens * 262_144).simulate(work).end_s
        for tokens in (4000, 16_000, 64_000)
    ]
    assert spans[0] > spans[1] >= spans[2]


def test_seesaw_beats_both_other_policies_and_switches_far_less():
    work = workload(uniform((500, 1500), (20, 120)), 120)
    logs = {name: run(MODEL, CROWDED, "P4→T4", policy=name).simulate(work)
            for name in ("seesaw", "reshard-prefill-first", "reshard-decode-first")}  # fmt: skip
    ours = logs.pop("seesaw")
    assert all(ours.end_s < log.end_s for log in logs.values())
    assert len(logs["reshard-prefill-first"].switches) >= 10 * len(ours.switches)


def test_a_fast_link_makes_tensor_parallel_prefill_the_best():
    fast = replace(SMALL, all_reduce=AllReduce(dict.fromkeys((2, 4, 8), 1e15), dict.fromkeys((2, 4, 8), 0.0)))
    step = StepShape(4096, 0, 4096 * 2048, logits=1)

    def best(on):
        return min(("P4", "T2P2", "T4"), key=lambda text: sum(Prices(MODEL, Layout.parse(text), on).compute_s(step)))

    def fastest(on):
        return min(("P4", "T2P2", "T4"), key=lambda text: max(Prices(MODEL, Layout.parse(text), on).compute_s(step)))

    assert fastest(SMALL) == "P4"
    assert best(fast) == "T4"


def test_reload_takes_a_shard_over_the_link():
    model = preset("llama2-70b")
    for text in ("T8", "T4P2"):
        seconds = Prices(model, Layout.parse(text), SMALL).load_s
        assert seconds == pytest.approx(weight_bytes(model, "fp16") / 8 / SMALL.host_Bps, rel=0.02)


def test_memory_is_what_the_larger_shard_leaves():
    model, first, second = preset("llama2-70b"), Layout.parse("P8"), Layout.parse("T4P2")
    both = kv_tokens(model, SMALL, first, second)
    assert both < kv_tokens(model, SMALL, second)  # P8's first stage holds the whole embedding
    assert kv_tokens(model, SMALL, first, second, staging_tokens=8192) < both
    assert Run(model, SMALL, first, second).gpu_tokens < Run(model, SMALL, second).gpu_tokens


def test_disaggregation_is_bound_by_its_slower_side():
    model, on = preset("llama2-70b"), node("a100-sxm-40gb")
    assert least_gpus(model, on) == 4
    (split,) = splits(model, on, 8, 1000, 300)
    assert (split.prefill.gpus, split.decode.gpus) == (4, 4)
    assert split.requests_per_s == min(split.prefill.requests_per_s, split.decode.requests_per_s)
    assert split.mismatch >= 1
    together = multiplexed_rate(model, on, 8, 1000, 300)
    rates = prefill_rate(model, on, 8, 1000).requests_per_s, decode_rate(model, on, 8, 1000, 300).requests_per_s
    assert together == pytest.approx(1 / sum(1 / rate for rate in rates))
    with pytest.raises(ValueError, match="does not fit on 2"):
        prefill_rate(model, on, 2, 1000)


@pytest.mark.parametrize("device", ["a100", "a40"])
def test_calibration_predicts_the_model_it_has_not_seen(device):
    fit = calibration.layer_fit(device)
    assert 0.5 < fit.compute_efficiency < 1
    assert 0.5 < fit.memory_efficiency < 1
    assert fit.held_out_error < 0.1
    assert fit.held_out_worst < 0.25


def test_an_all_reduce_fit_gets_back_what_made_the_times(monkeypatch, tmp_path):
    rows = ["system,gpus,bytes,median_ms"]
    for gpus, bus, latency in ((2, 50e9, 2e-5), (4, 20e9, 6e-5)):
        for size in (2**14, 2**18, 2**22, 2**26):
            rows.append(f"made,{gpus},{size},{1e3 * (latency + 2 * (gpus - 1) / gpus * size / bus)}")
    (tmp_path / "seesaw").mkdir()
    (tmp_path / "seesaw" / "all_reduce.csv").write_text("\n".join(rows))
    monkeypatch.setattr(calibration, "data_dir", lambda: tmp_path)
    calibration.measured_all_reduce.cache_clear()
    found = calibration.measured_all_reduce("made")
    calibration.measured_all_reduce.cache_clear()
    assert np.allclose(found[2], (50e9, 2e-5))
    assert np.allclose(found[4], (20e9, 6e-5))


def test_bandwidth_falls_with_the_group_and_scales_with_the_link():
    link = SMALL.all_reduce
    assert link.algorithm_Bps(2) > link.algorithm_Bps(4) > link.algorithm_Bps(8)
    assert link.scaled(3).algorithm_Bps(4) == pytest.approx(3 * link.algorithm_Bps(4))
    assert link.scaled(2).call_s(8) == pytest.approx(link.call_s(8) / 2)
    with pytest.raises(ValueError, match="no all-reduce rate for 3 GPUs"):
        link.algorithm_Bps(3)
    with pytest.raises(ValueError, match="interconnect is 'nvlink'"):
        node("a10", "nvlink")


def test_a_one_token_job_is_the_prefill_alone():
    item = run(MODEL, SMALL, "P4→T4")
    log = item.simulate(workload(fixed(1000, 1), 30))
    assert not log.switches
    assert not log.moves
    assert {step.shape.kind for step in log.steps} == {"prefill"}
