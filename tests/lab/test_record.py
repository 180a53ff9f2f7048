import matplotlib.pyplot as plt
import pandas as pd
import pytest

from paperlab.lab import start, tables
from paperlab.lab.record import read_index

FRAME = pd.DataFrame({"name": ["a", "b|c"], "value": [0.1 + 0.2, 12345678.0], "count": [1, 2]})


@pytest.fixture
def run(lab_root):
    return start("41_demo")


def test_by_hand_results_go_to_interactive(run, lab_root):
    assert run.folder == lab_root / "results" / "interactive" / "smoke" / "41_demo"


def test_table_is_saved_in_three_formats_with_evidence(run):
    saved = run.save_table(FRAME, "table_1", evidence="analytic", caption="Two rows.")
    assert set(saved["evidence"]) == {"analytic"}
    back = tables.read_csv((run.folder / "table_1.csv").read_text())
    pd.testing.assert_frame_equal(back, saved, check_exact=False, rtol=1e-9)
    markdown = (run.folder / "table_1.md").read_text()
    assert "12,345,678" in markdown
    assert "b\\|c" in markdown
    assert r"\begin{tabular}" in (run.folder / "table_1.tex").read_text()


def test_same_figure_twice_is_the_same_bytes(run):
    def draw(name):
        figure, axes = plt.subplots()
        axes.plot(FRAME["count"], FRAME["value"], label="line")
        axes.legend()
        run.save_figure(figure, name, FRAME, evidence="simulated", caption="A line.")
        plt.close(figure)
        return [(run.folder / f"{name}.{kind}").read_bytes() for kind in ("svg", "png", "csv")]

    assert draw("figure_1") == draw("figure_1")
    assert b"simulated" in (run.folder / "figure_1.csv").read_bytes()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"caption": "x"}, "give evidence"),
        ({"caption": "x", "evidence": "guessed"}, "'guessed' is not one of measured-cpu"),
        ({"caption": " ", "evidence": "analytic"}, "needs a caption"),
    ],
)
def test_bad_tables_are_refused(run, keywords, message):
    with pytest.raises(ValueError, match=message):
        run.save_table(FRAME, "table_1", **keywords)
    assert not (run.folder / "table_1.csv").exists()


def test_empty_table_is_refused(run):
    with pytest.raises(ValueError, match="no rows"):
        run.save_table(FRAME.iloc[:0], "table_1", evidence="analytic", caption="Nothing.")


def test_evidence_argument_must_not_contradict_the_column(run):
    frame = FRAME.assign(evidence=["measured-cpu", "analytic"])
    with pytest.raises(ValueError, match="contradicts"):
        run.save_table(frame, "table_1", evidence="analytic", caption="Mixed.")
    assert list(run.save_table(frame, "table_1", caption="Mixed.")["evidence"]) == ["measured-cpu", "analytic"]


def test_claim_needs_a_known_id_and_a_saved_artifact(run):
    run.save_table(FRAME, "table_1", evidence="measured-cpu", caption="Rows.")
    assert run.record_claim("X-01", 1.95, evidence="measured-cpu", artifact="table_1") == "reproduced"
    with pytest.raises(KeyError, match=r"in no ledger.*X-01"):
        run.record_claim("X-1", 2.0, evidence="measured-cpu", artifact="table_1")
    with pytest.raises(ValueError, match="was not saved"):
        run.record_claim("X-01", 2.0, evidence="measured-cpu", artifact="table_9")
    artifacts, findings = read_index(run.folder)
    assert [item.name for item in artifacts] == ["table_1"]
    assert [(item.claim_id, item.value) for item in findings] == [("X-01", 1.95)]


def test_start_refuses_unknown_names(lab_root):
    with pytest.raises(ValueError, match="notebook: '42_demo' is unknown; use one of 41_demo"):
        start("42_demo")
    with pytest.raises(ValueError, match="profile: 'big' is unknown; use one of smoke, cpu, gpu"):
        start("41_demo", "big")
    with pytest.raises(ValueError, match="seed: -1 is out of range"):
        start("41_demo", seed=-1)


def test_unwritable_results_are_told_in_one_line(lab_root, monkeypatch):
    blocked = lab_root / "blocked"
    blocked.write_text("a file where a folder should be")
    monkeypatch.setenv("PAPERLAB_RESULTS", str(blocked))
    with pytest.raises(PermissionError, match=r"cannot write .*set PAPERLAB_RESULTS"):
        start("41_demo")
