"""The exhibits: what a table must hold whatever its numbers, drawn once each, and findings against made-up grids."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from paperlab.lab.claims import all_claims
from paperlab.nexus import experiments, plots
from paperlab.nexus.config import Config
from paperlab.nexus.studies import findings, offline_study, operators_study, serving_study
from paperlab.nexus.studies.serving_study import ARXIV, LARGE, LDC, MIXED

TINY = Config(
    requests=10, workers=1, statistics_requests=4000, ldc_rates=(2.0,), arxiv_rates=(2.0,), mixed_rates=(2.0,),
    large_rates=(1.0,), ablation_rates=(2.0,), control_rates=(2.0,), offline_ldc_jobs=(6,), offline_mixed_jobs=(6,),
    sweep_requests=12, engine_requests=2,
)  # fmt: skip
SIMPLE = ("figure_2", "figure_4a", "figure_4b", "figure_5", "figure_6a", "figure_6b", "figure_8", "exhibit_control")
GRIDS = ("figure_9", "figure_10", "figure_11", "figure_13", "exhibit_controls", "exhibit_penalties")


@pytest.mark.parametrize("name", [*SIMPLE, *GRIDS])
def test_every_exhibit_is_made_and_drawn(name):
    table = getattr(experiments, name)(TINY)
    assert len(table)
    assert set(table.evidence) <= {"simulated", "analytic"}
    assert getattr(plots, name)(table).axes
    plt.close("all")


def test_the_generated_lengths_are_the_papers():
    table = experiments.table_1(Config(statistics_requests=50_000)).dropna(subset="paper_tokens")
    assert len(table) >= 24
    assert table.relative_error.abs().max() < 0.03


def test_all_systems_of_a_grid_serve_the_same_requests():
    grid = experiments.figure_9(TINY)
    assert set(grid.system) == set(serving_study.FIVE)
    for _, part in grid.groupby(["scenario", "rate_per_s", "seed"]):
        assert (part.finished == TINY.requests).all()
    assert set(grid[grid.system == "vllm-pd-like"].gpus) == {2}


def test_workers_change_nothing():
    cells = [LDC.cell(system, 2.0, 6, 0) for system in ("vllm-like", "nexus")]
    one, two = (serving_study.run_cells(cells, workers) for workers in (1, 2))
    pd.testing.assert_frame_equal(one, two)


def test_stages_of_a_grid_add_up_to_its_normalized_latency():
    grid = experiments.figure_9(TINY)
    stages = experiments.figure_12(TINY, grid)
    sums = stages.groupby(["scenario", "system"]).seconds_per_token.sum()
    means = grid.groupby(["scenario", "system"]).normalized_latency_mean_s.mean()
    assert (sums - means).abs().max() < 1e-9


def made_up(latency, systems=("vllm-like", "sglang-like", "fastserve-like", "vllm-pd-like", "nexus")):
    """Return a grid in which `latency(system, rate)` is every metric, on all scenarios, for two seeds."""
    metrics = [f"{name}_{kind}_s" for name in ("ttft", "tbt", "normalized_latency") for kind in ("mean", "p95")]
    rows = [
        {
            "scenario": scenario.label, "system": system, "rate_per_s": rate, "seed": seed, "preemptions": 0,
            **dict.fromkeys(metrics, latency(system, rate)),
        }
        for scenario in (LDC, ARXIV, MIXED)
        for system in systems
        for rate in (1.0, 2.0, 3.0)
        for seed in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_sustained_rates_are_read_off_by_straight_lines():
    grid = made_up(lambda system, rate: (0.3 if system == "nexus" else 0.6) * (rate - 1) + 0.1)
    found = serving_study.sustained(grid, (0.4, 0.05, 5.0)).set_index(["scenario", "system", "threshold_s"])
    assert found.rate_per_s[LDC.label, "nexus", 0.4] == pytest.approx(2.0)
    assert found.rate_per_s[LDC.label, "vllm-like", 0.4] == pytest.approx(1.5)
    assert found.bound[LDC.label, "nexus", 0.05] == "below"
    assert found.bound[LDC.label, "nexus", 5.0] == "at least"
    gains = serving_study.throughput_gains(serving_study.sustained(grid, (0.4,)))
    assert gains.gain.to_numpy() == pytest.approx(4 / 3)
    assert not gains.bounded.any()


def test_up_to_is_the_largest_point_and_the_rest_medians():
    grid = made_up(lambda system, rate: rate if system == "nexus" else rate * (5 if rate == 2.0 else 1.2))
    found = {item.claim_id: item for item in findings.latency_findings(grid)}
    assert found["N-02"].value == pytest.approx(5.0)
    assert "2 requests/s" in found["N-02"].note
    assert found["N-21"].value == pytest.approx(1.2)
    assert found["N-25"].value is False
    assert found["N-28"].value is False


def test_an_ablation_in_percent():
    factor = {"pf-df-wo-sc": 1.0, "pf-df-w-sc": 0.5, "nexus-wo-sc": 0.2, "nexus": 0.1}
    grid = made_up(lambda system, rate: rate * factor[system], tuple(factor))
    found = {item.claim_id: item.value for item in findings.ablation_findings(grid[grid.scenario == MIXED.label])}
    assert found["N-47"] == pytest.approx(-50)
    assert found["N-48"] == pytest.approx(-80)
    assert found["N-48b"] is False
    assert found["N-49"] == pytest.approx(-50)


def test_every_finding_is_a_claim_of_the_ledger():
    grid, ledger = experiments.figure_9(TINY), all_claims()["nexus"]
    large = experiments.figure_10(TINY)
    found = [
        *findings.latency_findings(grid),
        *findings.throughput_findings(grid, large),
        *findings.large_findings(large),
        *findings.offline_findings(experiments.figure_11(TINY)),
        *findings.stage_findings(experiments.figure_12(TINY, grid)),
        *findings.ablation_findings(experiments.figure_13(TINY)),
    ]
    ids = [item.claim_id for item in found]
    assert len(ids) == len(set(ids))
    for item in found:
        assert ledger[item.claim_id].is_qualitative == isinstance(item.value, bool), item.claim_id
        assert isinstance(item.value, bool) or math.isfinite(item.value)


def test_offline_batches_are_cut_at_the_time_limit():
    table = offline_study.makespans({LDC: (8,)}, ("vllm-like", "nexus"), seed=0, workers=1)
    assert not table.timed_out.any()
    assert (table.jobs == 8).all()


def test_mixed_batches_take_several_times_a_decode_only_one():
    kinds = operators_study.iteration_kinds(60, 0, (1.0, 1.5)).set_index(["mixed_penalty", "kind"]).latency_s
    for penalty in (1.0, 1.5):
        assert kinds[penalty, "mixed"] > 5 * kinds[penalty, "decode"]
    assert kinds[1.5, "mixed"] > 1.2 * kinds[1.0, "mixed"]


def test_the_large_model_needs_both_devices():
    assert LARGE.cell("nexus", 1.0, 5, 0).options == {"tp": 2}
    assert LARGE.cell("vllm-pd-like", 1.0, 5, 0).options == {"tp": 1}
