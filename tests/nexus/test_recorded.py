"""Claims from stored GPU tables: made-up tables with known answers; what is not a measured partition never counts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from paperlab.lab.claims import all_claims
from paperlab.nexus import recorded
from paperlab.nexus.studies.serving_study import LDC, MIXED

GPU = {"device": "NVIDIA Test", "evidence": "measured-gpu", "model": "qwen2.5-3b", "sequences": 20}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PAPERLAB_RESULTS", str(tmp_path))
    folder = tmp_path / "test" / recorded.FOLDER
    folder.mkdir(parents=True)

    def write(stage: str, rows: list[dict], **columns: object) -> None:
        pd.DataFrame([GPU | row | columns for row in rows]).to_csv(folder / f"{stage}.csv", index=False)

    return write


def values() -> dict[str, float]:
    """Return what is found, by claim."""
    return recorded.claim_values().set_index("claim_id").value.to_dict()


def test_no_run_no_claim(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERLAB_RESULTS", str(tmp_path))
    assert recorded.claim_values().empty


def test_iterations_and_kernels(store):
    store("kinds", [{"kind": "decode", "iteration_s": 0.01}, {"kind": "mixed", "iteration_s": 0.12}])
    store(
        "kernels", [{"kind": kind, "kernels": "linear", "seconds": s} for kind, s in (("decode", 1.0), ("mixed", 9.0))]
    )
    assert values() == pytest.approx({"N-12": 12.0, "N-11": 9.0})


def test_shares_are_interpolated_between_layouts(store):
    rows = []
    for share in (0.2, 0.4, 0.6, 0.8, 1.0):
        rows += [
            {"phase": "prefill", "share": share, "device_s": 1 / share},
            {"phase": "decode", "share": share, "device_s": 1.0},
            {"phase": "projections", "share": share, "device_s": 1.0 if share >= 0.6 else 2.0},
        ]
    store("shares", rows, partition="green contexts")
    found = values()
    assert found["N-13"] == pytest.approx(100 * (1 - 2.5 / 3.75))
    assert found["N-15"] == pytest.approx(60)
    assert found["N-16"] == pytest.approx(0)


def test_shares_of_an_unfinished_run_decide_nothing(store):
    rows = [
        {"phase": phase, "share": share, "device_s": 1 / share}
        for phase in ("prefill", "decode", "projections")
        for share in (0.1, 0.2, 1.0)
    ]
    store("shares", rows, partition="green contexts")
    assert recorded.claim_values().empty
    store("shares", [row for row in rows if row["share"] == 1.0], partition="none")
    assert recorded.claim_values().empty


def test_contention_compares_two_and_ten_thousand_tokens(store):
    rows = [{"stored_tokens": stored, "device_s": s} for stored, s in ((2000, 1.0), (10_000, 1.36), (None, 0.8))]
    store("contention", rows, partition="green contexts", decode_sms=64)
    assert values() == pytest.approx({"N-18": 36.0})


def serving(system: str, rate: float, factor: float) -> dict:
    metrics = [f"{name}_{kind}_s" for name in ("ttft", "tbt", "normalized_latency") for kind in ("mean", "p95")]
    return {"system": system, "rate_per_s": rate, "load": rate, "seed": 0, "unfinished": 0} | dict.fromkeys(
        metrics, rate * factor
    )


def test_serving_runs_decide_ratios_and_unpartitioned_ones_do_not(store):
    factors = {"vllm-like": 4.0, "sglang-like": 2.0, "nexus": 1.0}
    rows = [
        serving(system, rate, factor) | {"scenario": scenario.label}
        for system, factor in factors.items()
        for rate in (1.0, 2.0)
        for scenario in (LDC, MIXED)
    ]
    store("serving", rows, partition="green contexts")
    found = values()
    assert (found["N-02"], found["N-05"], found["N-25"]) == (4.0, 2.0, False)
    assert set(found) <= set(all_claims()["nexus"])
    store("serving", rows, partition="unpartitioned")
    assert recorded.claim_values().empty
    store("serving", [row | {"evidence": "measured-cpu"} for row in rows], partition="none")
    assert recorded.claim_values().empty


def test_points_that_one_system_lacks_favor_nobody(store):
    factors = {"vllm-like": 4.0, "sglang-like": 2.0, "nexus": 1.0}
    rows = [serving(system, 1.0, factor) | {"scenario": LDC.label} for system, factor in factors.items()]
    alone = serving("nexus", 2.0, 0.1) | {"scenario": LDC.label}
    store("serving", rows, partition="none")
    before = values()
    store("serving", [*rows, alone], partition="none")
    after = values()
    assert before == after
    assert after["N-02"] == 4.0
    assert after["N-01"] <= 1.0 + 1e-9
