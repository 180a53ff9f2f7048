"""Claims from stored GPU tables: made-up tables with known answers, and none where no run is stored."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from paperlab.lab.claims import all_claims
from paperlab.tempo.speed import recorded

SETTING = {"device": "NVIDIA Test", "model": "BERT-Large", "seq_len": 512, "precision": "fp32", "card": "V100"}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PAPERLAB_RESULTS", str(tmp_path))
    folder = tmp_path / "test" / recorded.FOLDER
    folder.mkdir(parents=True)

    def write(stage: str, rows: list[dict]) -> None:
        pd.DataFrame([SETTING | row for row in rows]).to_csv(folder / f"{stage}.csv", index=False)

    return write


def test_no_run_no_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAPERLAB_RESULTS", str(tmp_path))
    assert recorded.claim_values().empty


def test_best_batch_ratio_comes_from_one_setting(store) -> None:
    arms = {"Tempo": (8, 30), "eager, paper era": (4, 20), "eager, modern": (5, 25)}
    store(
        "largest_batch",
        [
            {"arm": arm, "measured_batch": b, "seq_len": s}
            for arm, pair in arms.items()
            for s, b in zip((512, 128), pair, strict=True)
        ]
        + [{"arm": "Tempo", "measured_batch": 99, "card": "A100"}],  # nothing to compare it with
    )
    row = recorded.claim_values().iloc[0]
    assert (row.claim_id, row.value, row.unit, row.evidence) == ("T-01", 2.0, "x", "measured-gpu")
    assert "worst 1.5 x" in row.note
    assert "modern baseline 1.2 to 1.6 x" in row.note


def test_throughput_gains_and_checkpointing(store) -> None:
    rates = {"Tempo": 116.0, "eager, paper era": 100.0, "eager, modern": 110.0}
    rows = [
        {"arm": arm, "sequences_per_s": rate, "status": "ok", "model": model}
        for model in ("BERT-Large", "GPT-2", "RoBERTa-Large")
        for arm, rate in rates.items()
    ]
    store("at_largest_batch", [*rows, {"arm": "Tempo", "sequences_per_s": 1e9, "status": "failed", "card": "A100"}])
    store("one_batch", [{"arm": "checkpoint", "overhead": value, "status": "ok"} for value in (0.3, 0.34, 0.5)])
    found = recorded.claim_values().set_index("claim_id").value
    assert found["T-02"] == pytest.approx(16)
    assert found["T-03"] == pytest.approx(100 * (116 / 110 - 1))
    assert found["T-05"] == pytest.approx(34)
    assert set(found.index) <= set(all_claims()["tempo"])
