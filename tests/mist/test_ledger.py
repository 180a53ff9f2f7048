"""The ledger of claims: complete, honest about what can decide, and recorded by findings that exist."""

import re

from paperlab.lab.claims import all_claims
from paperlab.lab.paths import repo_root
from paperlab.mist import published

LEDGER = all_claims()["mist"]
RECORDED_BY_NUMBER = {f"MI-{n:03}{end}" for n in range(20, 29) for end in ("", "d")} | {
    f"MI-{n:03}" for n in (*range(30, 39), *range(56, 61))
}


def test_no_speed_of_the_paper_is_decided_by_a_prediction():
    for claim in LEDGER.values():
        if claim.unit == "x" and claim.is_decidable:
            assert claim.evidence in ("measured-gpu", "measured-cpu"), claim.claim_id
        if claim.arxiv_version and claim.unit == "%":
            assert claim.evidence == "measured-gpu", claim.claim_id


def test_the_readmes_speedups_are_the_ledgers():
    for number, values in enumerate(published.README_SPEEDUPS.values(), start=20):
        assert [LEDGER[f"MI-{number:03}{end}"].value_low for end in ("", "d")] == list(values)
    for number, seconds in enumerate(published.ACESO_L4_S.values(), start=56):
        assert LEDGER[f"MI-{number:03}"].value_low == seconds


def test_released_times_are_the_ledgers():
    runs = published.released_runs().drop_duplicates(["family", "size", "attention"])
    known = {claim.value_low for claim in LEDGER.values() if claim.paper_ref == "artifact, expected_summary"}
    assert set(runs.iteration_s) <= known


def test_every_claim_that_can_be_decided_here_is_recorded_somewhere():
    folder = repo_root() / "lib" / "paperlab" / "mist"
    text = "".join(path.read_text() for path in folder.rglob("*findings.py"))
    recorded = set(re.findall(r"MI-\d{3}d?", text)) | RECORDED_BY_NUMBER
    decidable = {key for key, claim in LEDGER.items() if claim.is_decidable and claim.evidence != "measured-gpu"}
    assert decidable <= recorded
    assert recorded <= set(LEDGER)
