import pandas as pd
import pytest

from paperlab.across import Config, findings
from paperlab.across.fleet import CHUNKED, NEXUS, SEESAW
from paperlab.lab.claims import all_claims
from paperlab.lab.profiles import get_profile


def contest_rows(model, latencies):
    return [
        {"model": model, "load": load, "system": system, "seed": 0, "requests_per_s": 1.0, "ttft_mean_s": seconds,
         "tbt_p95_s": seconds, "tbt_p99_s": seconds, "normalized_latency_mean_s": seconds}
        for system, values in latencies.items()
        for load, seconds in zip((0.2, 1.2), values, strict=True)
    ]  # fmt: skip


def test_crossing_curves_are_told_from_parallel_ones():
    crossing = {NEXUS: (1, 9), SEESAW: (3, 5), CHUNKED: (2, 9)}
    parallel = {NEXUS: (1, 2), SEESAW: (3, 5), CHUNKED: (2, 9)}
    table = pd.DataFrame(contest_rows("codellama-34b", crossing) + contest_rows("llama3.1-8b", parallel))
    found = {item.claim_id: item.value for item in findings.contest_findings(table, table)}
    assert found["X-16"]
    assert found["X-17"]
    assert found["X-14"] == pytest.approx(3)
    assert found["X-18"]
    swapped = table.assign(model=table.model.map({"codellama-34b": "llama3.1-8b", "llama3.1-8b": "codellama-34b"}))
    found = {item.claim_id: item.value for item in findings.contest_findings(swapped, swapped)}
    assert not found["X-16"]
    assert not found["X-17"]


def test_every_claim_is_ours_and_decidable():
    ledger = all_claims()["across"]
    assert len(ledger) >= 20
    assert all(claim.origin == "related" and claim.is_decidable for claim in ledger.values())


def test_profiles_hold_configs():
    for name in ("smoke", "cpu", "gpu"):
        config = get_profile(name).config("across", Config)
        assert name == "smoke" or len(config.seeds) >= 3


def test_config_refuses_what_claims_cannot_do_without():
    with pytest.raises(ValueError, match="one of them must be 0"):
        Config(overheads=(0.1,))
    with pytest.raises(ValueError, match="16, 8 and 4"):
        Config(w_bits=(16, 4))
    with pytest.raises(ValueError, match="loads is empty"):
        Config(loads=())
