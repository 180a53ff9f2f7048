import pytest

from paperlab.lab import claims, report, scorecard
from paperlab.lab.claims import Claim, Verdict, judge
from paperlab.lab.execute import execute
from paperlab.lab.paths import repo_root
from paperlab.lab.record import Finding

from .conftest import LEDGER


def claim(**changes):
    base = {
        "claim_id": "X-01", "paper_ref": "abstract", "arxiv_version": "v1", "statement": "faster",
        "value_low": 2.0, "value_high": None, "unit": "x", "comparison": "at_least", "tolerance": 0.1,
        "source": "read", "evidence": "measured-cpu", "note": "",
    }  # fmt: skip
    return Claim(**{**base, **changes})


def found(value, evidence="measured-cpu"):
    return [Finding("X-01", value, evidence, "table_1")]


@pytest.mark.parametrize(
    ("changes", "value", "verdict"),
    [
        ({}, 1.8, Verdict.REPRODUCED),
        ({}, 1.79, Verdict.DIRECTION),
        ({}, 0.9, Verdict.CONTRADICTED),
        ({}, 1.0, Verdict.CONTRADICTED),
        ({}, float("nan"), Verdict.CONTRADICTED),
        ({"comparison": "within"}, 2.3, Verdict.DIRECTION),
        ({"comparison": "within", "value_high": 3.0}, 3.3, Verdict.REPRODUCED),
        ({"comparison": "at_most", "value_low": 0.5}, 0.56, Verdict.DIRECTION),
        ({"comparison": "at_most", "value_low": 0.5}, 0.55, Verdict.REPRODUCED),
        ({"unit": "%", "value_low": -4.9, "comparison": "within"}, -4.8, Verdict.REPRODUCED),
        ({"unit": "%", "value_low": -4.9, "comparison": "within"}, 4.9, Verdict.CONTRADICTED),
        ({"unit": "s"}, 1.0, Verdict.CONTRADICTED),  # seconds have no neutral value, hence no direction
        ({"comparison": "holds", "value_low": None}, True, Verdict.REPRODUCED),
        ({"comparison": "holds", "value_low": None}, False, Verdict.CONTRADICTED),
    ],
)
def test_verdict(changes, value, verdict):
    assert judge(claim(**changes), found(value)).verdict == verdict


def test_only_the_asked_evidence_decides():
    gpu = claim(evidence="measured-gpu")
    weaker = judge(gpu, found(5.0, "simulated"))
    assert weaker.verdict == Verdict.PENDING_GPU
    assert weaker.finding.value == 5.0
    assert judge(gpu, found(5.0, "measured-gpu")).verdict == Verdict.REPRODUCED
    assert judge(claim(), found(5.0, "analytic")).verdict == Verdict.MISSING
    assert judge(claim(), []).verdict == Verdict.MISSING


@pytest.mark.parametrize("source", ["recalled", "unknown"])
def test_values_nobody_read_never_decide(source):
    assert judge(claim(source=source), found(9.0)).verdict == Verdict.NOT_TESTABLE


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"comparison": "better"}, "comparison 'better' is not one of"),
        ({"source": "guessed"}, "source 'guessed'"),
        ({"evidence": "felt"}, "'felt' is not one of"),
        ({"evidence": "none"}, "needs a note"),
        ({"tolerance": -1.0}, "negative"),
        ({"value_low": None}, "needs value_low"),
        ({"statement": ""}, "must not be empty"),
    ],
)
def test_bad_rows_are_refused(cell, message):
    with pytest.raises(ValueError, match=message):
        claim(**cell)


def test_ledger_file_errors_name_file_and_claim(tmp_path):
    file = tmp_path / "x.csv"
    file.write_text(LEDGER.replace("X-02", "X-01"))
    with pytest.raises(ValueError, match=r"x\.csv: duplicate claim_id X-01"):
        claims.load_ledger(file)
    file.write_text(LEDGER.replace("0.05", "about"))
    with pytest.raises(ValueError, match=r"x\.csv: X-01: .*about"):
        claims.load_ledger(file)
    file.write_text("claim_id,value\nX-01,2\n")
    with pytest.raises(ValueError, match=r"x\.csv: columns must be"):
        claims.load_ledger(file)


def test_scorecard_counts_every_claim_once(lab_root):
    judgments = scorecard.judge_all([lab_root / "results" / "smoke"])
    row, related = (scorecard.summary(judgments).iloc[i] for i in (0, 1))
    assert (row["origin"], related["origin"], related["claims"]) == ("paper", "related", 0)
    assert row["claims"] == 4 == sum(row[str(verdict)] for verdict in Verdict)
    assert (row["missing"], row["pending-gpu"], row["not-testable"]) == (2, 1, 1)
    assert list(scorecard.details(judgments)["claim_id"]) == ["X-01", "X-02", "X-03", "X-04"]


def test_the_scorecard_says_what_it_takes_and_what_did_not_come_out(lab_root):
    execute("41_demo", "smoke")
    judgments = scorecard.judge_all([lab_root / "results" / "smoke"])
    first = scorecard.details(judgments).iloc[0]
    assert (first.verdict, first.command) == ("reproduced", "paperlab run 41_demo --profile smoke")
    assert first.seconds > 0
    assert "cores" in first.hardware
    assert scorecard.deviations(judgments).empty
    ledger = lab_root / "data" / "claims" / "tempo.csv"
    ledger.write_text(LEDGER.replace("twice as fast,2", "five times as fast,5"))
    claims._ledgers.cache_clear()
    (missed,) = scorecard.deviations(scorecard.judge_all([lab_root / "results" / "smoke"])).itertuples()
    assert (missed.claim_id, missed.verdict, missed.ours) == ("X-01", "direction", "2 x [measured-cpu]")


def test_the_readme_shows_the_current_summary():
    readme = (repo_root() / "README.md").read_text()
    assert report.README_MARKS[0] in readme
    assert report.with_summary(readme) == readme, "run: paperlab report --profile cpu"


def test_claim_id_in_two_ledgers_is_refused(lab_root):
    (lab_root / "data" / "claims" / "mist.csv").write_text(LEDGER)
    with pytest.raises(ValueError, match="in two ledgers: X-01"):
        claims.all_claims()


def test_every_committed_ledger_is_valid():
    assert all(ledger for ledger in claims.all_claims().values())
