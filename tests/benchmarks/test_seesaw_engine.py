"""Timing bars of Seesaw's engine on this machine; two ranks need two cores to themselves."""

import pytest

from paperlab.seesaw.engine import RankPool
from paperlab.seesaw.studies import overlap_study, prediction_study

pytestmark = [pytest.mark.bench, pytest.mark.slow]


@pytest.fixture(scope="module")
def pool():
    with RankPool(2) as ranks:
        yield ranks


@pytest.mark.parametrize("layout", ["P2", "T2"])
def test_copies_hide_behind_prefill(idle_cores, pool, layout):
    """Copies that take 30 % of the computation cost at most 10 % when overlapped, and at least 25 % when waited for."""
    table = overlap_study.overlap(pool, layout, share=0.3, repeats=5)
    ratio = table.groupby("copies").ratio.median()
    assert ratio["overlapped"] <= 1.10, table.to_string()
    assert ratio["blocking"] >= 1.25, table.to_string()


def test_the_calibrated_simulator_predicts_runs_it_has_not_seen(idle_cores, pool):
    table = prediction_study.prediction(pool, rounds=5)
    found = prediction_study.accuracy(table).iloc[0]
    assert found.runs >= 12
    assert (table.transitions == table.simulated_transitions).all()
    assert found.spearman >= 0.9, table.to_string()
    assert found.worst_error <= 0.2, table.to_string()
