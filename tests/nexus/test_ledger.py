"""The ledger of claims: complete, and honest about what can decide."""

from __future__ import annotations

import pytest

from paperlab.lab.claims import all_claims
from paperlab.nexus.saturation import published_points
from paperlab.nexus.settings import Settings
from paperlab.nexus.studies.consistency import checks, listing_serves_long_prompts


def test_every_claim_of_the_paper_has_a_row():
    ids = set(all_claims()["nexus"])
    assert {f"N-{number:02}" for number in range(1, 51)} <= ids


def test_no_speed_is_decided_by_simulation():
    """Ratios of latency or throughput, and changes in percent, need a GPU."""
    for claim in all_claims()["nexus"].values():
        if claim.unit in ("x", "%", "s"):
            assert claim.evidence in ("measured-gpu", "none", "analytic"), claim.claim_id
        if claim.evidence == "analytic":
            assert claim.claim_id > "N-50"


def test_inputs_of_the_fit_are_not_decided_by_what_was_fitted():
    ledger = all_claims()["nexus"]
    inputs = {point.origin for point in published_points()}
    assert inputs == {f"N-{number}" for number in range(13, 18)}
    assert {ledger[claim_id].evidence for claim_id in inputs} == {"measured-gpu"}


def test_points_agree_with_the_ledger():
    """The fit's values are the ledger's, except where the text gives a bound or a word."""
    ledger = all_claims()["nexus"]
    stated = {"N-13": 25, "N-14": 10, "N-16": 10}
    for point in published_points():
        if point.origin in stated:
            assert 100 * (1 - point.value) == pytest.approx(stated[point.origin]) == ledger[point.origin].value_low


def test_defaults_are_the_published_constants():
    settings, statement = Settings(), all_claims()["nexus"]["N-20"].statement
    for text in (
        f"beta {settings.beta}",
        f"alpha {settings.alpha}",
        f"KV switch {settings.kv_switch:.0%}".replace("%", " %"),
    ):
        assert text in statement
    assert f"gamma {settings.gamma_tokens_per_s:g}" in statement


def test_the_paper_against_itself():
    table = checks().set_index("claim_id").found
    assert table["N-51"] == pytest.approx(0.251 / 0.015)
    assert table["N-52"] == pytest.approx(100 * 0.02 / 0.13)
    assert list(table[["N-53", "N-54", "N-55"]]) == [False, False, False]
    assert listing_serves_long_prompts(literal=False)
